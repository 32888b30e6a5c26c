"""What is evaluated: the encoder of one checkpoint, the images that measure it, and where the time goes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.config import FeatureConfig, ProbeConfig
from eval.encoder import FrozenEncoder, load_encoder
from eval.features import Features, FeatureSource, feature_source, load_features
from eval.result import Evaluation, EvaluationError, Stopwatch, inputs_changed, write_result
from eval.schema import EvaluationResult, RunResult, read_evaluations
from pretrain.dist import World


@dataclass(frozen=True)
class Subject:
    """An evaluation with its encoder loaded."""

    evaluation: Evaluation
    encoder: FrozenEncoder
    source: FeatureSource
    world: World
    stopwatch: Stopwatch

    @property
    def device(self) -> torch.device:
        """Where this rank computes."""
        return self.world.device

    def features(self) -> tuple[Features, Features, int]:
        """(features of the training images, of the test images, number of classes)."""
        run, config = self.evaluation.run, self.evaluation.config
        train = load_features(run, self.source, self.source.train_split, device=self.device)
        test = load_features(run, self.source, config.test_split, device=self.device)
        self.stopwatch.lap("features")
        return train, test, class_count(train.labels_N, test.labels_N)

    def results(self, task: str | None = None) -> list[EvaluationResult]:
        """What has been measured of this very checkpoint, of all tasks or of one, whose inputs are what they were."""
        of = RunResult(fingerprint=self.encoder.fingerprint, total_steps=self.encoder.step)
        found, _ = read_evaluations(self.evaluation.run, of, step=self.encoder.step)
        return [result for result in found if task in (None, result.task) and not inputs_changed(result.inputs)]

    def write(
        self, measured: Mapping[str, Any], *, data: Mapping[str, Any], inputs: Iterable[Path] | None = None
    ) -> dict[str, Any]:
        """Return the result, which the first rank writes: ``measured``, and what it was measured on.

        inputs: files that it depends on, where they are not the manifests of the run's images alone.
        """
        encoder = self.encoder
        return write_result(
            self.evaluation,
            measured,
            run={"fingerprint": encoder.fingerprint, "step": encoder.step, "checkpoint": encoder.checkpoint.name},
            data={**self.source.describe(), **data},
            inputs=self.source.manifests() if inputs is None else inputs,
            seconds=self.stopwatch.total(),
            writes=self.world.is_first,
        )


def open_subject(evaluation: Evaluation, stopwatch: Stopwatch, world: World | None = None) -> Subject:
    """Load what ``evaluation`` is about, for one rank of ``world``; None: for the only one.

    Raises EvaluationError, CheckpointError, ConfigError.
    """
    config = evaluation.config
    world = world or World(0, 1, choose_device(config))
    initialisation = config.initialisation if isinstance(config, ProbeConfig) else "pretrained"
    encoder = load_encoder(evaluation.run, evaluation.run_config, device=world.device, initialisation=initialisation)
    stopwatch.lap("load")
    return Subject(evaluation, encoder, feature_source(encoder, config), world, stopwatch)


def choose_device(config: FeatureConfig) -> torch.device:
    """The device that ``config`` asks for. Raises EvaluationError where the machine has none."""
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise EvaluationError("device=cuda, but this machine has no CUDA device; expected device=cpu or auto")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def class_count(train_y_N: torch.Tensor, test_y_N: torch.Tensor) -> int:
    """Number of classes of the training images. Raises EvaluationError where labels are missing, or one is unknown."""
    for what, y_N in (("training", train_y_N), ("test", test_y_N)):
        if missing := int((y_N < 0).sum()):
            raise EvaluationError(f"{missing} of {len(y_N)} {what} images have no labels, which this evaluation needs")
    classes = int(train_y_N.max()) + 1
    if int(test_y_N.max()) >= classes:
        raise EvaluationError(
            f"the test split has class {int(test_y_N.max())}, the training images only 0 to {classes - 1}"
        )
    return classes
