"""From an optimizer's settings to the optimizer."""

from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.optim import Optimizer

from pretrain.choices import load_object
from pretrain.optim.config import OptimizerSettings

# Which parameters are decayed and adapted: decided by the type of the module that owns them.


NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: weights; and biases, all parameters of norms, and scalars (a learned temperature).

    The second has weight_decay 0 and adapt False (read by LARS, kept by others). Parameters that need no gradient are
    left out, shared ones come once, and a group without parameters is left out. Raises ValueError where none is left.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    seen: set[Tensor] = set()
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            is_plain = isinstance(owner, NORMS) or name == "bias" or name.endswith("_bias") or parameter.dim() == 0
            (plain if is_plain else decayed).append(parameter)
    if not seen:
        raise ValueError(f"{type(module).__name__} has no parameters that need a gradient")
    groups = [
        {"params": decayed, "weight_decay": weight_decay, "adapt": True},
        {"params": plain, "weight_decay": 0.0, "adapt": False},
    ]
    return [group for group in groups if group["params"]]


def build_optimizer(module: nn.Module, settings: OptimizerSettings, *, lr: float) -> Optimizer:
    """The optimizer of all parameters that need a gradient; biases and norm parameters are neither decayed nor adapted.

    Ours are multi-tensor and never wait for the device.
    """
    optimizer: Optimizer = load_object(settings.implementation or settings.name)(
        parameter_groups(module, settings.weight_decay), lr=lr, **settings.arguments()
    )
    return optimizer
