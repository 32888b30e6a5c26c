"""Batch norm over the global batch, on any backend, CPU and gloo included.

The moments are those of the whole global batch in the forward, and the backward differentiates through them, so
W ranks compute what a plain BatchNorm computes on the concatenated batch (Ioffe & Szegedy 2015), also where ranks
hold different numbers of samples. One small gather in the forward (mean, variance and count per rank, combined as in
Chan et al. 1979: no difference of large sums), one gather of 2 C sums in the backward. Statistics are float32
under bf16 autocast.

    y = gamma xhat + beta,  xhat = (x - mean) / sqrt(var + eps)      mean, var: over all N positions of all ranks
    dx = gamma / sqrt(var + eps) · (dy - sum(dy)/N - xhat · sum(dy xhat)/N)

C channels, W ranks, N positions (samples times pixels); x is (B, C) or (B, C, ...), contiguous or channels_last.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.distributed.distributed_c10d import _resolve_process_group  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain.collectives import Group, all_gather_rows, group_rank_and_size, sum_by_gather
from pretrain.errors import ConfigError, Problem
from pretrain.kernels.backend import NormOperands, backend_of


def convert_sync_batch_norm(module: nn.Module, group: Group = None) -> nn.Module:
    """Replaces every BatchNorm1d, 2d and 3d in the module by SyncBatchNorm, in place; returns the module.

    A module that is itself a batch norm cannot be replaced in place: use what is returned.

    Parameters, buffers, settings and the keys of the state_dict stay the same. group=None: the default process group at
    the time of each forward, if there is one.

    >>> import torch
    >>> from pretrain.models import convert_sync_batch_norm
    >>> network = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.BatchNorm1d(4))
    >>> network = convert_sync_batch_norm(network)
    >>> print(type(network[1]).__name__)
    SyncBatchNorm
    """
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
        return SyncBatchNorm(module, group)
    for name, child in module.named_children():
        converted = convert_sync_batch_norm(child, group)
        if converted is not child:
            setattr(module, name, converted)
    return module


class SyncBatchNorm(_BatchNorm):
    """Takes over the parameters and buffers of a BatchNorm1d, 2d or 3d.

    On one rank it is exactly that module where that is precise: see `batch_norm_cpu`.
    """

    def __init__(self, plain: _BatchNorm, group: Group = None) -> None:
        super().__init__(plain.num_features, plain.eps, plain.momentum, affine=False, track_running_stats=False)
        self.affine, self.track_running_stats = plain.affine, plain.track_running_stats
        self.weight, self.bias = plain.weight, plain.bias
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(plain, name))
        self.training = plain.training
        # By name: unlike the group itself, a name can be copied and pickled with the module.
        self._group_name = None if group is None else group.group_name
        # What the replaced class accepts: (B, C), (B, C, L), (B, C, H, W), (B, C, D, H, W).
        self._check_dimensions: Callable[..., None] = type(plain)._check_input_dim

    @property
    def group(self) -> Group:
        """The ranks that share the moments; None: the default process group, if there is one.

        Raises RuntimeError in a process that has no group of that name.
        """
        if self._group_name is None:
            return None
        group: Group = _resolve_process_group(self._group_name)
        return group

    def _check_input_dim(self, input: Tensor) -> None:
        self._check_dimensions(self, input)

    def forward(self, input: Tensor) -> Tensor:
        """Collective while training: every rank calls this. Raises ValueError for a wrong number of dimensions."""
        if not self.training:
            return super().forward(input)
        group = self.group
        self._check_input_dim(input)
        x = input.contiguous(memory_format=_memory_format(input))
        if group_rank_and_size(group)[1] == 1 and backend_of(x.device).plain_is_precise(x):
            return super().forward(input)
        with torch.no_grad():
            moments = _global_moments(x, group)
            self._move_running_statistics(moments)
            invstd_C = (moments.var_C + self.eps).rsqrt()
        y: Tensor = _Normalise.apply(x, self.weight, self.bias, moments.mean_C, invstd_C, moments.counts_W, group)
        return y

    def _move_running_statistics(self, moments: _Moments) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None, "running statistics come with their counter"
        self.num_batches_tracked += 1
        # momentum None: the plain average of all batches so far.
        share = self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)
        unbiased = moments.var_C * (moments.total / (moments.total - 1))
        self.running_mean.lerp_(moments.mean_C.to(self.running_mean.dtype), share)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), share)


class _Moments(NamedTuple):
    """Of the global batch; `total` is N, counts_W what each rank has of it. On the device: the host never waits."""

    mean_C: Tensor
    var_C: Tensor
    total: Tensor
    counts_W: Tensor


def _global_moments(x: Tensor, group: Group) -> _Moments:
    channels = x.shape[1]
    mean_C, var_C = backend_of(x.device).moments(x)
    local = mean_C.new_full((1, 2 * channels + 1), x.numel() // channels)
    local[0, :channels], local[0, channels:-1] = mean_C, var_C
    gathered = all_gather_rows(local, group)
    means_WC, vars_WC, counts_W1 = torch.split(gathered, [channels, channels, 1], dim=1)
    total = counts_W1.sum()
    shares_W1 = counts_W1 / total
    mean_C = (shares_W1 * means_WC).sum(0)
    var_C = (shares_W1 * (vars_WC + (means_WC - mean_C).square())).sum(0)
    return _Moments(mean_C, var_C, total, counts_W1.flatten())


class _Normalise(torch.autograd.Function):
    """The moments are functions of x; the backward accounts for that, across all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean_C: Tensor,
        invstd_C: Tensor,
        counts_W: Tensor,
        group: Group,
    ) -> Tensor:
        ctx.save_for_backward(x, weight, mean_C, invstd_C, counts_W)
        ctx.group = group
        return backend_of(x.device).normalise(x, mean_C, invstd_C, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean_C, invstd_C, counts_W = ctx.saved_tensors
        backend, dy = backend_of(x.device), grad.contiguous(memory_format=_memory_format(x))
        operands = NormOperands(dy, x, weight, mean_C, invstd_C)
        dweight_C, dbias_C = backend.gradient_sums(operands)
        # The parameters' gradients stay this rank's share: averaging them over the ranks is the caller's.
        sums = sum_by_gather(torch.stack((dweight_C, dbias_C)), ctx.group)
        dx = backend.gradient_of_input(operands, sums, counts_W) if ctx.needs_input_grad[0] else None
        # A norm may have neither, or a scale alone.
        dweight = dweight_C if ctx.needs_input_grad[1] else None
        dbias = dbias_C if ctx.needs_input_grad[2] else None
        return dx, dweight, dbias, None, None, None, None


def _memory_format(x: Tensor) -> torch.memory_format:
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


# Ours, torch's and NVIDIA apex's compute the same moments. Ours is the one that also runs on CPUs, over gloo, and on
# ranks that hold different numbers of samples.
SETTING = "batch_norm_library"
INSTEAD = "use bigbatch (the default, on any device) or torch (CUDA)"


def synchronise_batch_norm(
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
    """NVIDIA apex's module that has SyncBatchNorm. Raises ConfigError that says what is installed instead."""
    try:
        parallel = importlib.import_module("apex.parallel")
        why = "apex.parallel has no SyncBatchNorm"
        if hasattr(parallel, "convert_syncbn_model"):
            return parallel
    except ImportError as error:
        why = f"apex.parallel cannot be imported ({error})"
    message = (
        f"got apex, but {why}: the name on PyPI belongs to another project, and NVIDIA's newer releases, built from "
        f"github.com/NVIDIA/apex, normalise float16 tensors only; {INSTEAD}"
    )
    raise ConfigError("batch norm", [Problem(SETTING, message)])
