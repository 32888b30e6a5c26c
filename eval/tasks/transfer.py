"""Transfer: the frozen encoder's features of other data sets, and a linear classifier on each.

Multinomial logistic regression by L-BFGS; its L2 is chosen on a validation split, or where there is none on a held-out
part of the training images, and fitted again on both (Kornblith et al. 2019; SimCLR appendix B.8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from eval.config import TransferConfig
from eval.features import Features, FeatureSource, load_features, transfer_sources
from eval.subject import Subject, class_count
from eval.tasks.probe import measure_linear
from pretrain.data.catalog import manifest_path, read_manifest


def evaluate_transfer(subject: Subject, config: TransferConfig) -> dict[str, Any]:
    """A row for each data set, and the means over them."""
    rows = []
    sources = transfer_sources(subject.encoder, subject.source.size_px, config)
    chosen_on = [config.validation_split] if config.validation_split is not None else []
    for source in sources:
        rows.append(_row(subject, config, source))
        subject.stopwatch.lap(rows[-1]["name"])
    return subject.write(
        {
            "rows": rows,
            "mean_top1": sum(row["top1"] for row in rows) / len(rows),
            "mean_per_class": sum(row["per_class_mean"] for row in rows) / len(rows),
        },
        data={"directory": None, "class_names": None, "features": subject.encoder.config.encoder.feature_width},
        inputs=[path for source in sources for path in source.manifests(*chosen_on)],
    )


def _row(subject: Subject, config: TransferConfig, source: FeatureSource) -> dict[str, Any]:
    def features(split: str) -> Features:
        return load_features(subject.evaluation.run, source, split, device=subject.device)

    train, test, held_out_N = features(source.train_split), features(config.test_split), None
    if config.validation_split is not None:
        validation = features(config.validation_split)
        held_out_N = torch.arange(len(train.x_ND) + len(validation.x_ND), device=subject.device) >= len(train.x_ND)
        parts = zip(vars(train).values(), vars(validation).values())
        train = Features(*(torch.cat(pair) for pair in parts))
    classes = class_count(train.labels_N, test.labels_N)
    return {
        "name": _name(source.directory, config.test_split),
        "directory": str(source.directory),
        "train_images": len(train.x_ND),
        "test_images": len(test.x_ND),
        "classes": classes,
        "class_names": source.class_names(),
        "validation": config.validation_split or "held out",
        **measure_linear(train, test, config, classes=classes, held_out_N=held_out_N),
    }


def _name(directory: Path, split: str) -> str:
    """What the data set calls itself, else its directory."""
    return read_manifest(directory, split).dataset if manifest_path(directory, split).is_file() else directory.name
