"""The evaluations, each from a run directory to its result."""

from __future__ import annotations

from typing import Any

from eval.config import DistillConfig, ExportConfig, FinetuneConfig, KnnConfig, LinearConfig, TransferConfig, TsneConfig
from eval.result import Evaluation, Stopwatch
from eval.shared_features import share_features, trains_on_images
from eval.subject import Subject, open_subject
from eval.tasks.distill import evaluate_distill
from eval.tasks.export import evaluate_export
from eval.tasks.finetune import evaluate_finetune
from eval.tasks.probe import evaluate_probe
from eval.tasks.transfer import evaluate_transfer
from eval.tasks.tsne import evaluate_tsne
from pretrain.dist import open_world, world_size_from_environment


def evaluate(evaluation: Evaluation, stopwatch: Stopwatch) -> dict[str, Any] | None:
    """Do ``evaluation`` and write its result. Raises EvaluationError, CheckpointError, ConfigError.

    Of several ranks (torchrun) the first one gets the result and the others None: see `eval.shared_features`.
    """
    if world_size_from_environment() == 1:
        return evaluate_subject(open_subject(evaluation, stopwatch))
    with open_world(evaluation.config.device) as world:
        share_features(evaluation, world)
        stopwatch.lap("features")
        if trains_on_images(evaluation.config):
            result = evaluate_subject(open_subject(evaluation, stopwatch, world))
            return result if world.is_first else None
    return evaluate_subject(open_subject(evaluation, stopwatch)) if world.is_first else None


def evaluate_subject(subject: Subject) -> dict[str, Any]:
    """The evaluation of ``subject``, on one rank or on all those that do it together."""
    match subject.evaluation.config:
        case LinearConfig() as config:
            return evaluate_probe(subject, linear=config, neighbours=config.neighbours if config.knn else None)
        case KnnConfig() as config:
            return evaluate_probe(subject, linear=None, neighbours=config.neighbours)
        case FinetuneConfig() as config:
            return evaluate_finetune(subject, config)
        case TransferConfig() as config:
            return evaluate_transfer(subject, config)
        case TsneConfig() as config:
            return evaluate_tsne(subject, config)
        case DistillConfig() as config:
            return evaluate_distill(subject, config)
        case ExportConfig():
            return evaluate_export(subject)
        case _:
            raise AssertionError(f"no such task: {type(subject.evaluation.config).__name__}")
