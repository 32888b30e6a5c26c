"""A linear classifier that learns on the encoder's features while the encoder trains, and teaches it nothing.

It shows how accuracy grows; what is reported of a finished run is the separate evaluation's. Its input is detached, it
has its own parameters and optimizer, and training is the same bit for bit with and without it
(where the device repeats itself: see `precision.deterministic`).

    x = (f - mean) / std / sqrt(F)          mean, std: running moments of the features, as of the step before
    W <- W - lr (g + m v),  v <- m v + g    g: gradient of the softmax cross-entropy over the global batch (Nesterov)

b images of this rank, F features, C classes.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.batch import StepContext
from pretrain.collectives import Group, all_reduce_

LEARNING_RATE = 4.0
MOMENTUM = 0.9
SLOWEST_SHARE = 0.01  # of a new batch in the running moments
EPS = 1e-5


class OnlineProbe(nn.Module):
    """Learns from the features of one view of the images that an encoder is shown.

    classes below 2, labels that are negative: nothing to learn. One all-reduce a step, of C·F + 2F + C numbers.
    first_step: the first of training that it saw, after those that ran without it.
    """

    weight_CF: Tensor
    bias_C: Tensor
    velocity_CF: Tensor
    velocity_C: Tensor
    mean_F: Tensor
    var_F: Tensor
    counts: Tensor

    def __init__(self, feature_width: int, *, classes: int, group: Group = None) -> None:
        super().__init__()
        self._group = group
        self.first_step = 0
        self.learns = classes >= 2
        for name, shape in {
            "weight_CF": (classes, feature_width),
            "bias_C": (classes,),
            "velocity_CF": (classes, feature_width),
            "velocity_C": (classes,),
            "mean_F": (feature_width,),
            "var_F": (feature_width,),
            "counts": (2,),  # right answers, answers
        }.items():
            self.register_buffer(name, torch.zeros(shape))

    @torch.no_grad()
    def learn(self, features_bF: Tensor, labels_b: Tensor, context: StepContext) -> None:
        """One step on features of this rank's images and their labels. Collective: every rank calls this."""
        if not self.learns:
            return
        features_bF = features_bF.float()
        known_b = labels_b >= 0
        deviation_bF = features_bF - self.mean_F
        x_bF = deviation_bF * (self.var_F + EPS).rsqrt() / math.sqrt(features_bF.shape[1])
        logits_bC = F.linear(x_bF, self.weight_CF, self.bias_C)
        right = (logits_bC.argmax(1) == labels_b).sum()
        targets_bC = F.one_hot(labels_b.clamp_min(0), len(self.bias_C))
        errors_bC = (logits_bC.softmax(1) - targets_bC) * known_b[:, None]
        rows = torch.stack((right, known_b.sum(), torch.full_like(right, len(labels_b))))
        sums = [errors_bC.t() @ x_bF, errors_bC.sum(0), deviation_bF.sum(0), deviation_bF.square().sum(0), rows.float()]
        sizes = [part.numel() for part in sums]
        packed = all_reduce_(torch.cat([part.flatten() for part in sums]), self._group)
        self._step(context.step - self.first_step, *torch.split(packed, sizes))

    def _step(
        self, before: int, errors_CF: Tensor, errors_C: Tensor, sum_F: Tensor, squares_F: Tensor, rows: Tensor
    ) -> None:
        """before: batches that it has learned from."""
        answers, images = rows[1].clamp_min(1), rows[2]
        if before:  # the first batch only tells the moments
            for weight, velocity, errors in (
                (self.weight_CF, self.velocity_CF, errors_CF.view_as(self.weight_CF)),
                (self.bias_C, self.velocity_C, errors_C),
            ):
                gradient = errors / answers
                velocity.mul_(MOMENTUM).add_(gradient)
                weight.sub_(LEARNING_RATE * (gradient + MOMENTUM * velocity))
            self.counts.add_(rows[:2])
        share = max(1 / (before + 1), SLOWEST_SHARE)
        shift_F = sum_F / images
        var_F = (squares_F / images - shift_F.square()).clamp_min(0)
        self.var_F.copy_((1 - share) * (self.var_F + share * shift_F.square()) + share * var_F)
        self.mean_F.add_(share * shift_F)

    def metrics(self, context: StepContext) -> dict[str, Tensor]:
        """Share of right answers since the last call, each given before its image was learned from."""
        if not self.learns or context.step == self.first_step:
            return {}
        top1 = self.counts[0] / self.counts[1].clamp_min(1)
        self.counts.zero_()
        return {"online_probe_top1": top1}

    def get_extra_state(self) -> dict[str, int]:
        """Since when it has learned."""
        return {"first_step": self.first_step}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on from there. Earlier versions kept a count of steps instead, mostly since the first."""
        self.first_step = state.get("first_step", 0)
