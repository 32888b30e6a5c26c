"""What configuration values are called in print."""

from __future__ import annotations

METHODS = {
    "simclr": "SimCLR",
    "dcl": "DCL",
    "byol": "BYOL",
    "simsiam": "SimSiam",
    "barlow_twins": "Barlow Twins",
    "vicreg": "VICReg",
    "wmse": "W-MSE",
    "supervised": "Supervised",
}
DATASETS = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "Fashion-MNIST"}
ENCODERS = {f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101)}
TASKS = {"linear": "Linear probe", "knn": "Nearest neighbours"}
QUANTITIES = {
    "global_batch_size": "Batch size (images)",
    "negatives_per_anchor": "Negatives per anchor",
    "batch_norm_images": "Images per batch-norm statistic",
    "epochs": "Epochs",
    "schedule.base_learning_rate": "Base learning rate",
    "schedule.rule": "Learning-rate rule",
    "schedule.warmup_epochs": "Warm-up epochs",
    "objective.name": "Objective",
    "objective.temperature": "Temperature",
    "objective.negatives": "Images that are each other's negatives",
    "encoder.architecture": "Encoder",
    "sync_batch_norm": "Batch norm over ranks",
    "data.images": "Training images",
}
BRIEF = {"global_batch_size": "batch size", "base_learning_rate": "base LR", "rule": "LR rule"}


def quantity(key: str) -> str:
    """Axis label of a dotted configuration key: ``Batch size (images)``, ``Projector layers``."""
    return QUANTITIES.get(key) or _words(key, parts=2).capitalize()


def brief(key: str) -> str:
    """The key in a legend: ``batch size``, ``epochs``, ``projector layers``."""
    last = key.rpartition(".")[2]
    return BRIEF.get(last) or _words(key, parts=2 if last in ("name", "layers", "width", "images") else 1)


def named(value: str) -> str:
    """Print name of a value that has one: ``SimCLR`` for simclr."""
    for names in (METHODS, DATASETS, ENCODERS):
        if value in names:
            return names[value]
    return value


def _words(key: str, *, parts: int) -> str:
    return " ".join(key.split(".")[-parts:]).replace("_", " ")
