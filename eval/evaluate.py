"""Several ranks for one evaluation.

    torchrun --nproc-per-node 8 -m eval finetune RUN_DIR

What trains on images (fine-tuning, distillation, linear evaluation by SGD on augmented images) all ranks do together:
the numbers are those of one rank. Of what reads features every rank passes its part of the images through the encoder,
the first one puts the parts together in the cache, and goes on alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from eval.config import KnnConfig, LinearConfig, ProbeConfig, TransferConfig
from eval.encoder import load_encoder
from eval.features import (
    Features,
    FeatureSource,
    cached_features,
    extract_features,
    feature_source,
    keep_features,
    transfer_sources,
)
from eval.result import Evaluation, EvaluationError, Stopwatch
from eval.subject import Subject, open_subject
from pretrain.config import PrecisionConfig
from pretrain.dist import World, agree_on, open_world
from pretrain.numerics import set_numerics
from pretrain.ranks import world_size_from_environment
from pretrain.rundir import RunDirectory


def share_features(evaluation: Evaluation, world: World) -> None:
    """Fill the run's cache with the features that ``evaluation`` needs. Collective: every rank calls this.

    Raises EvaluationError where the task uses one process, or nothing may be kept.
    """
    config = evaluation.config
    if not config.shared:
        raise EvaluationError(f"{evaluation.task} runs in one process; got {world.size} ranks")
    if not config.cache:
        raise EvaluationError(f"{world.size} ranks share features through the run's cache; got cache=false")
    if not isinstance(config, LinearConfig | KnnConfig | TransferConfig):
        return  # rows ask for features one after another, or none do
    encoder = load_encoder(
        evaluation.run, evaluation.run_config, device=world.device, initialisation=config.initialisation
    )
    for source, split in _wanted(feature_source(encoder, config), config):
        share_split(evaluation.run, source, split, world)


def share_split(run: RunDirectory, source: FeatureSource, split: str, world: World) -> None:
    """Fill the cache with the features of one split. Collective: every rank calls this."""
    known = world.is_first and cached_features(run, source, split) is not None
    if agree_on(world, int(known)):
        return
    mine = extract_features(source, split, device=world.device, rank=world.rank, world_size=world.size)
    parts: list[Features | None] | None = [None] * world.size if world.is_first else None
    dist.gather_object(mine, parts, dst=0, group=world.groups.control)
    if parts is not None:
        columns = zip(*(vars(part).values() for part in parts if part is not None))
        keep_features(run, source, split, Features(*(torch.cat(column) for column in columns)))
    agree_on(world, 1)  # nobody looks for what is not there yet


def _wanted(source: FeatureSource, config: ProbeConfig) -> list[tuple[FeatureSource, str]]:
    """Which splits of which data sets, each once."""
    if isinstance(config, TransferConfig):
        sources = transfer_sources(source.encoder, source.size_px, config)
        splits = [config.validation_split] if config.validation_split is not None else []
        return [(other, split) for other in sources for split in (other.train_split, config.test_split, *splits)]
    return [(source, source.train_split), (source, config.test_split)]


def evaluate(evaluation: Evaluation, stopwatch: Stopwatch) -> dict[str, Any] | None:
    """Do ``evaluation`` and write its result. Raises EvaluationError, CheckpointError, ConfigError.

    Of several ranks (torchrun) the first one gets the result and the others None.
    """
    set_numerics(PrecisionConfig())  # measured in IEEE float32, whatever the run was trained in
    if world_size_from_environment() == 1:
        return _do(open_subject(evaluation, stopwatch))
    with open_world(evaluation.config.device) as world:
        share_features(evaluation, world)
        stopwatch.lap("features")
        if evaluation.config.trains_on_images:
            result = _do(open_subject(evaluation, stopwatch, world))
            return result if world.is_first else None
    return _do(open_subject(evaluation, stopwatch)) if world.is_first else None


def _do(subject: Subject) -> dict[str, Any]:
    return subject.evaluation.config.evaluate(subject)
