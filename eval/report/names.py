"""What configuration values are called in print."""

from __future__ import annotations

METHODS = {
    "simclr": "SimCLR",
    "byol": "BYOL",
    "barlow_twins": "Barlow Twins",
    "wmse": "W-MSE",
    "supervised": "Supervised",
}
DATASETS = {"imagenet": "ImageNet", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "Fashion-MNIST"}
ENCODERS = {f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101)}
TASKS = {"linear": "Linear probe", "knn": "Nearest neighbours"}
