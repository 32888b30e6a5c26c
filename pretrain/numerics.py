"""How a run computes: what `precision` of its configuration says, applied once before the first step.

Losses, batch norm's statistics and the optimizer compute in full float32 whatever is chosen for the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from pretrain.collectives import group_rank_and_size
from pretrain.config import PrecisionConfig
from pretrain.models.sync_batch_norm import SyncBatchNorm
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

    Names in the state_dict stay the same. Call it once batch norm is synchronised; what is copied afterwards is not
    compiled. Compiling happens in the first step, and takes minutes.
    """
    if precision.channels_last:
        objective = objective.to(memory_format=torch.channels_last)
    objective.channels_last = precision.channels_last
    objective.autocast_bf16 = precision.autocast == "bf16"
    if precision.compile:
        _compile(objective)
    return objective


def _compile(objective: Objective) -> None:
    for module in objective.modules():
        if isinstance(module, SyncBatchNorm) and group_rank_and_size(module.group)[1] > 1:
            # The compiler takes no collectives inside a custom Function: a graph ends here, and the next one begins.
            module.forward = torch.compiler.disable(module.forward)  # type: ignore[method-assign, no-untyped-call]
        elif isinstance(module, nn.ReLU):
            # The next graph must not change a norm's output in place; inside one the compiler decides for itself.
            module.inplace = False
    for network in objective.children():
        network.compile()


@contextmanager
def full_float32() -> Iterator[None]:
    """Matrix products of float32 tensors inside are IEEE's, whatever the network's are."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
