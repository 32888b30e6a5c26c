"""Which implementation of synchronised batch norm a model gets: ours, torch's, or NVIDIA apex's where it is installed.

All three compute the same moments. Ours is the one that also runs on CPUs, over gloo, and on ranks that hold different
numbers of samples.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Literal

import torch
from torch import nn

from pretrain.collectives import Group
from pretrain.errors import ConfigError, Problem
from pretrain.models.sync_bn import convert_sync_batch_norm

SETTING = "batch_norm_library"
INSTEAD = "use bigbatch (the default, on any device) or torch (CUDA)"


def share_batch_norm(
    module: nn.Module, *, library: Literal["bigbatch", "torch", "apex"], group: Group, device: torch.device
) -> None:
    """Makes every batch norm inside ``module`` take its moments over the ranks of ``group`` (None: all), in place.

    Parameters and buffers stay the same tensors. Raises ConfigError where the library cannot do it here.
    """
    if library == "bigbatch":
        convert_sync_batch_norm(module, group)
        return
    if device.type != "cuda":
        message = f"got {library}, which normalises CUDA tensors only, and this run is on {device.type}; {INSTEAD}"
        raise ConfigError("batch norm", [Problem(SETTING, message)])
    if library == "torch":
        nn.SyncBatchNorm.convert_sync_batchnorm(module, process_group=group)  # type: ignore[no-untyped-call]
    else:
        apex_parallel().convert_syncbn_model(module, process_group=group, channel_last=False)


def apex_parallel() -> ModuleType:
    """NVIDIA apex's module that has SyncBatchNorm. Raises ConfigError that says what is missing."""
    try:
        importlib.import_module("apex")
    except ImportError as error:
        raise _unusable(f"apex cannot be imported ({error})") from error
    try:
        parallel = importlib.import_module("apex.parallel")
    except ImportError:
        parallel = None
    if parallel is not None and hasattr(parallel, "convert_syncbn_model"):
        return parallel
    try:
        importlib.import_module("apex.contrib")
    except ImportError:
        raise _unusable(
            "the installed apex is not NVIDIA's: the name on PyPI belongs to another project; NVIDIA's is built from "
            "github.com/NVIDIA/apex"
        ) from None
    raise _unusable(
        "this release of NVIDIA apex has no apex.parallel.SyncBatchNorm any more, and its apex.contrib.groupbn "
        "normalises float16 tensors only, while a run computes in float32 or bfloat16"
    )


def _unusable(why: str) -> ConfigError:
    return ConfigError("batch norm", [Problem(SETTING, f"got apex, but {why}; {INSTEAD}")])
