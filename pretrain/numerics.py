"""How a run computes: what `precision` of its configuration says, applied once before the first step.

Losses, batch norm's statistics and the optimizer compute in full float32 whatever is chosen for the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pretrain.config import PrecisionConfig
from pretrain.objectives.base import Objective


def set_numerics(precision: PrecisionConfig) -> None:
    """Settings of the whole process. Call it before anything is computed."""
    # Both, and both said: torch's own defaults are TF32 for convolutions and IEEE for products.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision.float32 == "tf32"
    if precision.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    torch.backends.cudnn.deterministic = precision.deterministic
    torch.use_deterministic_algorithms(precision.deterministic)
    # Filling memory that is about to be written would find our own mistakes, at the price of a pass over it.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def set_network_numerics(objective: Objective, precision: PrecisionConfig) -> Objective:
    """Memory format, autocast and compilation of the objective's networks, in place; returns the objective.

    Names in the state_dict stay the same. Compiling happens in the first step, and takes minutes.
    """
    if precision.channels_last:
        objective = objective.to(memory_format=torch.channels_last)
    objective.channels_last = precision.channels_last
    objective.autocast_bf16 = precision.autocast == "bf16"
    if precision.compile:
        for module in objective.modules():
            if isinstance(module, nn.ReLU):
                # A graph ends at each synchronised norm, whose output the next one must not change in place; inside a
                # graph the compiler finds out by itself what can be.
                module.inplace = False
        for network in objective.children():
            network.compile()
    return objective


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 tensors inside are IEEE's, whatever the network's are."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
