"""From a name and its numbers to an optimizer."""

from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from pretrain.optim.lars import LARS
from pretrain.optim.param_groups import parameter_groups


def build_optimizer(
    module: nn.Module,
    *,
    name: Literal["lars", "sgd", "adamw"],
    lr: float,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
    betas: tuple[float, float],
) -> Optimizer:
    """The optimizer of all parameters that need a gradient; biases and norm parameters are neither decayed nor adapted.

    momentum: LARS and SGD; trust_coefficient: LARS; betas: AdamW. All are multi-tensor and never wait for the device.
    """
    groups = parameter_groups(module, weight_decay)
    match name:
        case "lars":
            return LARS(groups, lr, momentum=momentum, trust_coefficient=trust_coefficient)
        case "sgd":
            return torch.optim.SGD(groups, lr, momentum=momentum, foreach=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr, betas=betas, foreach=True)
