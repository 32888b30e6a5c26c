"""Probes of frozen features: from features to measured numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from eval.config import KnnConfig, LinearConfig, NeighbourSettings, TransferConfig, result_settings
from eval.features import Features, progress_bar
from eval.metrics import classifier_numbers
from eval.result import EvaluationError
from eval.schema import LinearResult, Neighbours
from eval.subject import Subject
from eval.tasks.knn import knn_accuracy
from eval.tasks.linear import choose_and_fit, standardization
from eval.tasks.linear_sgd import measure_linear_sgd


def evaluate_linear(subject: Subject, config: LinearConfig) -> dict[str, Any]:
    """A linear evaluation, with nearest neighbours on the same features where they are asked for."""
    return _evaluate(subject, linear=config, neighbours=config.neighbours if config.knn else None)


def evaluate_knn(subject: Subject, config: KnnConfig) -> dict[str, Any]:
    """Nearest neighbours alone; those that a linear evaluation of the same features has counted are taken from it."""
    for known in subject.results("linear"):
        same = all(known.settings.get(name) == value for name, value in result_settings(config).items())
        if same and isinstance(known, LinearResult) and known.knn_neighbours is not None:
            names = tuple(Neighbours.model_fields)
            data = known.data.model_dump(exclude={"class_names"}, exclude_none=True)
            return subject.write({name: getattr(known, name) for name in names}, data=data)
    return _evaluate(subject, linear=None, neighbours=config.neighbours)


def _evaluate(subject: Subject, *, linear: LinearConfig | None, neighbours: NeighbourSettings | None) -> dict[str, Any]:
    train, test, classes = subject.features()
    measured: dict[str, Any] = {}
    if neighbours is not None:
        measured |= measure_knn(train, test, neighbours, classes=classes)
        subject.stopwatch.lap("knn")
    if linear is not None:
        match linear.protocol:
            case "lbfgs":
                numbers = measure_linear(train, test, linear, classes=classes)
            case "sgd":
                numbers = measure_linear_sgd(subject, train, test, linear, classes=classes)
        measured = {**numbers, **measured}
        subject.stopwatch.lap("linear")
    return subject.write(
        measured,
        data={
            "train_images": len(train.x_ND),
            "test_images": len(test.x_ND),
            "classes": classes,
            "features": train.x_ND.shape[1],
        },
    )


def measure_linear(
    train: Features,
    test: Features,
    config: LinearConfig | TransferConfig,
    *,
    classes: int,
    held_out_N: Tensor | None = None,
) -> dict[str, Any]:
    """Linear evaluation; ``test`` is read once, after everything has been chosen on ``train``.

    held_out_N (N,): which of ``train`` choose; None: the part that ``config`` says.
    """
    mean_D, std_D = standardization(train.x_ND) if config.standardize else (torch.zeros(()), torch.ones(()))
    x_ND = (train.x_ND - mean_D) / std_D
    with progress_bar("L2 values", "fits") as advance:
        try:
            chosen = choose_and_fit(
                x_ND,
                train.labels_N,
                train.indices_N,
                classes=classes,
                l2_grid=config.l2,
                held_out_fraction=config.held_out_fraction,
                seed=config.seed,
                max_iterations=config.max_iterations,
                tolerance=config.gradient_tolerance,
                held_out_N=held_out_N,
                progress=lambda: advance(1),
            )
        except ValueError as error:
            raise EvaluationError(str(error)) from error
    return {
        **classifier_numbers(chosen.fit.logits((test.x_ND - mean_D) / std_D), test.labels_N),
        "train_top1": chosen.fit.train_top1(x_ND, train.labels_N),
        "train_loss": chosen.fit.train_loss,
        "protocol": "lbfgs",
        "hyperparameters": {"l2": chosen.fit.l2},
        "l2": chosen.fit.l2,
        "held_out_top1": chosen.best.held_out_percent,
        "iterations": chosen.fit.iterations,
        "gradient": chosen.fit.gradient,
        "converged": chosen.fit.converged,
        "grid": [
            {
                "l2": row.l2,
                "held_out": row.held_out_percent,
                "held_out_loss": row.held_out_loss,
                "train_loss": row.train_loss,
                "iterations": row.iterations,
                "gradient": row.gradient,
                "converged": row.converged,
            }
            for row in chosen.grid
        ],
    }


def measure_knn(train: Features, test: Features, settings: NeighbourSettings, *, classes: int) -> dict[str, Any]:
    """k-nearest-neighbours on the features as they are."""
    reached = knn_accuracy(
        train.x_ND,
        train.labels_N,
        test.x_ND,
        test.labels_N,
        classes=classes,
        neighbours=settings.neighbours,
        temperature=settings.temperature,
        plain_neighbours=settings.plain_neighbours,
    )
    return {
        "knn_top1": reached.weighted_percent,
        "knn_plain_top1": reached.plain_percent,
        "knn_neighbours": reached.neighbours,
        "knn_plain_neighbours": reached.plain_neighbours,
    }
