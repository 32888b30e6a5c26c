"""The tasks: from a run directory to measured numbers."""

from __future__ import annotations

from typing import Any

import torch

from eval.config import FeatureConfig, KnnConfig, LinearConfig, NeighbourSettings
from eval.encoder import load_encoder
from eval.errors import EvaluationError
from eval.features import Features, feature_source, load_features, progress_bar
from eval.knn import knn_accuracy
from eval.linear import choose_and_fit, standardization
from eval.metrics import accuracy
from eval.result import Evaluation, Stopwatch, write_result


def evaluate(evaluation: Evaluation, stopwatch: Stopwatch) -> dict[str, Any]:
    """Do ``evaluation`` and write its result. Raises EvaluationError, CheckpointError, ConfigError."""
    config = evaluation.config
    device = _device(config)
    encoder = load_encoder(evaluation.run, evaluation.run_config, device=device)
    source = feature_source(encoder, config)
    stopwatch.lap("load")
    train = load_features(evaluation.run, source, source.train_split, device=device)
    test = load_features(evaluation.run, source, config.test_split, device=device)
    classes = _classes(train, test)
    stopwatch.lap("features")
    measured: dict[str, Any] = {}
    match config:
        case LinearConfig():
            neighbours = config.neighbours if config.knn else None
        case KnnConfig():
            neighbours = config.neighbours
        case _:
            raise AssertionError(f"no such task: {type(config).__name__}")
    if neighbours is not None:
        measured |= measure_knn(train, test, neighbours, classes=classes)
        stopwatch.lap("knn")
    if isinstance(config, LinearConfig):
        measured = {**measure_linear(train, test, config, classes=classes), **measured}
        stopwatch.lap("linear")
    return write_result(
        evaluation,
        measured,
        run={"fingerprint": encoder.fingerprint, "step": encoder.step, "checkpoint": encoder.checkpoint.name},
        data={
            **source.describe(),
            "train_images": len(train.x_ND),
            "test_images": len(test.x_ND),
            "classes": classes,
            "features": train.x_ND.shape[1],
        },
        seconds=stopwatch.total(),
    )


def measure_linear(train: Features, test: Features, config: LinearConfig, *, classes: int) -> dict[str, Any]:
    """Linear evaluation; ``test`` is read once, after everything has been chosen on ``train``."""
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
                tolerance=config.tolerance,
                progress=lambda: advance(1),
            )
        except ValueError as error:
            raise EvaluationError(str(error)) from error
    reached = accuracy(chosen.fit.logits((test.x_ND - mean_D) / std_D), test.labels_N)
    return {
        "top1": reached.top1,
        "top1_interval": list(reached.top1_interval),
        "top5": reached.top5,
        "per_class_mean": reached.per_class_mean,
        "per_class": list(reached.per_class),
        "l2": chosen.fit.l2,
        "iterations": chosen.fit.iterations,
        "converged": chosen.fit.converged,
        "grid": [
            {"l2": row.l2, "held_out": row.held_out_percent, "iterations": row.iterations, "converged": row.converged}
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
    return {"knn_top1": reached.weighted_percent, "knn_plain_top1": reached.plain_percent}


def _device(config: FeatureConfig) -> torch.device:
    available = torch.cuda.is_available()
    if config.device == "cuda" and not available:
        raise EvaluationError("device=cuda, but this machine has no CUDA device; wanted device=cpu or auto")
    return torch.device("cuda" if available and config.device != "cpu" else "cpu")


def _classes(train: Features, test: Features) -> int:
    classes = int(train.labels_N.max()) + 1
    if int(test.labels_N.max()) >= classes:
        raise EvaluationError(
            f"the test split has class {int(test.labels_N.max())}, the training images only 0 to {classes - 1}"
        )
    return classes
