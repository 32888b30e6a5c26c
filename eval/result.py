"""One evaluation of one run: refuse, reuse or do it, and write its result.json last and whole. Torch-free.

What a result says is in `eval.schema`. It is made again once its inputs have changed.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.config import FeatureConfig, evaluation_fingerprint, result_settings
from eval.schema import VERSION, EvaluationResult, RunResult, parse_result, read_evaluation, read_run_result
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import load
from pretrain.rundir import RunDirectory, environment, write_json


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
            f"{run_directory} is not a run: it has no {run.config.name} (`bigbatch pretrain` writes it)"
        )
    if not run.finished() and not config.allow_unfinished:
        raise EvaluationError(
            f"{run_directory} has not finished: it has no {run.result.name}; start its training again to go on, "
            "or evaluate its newest checkpoint with allow_unfinished=true"
        )
    return Evaluation(task, run, load(PretrainConfig, run.config), config)


def previous_result(evaluation: Evaluation) -> EvaluationResult | None:
    """The result of the same evaluation of the same finished run; None where there is none to go by."""
    training = read_run_result(evaluation.run, run_fingerprint(evaluation.run_config))
    if not isinstance(training, RunResult):
        return None
    result = read_evaluation(evaluation.result_path, training)
    if not isinstance(result, EvaluationResult) or inputs_changed(result.inputs):
        return None
    return result


def inputs_changed(inputs: Mapping[str, str]) -> bool:
    """Whether a file is no longer what the result was made of; one that is gone cannot tell."""
    present = [path for path in map(Path, inputs) if path.is_file()]
    return any(digest != inputs[path] for path, digest in digests(present).items())


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
        "version": VERSION,
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
    parse_result(result)  # what is written can be read
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
