"""Losses compute in float32, or in float64 for float64 inputs, whatever the autocast around them says."""

from typing import Any

import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """x in float32; a float64 x stays as it is."""
    return x if x.dtype == torch.float64 else x.float()


def without_autocast(x: Tensor) -> Any:
    """A context in which matrix products on x's device keep the type of their operands."""
    return torch.autocast(x.device.type, enabled=False)


def check_pair(z_a: Tensor, z_b: Tensor, function: str, names: tuple[str, str] = ("z_a", "z_b")) -> None:
    """Raises ValueError unless both are floating point matrices (B, D) of the same shape."""
    if z_a.dim() != 2 or z_a.shape != z_b.shape or not (z_a.is_floating_point() and z_b.is_floating_point()):
        given = " and ".join(f"{name} {tuple(z.shape)} {z.dtype}" for name, z in zip(names, (z_a, z_b), strict=True))
        raise ValueError(f"{function}: got {given}; expected two floating point matrices (B, D) of the same shape")
