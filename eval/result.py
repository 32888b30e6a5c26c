"""One evaluation of one run: refuse, reuse or do it, and write its result.json last and whole. Torch-free.

Every result has task, fingerprint, run {fingerprint, step, checkpoint, finished}, data, settings, inputs
{file: SHA-256}, seconds, environment. It is made again once its inputs have changed.
Accuracies are in percent, losses mean cross-entropies in nats, learning rates base rates; a number that could not be
had is null. Beside them, by task:

CLASSIFIER  top1, top1_interval [low, high] (Wilson, 95 %), top5 (null up to 5 classes), per_class_mean, per_class,
            test_loss, train_top1, train_loss, confusion [class][guess] (null above 100 classes)
CURVES      epoch, train_loss, train_top1, test_loss, test_top1: lists, an entry each epoch. The test columns are a
            record; nothing is chosen by them. ``reported`` says which epoch the CLASSIFIER is of: the last.

linear      CLASSIFIER, protocol, hyperparameters, grid [{.., held_out, held_out_loss, train_loss}], knn_top1,
            knn_plain_top1; lbfgs: l2, iterations, converged; sgd: learning_rate, weight_decay, epochs, batch_size,
            augmented, heads, curves CURVES, reported
knn         knn_top1 (weighted), knn_plain_top1
finetune    rows [CLASSIFIER, name (random | supervised | linear | fine-tuned), method, initialisation, label_fraction,
            images, hyperparameters, grid; fine-tuned ones: epochs, curves CURVES, reported]
transfer    rows [CLASSIFIER, name, directory, train_images, test_images, classes, class_names, validation, l2, grid,
            ..], mean_top1, mean_per_class
tsne        rows [step, checkpoint, epoch, alignment, uniformity, rankme, effective_rank, features, images,
            kl_divergence, picture, points (files beside the result)], and the newest row's numbers at the top
distill     student {CLASSIFIER, architecture, width, parameters}, teacher {top1, label_fraction, parameters, file, ..},
            agreement, labels_only {CLASSIFIER, images, epochs} or null, temperature, images, epochs, curves
            (train_top1: agreement with the teacher), reported
export      files {name: {bytes, sha256}}, parameters, torchvision (name or null), torchvision_reason, numbers
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.config import FeatureConfig, evaluation_fingerprint, result_settings
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import load
from pretrain.rundir import RunDirectory, environment, read_json, write_json

# What cannot be evaluated, said to a person. Torch-free.


class EvaluationError(RuntimeError):
    """An evaluation that cannot be done, with where, why, and what to do."""


@dataclass(frozen=True)
class Evaluation:
    """A task on a run that can be evaluated."""

    task: str
    run: RunDirectory
    run_config: PretrainConfig
    config: FeatureConfig

    @property
    def directory(self) -> Path:
        return self.run.evaluation(self.task, evaluation_fingerprint(self.task, self.config))

    @property
    def result_path(self) -> Path:
        """Exists exactly when the evaluation finished."""
        return self.directory / "result.json"


def open_evaluation(task: str, run_directory: Path, config: FeatureConfig) -> Evaluation:
    """The evaluation of ``run_directory``. Raises EvaluationError where it is no run or has not finished."""
    run = RunDirectory(run_directory)
    if not run.config.is_file():
        raise EvaluationError(
            f"{run_directory} is not a run: it has no {run.config.name} (`python -m pretrain` writes it)"
        )
    if not run.finished() and not config.allow_unfinished:
        raise EvaluationError(
            f"{run_directory} has not finished: it has no {run.result.name}; start its training again to go on, "
            "or evaluate its newest checkpoint with allow_unfinished=true"
        )
    return Evaluation(task, run, load(PretrainConfig, run.config), config)


def previous_result(evaluation: Evaluation) -> dict[str, Any] | None:
    """The result of the same evaluation of the same finished run; None where there is none to go by."""
    try:
        result = read_json(evaluation.result_path)
    except (FileNotFoundError, ValueError):
        return None
    run = result.get("run", {}) if isinstance(result, dict) else {}
    same = run.get("fingerprint") == run_fingerprint(evaluation.run_config)
    if not same or not run.get("finished") or not evaluation.run.finished():
        return None
    return None if _changed(result.get("inputs")) else dict(result)


def _changed(inputs: Any) -> bool:
    """Whether a file is no longer what the result was made of; one that is gone cannot tell."""
    known = inputs if isinstance(inputs, dict) else {}
    present = [path for path in map(Path, known) if path.is_file()]
    return any(digest != known[path] for path, digest in digests(present).items())


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """SHA-256 of each file, by its absolute path."""
    found = {}
    for path in paths:
        with path.open("rb") as file:
            found[str(path.absolute())] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def write_result(
    evaluation: Evaluation,
    measured: Mapping[str, Any],
    *,
    run: Mapping[str, Any],
    data: Mapping[str, Any],
    inputs: Iterable[Path],
    seconds: Mapping[str, float],
    writes: bool = True,
) -> dict[str, Any]:
    """The whole result, written where this process ``writes``; accuracies of ``measured`` are in percent.

    inputs: files beside the run that it depends on.
    """
    result = {
        "task": evaluation.task,
        "fingerprint": evaluation_fingerprint(evaluation.task, evaluation.config),
        **measured,
        "run": {**run, "finished": evaluation.run.finished()},
        "data": dict(data),
        "settings": result_settings(evaluation.config),
        "inputs": digests(inputs),
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "environment": environment(),
    }
    if writes:
        write_json(evaluation.result_path, result)
    return result


class Stopwatch:
    """Seconds per stage, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._start = self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Count the time since the last lap as ``name``."""
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def total(self) -> dict[str, float]:
        """All laps, and their sum as ``total``."""
        return {**self.seconds, "total": time.perf_counter() - self._start}
