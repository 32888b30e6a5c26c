"""One evaluation from a run directory to its result, on one rank or several."""

from __future__ import annotations

from typing import Any

from eval.result import Evaluation, Stopwatch
from eval.shared_features import share_features
from eval.subject import Subject, open_subject
from pretrain.dist import open_world, world_size_from_environment


def evaluate(evaluation: Evaluation, stopwatch: Stopwatch) -> dict[str, Any] | None:
    """Do ``evaluation`` and write its result. Raises EvaluationError, CheckpointError, ConfigError.

    Of several ranks (torchrun) the first one gets the result and the others None: see `eval.shared_features`.
    """
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
