"""Numbers that are not finite: noticed on the device in the step that makes them, and told so that they can be found.

Nothing here depends on the rank: the norm of the averaged gradient is the same on all, so that all decide alike.
Batches are a function of seed and step, so that a step's number is all that has to be kept of it.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn

from pretrain.checkpoint import newest_checkpoint
from pretrain.config import PretrainConfig
from pretrain.data.beton.format import read_layout
from pretrain.data.catalog import beton_path
from pretrain.data.sampler import Indices, RankOrder, subset
from pretrain.errors import TrainingDiverged
from pretrain.plan import TrainPlan
from pretrain.rundir import RunDirectory, write_json

SAMPLES_TOLD = 6


class FiniteGuard:
    """The first step whose gradient was not finite; it is read where the host waits for the device anyway.

    skips: how many such steps may be left out; with any, the host waits in each step. skipped: how many were.
    """

    def __init__(self, module: nn.Module, *, skips: int = 0) -> None:
        self._module, self._skips = module, skips
        self.skipped = 0
        self._kept: list[Tensor] = []
        device = next(module.parameters()).device
        self._first_bad = torch.zeros((), dtype=torch.int64, device=device)  # 0: none so far

    def before_step(self) -> None:
        """Keep what a forward changes, where its step may be left out: batch norm's running statistics."""
        if self._skips:
            self._kept = [buffer.clone() for buffer in self._module.buffers()]

    @torch.no_grad()
    def accepts(self, gradient_norm: Tensor, *, step: int) -> bool:
        """False where this step is to be left out, once what its forward changed is undone.

        Raises TrainingDiverged where as many as allowed were left out before.
        """
        if not self._skips:
            new = (self._first_bad == 0) & ~gradient_norm.isfinite()
            self._first_bad = torch.where(new, step, self._first_bad)
            return True
        if gradient_norm.isfinite():
            return True
        if self.skipped == self._skips:
            message = f"the gradient is not finite, after {self.skipped} such steps were left out"
            raise TrainingDiverged(step, message)
        self.skipped += 1
        for buffer, kept in zip(self._module.buffers(), self._kept, strict=True):
            buffer.copy_(kept)
        return False

    def check(self) -> None:
        """Waits for the device. Raises TrainingDiverged where a step's gradient was not finite."""
        if step := int(self._first_bad):
            raise TrainingDiverged(step, "the gradient is not finite")


@torch.no_grad()
def all_finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite. Waits for the device."""
    return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())


def samples_of_step(config: PretrainConfig, plan: TrainPlan, step: int) -> Indices:
    """Sample numbers of the global batch of step number ``step`` (from 1), in its order."""
    data = config.data
    images = read_layout(beton_path(data.directory, data.split))[0]
    epoch, batch = plan.position(step - 1)
    order = RankOrder(subset(images, data.images), config.seed, plan.global_batch_size)
    return np.asarray(order.batches(epoch, batch)[0])


def explained(
    error: TrainingDiverged, config: PretrainConfig, plan: TrainPlan, directory: RunDirectory, *, writes: bool
) -> TrainingDiverged:
    """The error in one line for a person, which ``writes`` also leaves in the run's divergence.json."""
    epoch, batch = plan.position(error.step - 1)
    samples = samples_of_step(config, plan, error.step).tolist()
    checkpoint = newest_checkpoint(directory.checkpoints)
    if writes:
        values = {
            "step": error.step,
            "epoch": epoch,
            "batch": batch,
            "what": str(error),
            "samples": samples,
            "last_good_checkpoint": None if checkpoint is None else str(checkpoint.relative_to(directory.path)),
        }
        write_json(directory.divergence, values)
    first = ", ".join(map(str, samples[:SAMPLES_TOLD])) + (", …" if len(samples) > SAMPLES_TOLD else "")
    return TrainingDiverged(
        error.step,
        f"training diverged at step {error.step} of {plan.total_steps}: {error} (epoch {epoch}, batch {batch}, samples "
        f"{first}: all {len(samples)} in {directory.divergence}); last good checkpoint: {checkpoint or 'none'}. Watch "
        f"it happen: python -m pretrain.replay {directory.path}. Try a smaller schedule.base_learning_rate (peak "
        f"{plan.peak_learning_rate:g}) or more warm-up, or leave such steps out: precision.skip_nonfinite_steps=5",
    )
