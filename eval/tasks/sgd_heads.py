"""Many linear classifiers trained at once on the same batches: a whole grid of settings for little more than one.

Each head h minimises, by SGD with Nesterov momentum m, its own learning rate r_h and weight decay d_h,

    g = d/dW mean_B CE(softmax(W x + b), y) + d_h W;   v <- m v + g;   W <- W - r_h (g + m v)      (b is not decayed)

and knows nothing of the others: the heads are the rows of one matrix, so that a step is two matrix products.

Shapes: B images of a batch, N images, D features, E = D + 1 with the bias last, H heads, K classes; G heads of a grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ROWS_AT_ONCE = 4096  # images whose logits of all heads are held at a time


@dataclass(frozen=True)
class HeadSettings:
    """learning_rate: peak, of a step. fits_held_out: whether held-out images are trained on too."""

    learning_rate: float
    weight_decay: float
    fits_held_out: bool = True


class Heads:
    """The classifiers, all zero at first."""

    def __init__(
        self, settings: Sequence[HeadSettings], *, features: int, classes: int, momentum: float, device: torch.device
    ) -> None:
        self.heads, self.classes, self.momentum = len(settings), classes, momentum
        rows = len(settings) * classes
        self.theta_RE = torch.zeros(rows, features + 1, device=device)  # R = H * K, head after head
        self._velocity_RE = torch.zeros_like(self.theta_RE)
        self._rate_R1 = self._column([setting.learning_rate for setting in settings], device)
        decays = [setting.weight_decay for setting in settings]
        self._decay_R1 = self._column(decays, device) if any(decays) else None
        fits_all = [setting.fits_held_out for setting in settings]
        self._fits_all_H1 = None if all(fits_all) else torch.tensor(fits_all, device=device)[:, None]
        self._sums_2H = torch.zeros(2, self.heads, dtype=torch.float64, device=device)  # of losses, of right images
        self._seen_H = torch.zeros(self.heads, dtype=torch.float64, device=device)

    def step(self, x_BE: Tensor, y_B: Tensor, held_out_B: Tensor | None, *, factor: float) -> None:
        """One step of every head; x has a last column of ones. ``factor``: of the learning rates, by the schedule."""
        log_p_HKB = self._log_p(x_BE)
        y_H1B = y_B.expand(self.heads, 1, -1)
        own_HB = log_p_HKB.gather(1, y_H1B)[:, 0]
        right_HB = log_p_HKB.argmax(1) == y_B  # one guess an image, also where classes tie: all do at zero weights
        share_HB = self._shares(held_out_B, len(y_B))
        used_HB = share_HB > 0
        # A diverged head's loss is no number, and has to stay one: no multiplication by zero hides or spreads it.
        self._sums_2H[0] -= torch.where(used_HB, own_HB, 0.0).sum(1)
        self._sums_2H[1] += (right_HB & used_HB).sum(1)
        self._seen_H += used_HB.sum(1)
        p_HKB = log_p_HKB.exp_()
        p_HKB.scatter_add_(1, y_H1B, own_HB.new_full((1, 1, 1), -1.0).expand(y_H1B.shape))
        p_HKB *= share_HB[:, None]
        gradient_RE = p_HKB.flatten(0, 1) @ x_BE
        if self._decay_R1 is not None:
            gradient_RE[:, :-1] += self._decay_R1 * self.theta_RE[:, :-1]
        self._velocity_RE.mul_(self.momentum).add_(gradient_RE)
        self.theta_RE.addcmul_(self._rate_R1, gradient_RE.add_(self._velocity_RE, alpha=self.momentum), value=-factor)

    def end_epoch(self) -> tuple[Tensor, Tensor]:
        """(mean loss in nats (H,), accuracy in percent (H,)) of the steps since the last call, on the CPU."""
        loss_H, right_H = (self._sums_2H / self._seen_H).cpu()
        self._sums_2H.zero_()
        self._seen_H.zero_()
        return loss_H, 100 * right_H

    def measure(self, x_NE: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """(mean loss in nats (H,), accuracy in percent (H,)) of all heads on N images, on the CPU."""
        sums_2H = torch.zeros_like(self._sums_2H)
        for x_nE, y_n in zip(torch.split(x_NE, ROWS_AT_ONCE), torch.split(y_N, ROWS_AT_ONCE)):
            log_p_HKn = self._log_p(x_nE)
            own_Hn = log_p_HKn.gather(1, y_n.expand(self.heads, 1, -1))[:, 0]
            sums_2H[0] -= own_Hn.sum(1, dtype=torch.float64)
            sums_2H[1] += (log_p_HKn.argmax(1) == y_n).sum(1)
        loss_H, right_H = (sums_2H / len(y_N)).cpu()
        return loss_H, 100 * right_H

    def logits(self, head: int, x_NE: Tensor) -> Tensor:
        """Logits (N, K) of one head."""
        rows = slice(head * self.classes, (head + 1) * self.classes)
        return x_NE @ self.theta_RE[rows].t()

    def _log_p(self, x_BE: Tensor) -> Tensor:
        logits_RB = self.theta_RE @ x_BE.t()  # images last: softmax over classes runs along whole vectors
        return logits_RB.view(self.heads, self.classes, -1).log_softmax(1)

    def _shares(self, held_out_B: Tensor | None, images: int) -> Tensor:
        """What each image counts in each head's mean (H or 1, B)."""
        if held_out_B is None or self._fits_all_H1 is None:
            return self.theta_RE.new_full((1, images), 1 / images)
        used_HB = (self._fits_all_H1 | ~held_out_B).to(self.theta_RE.dtype)
        return used_HB / used_HB.sum(1, keepdim=True).clamp_min(1)

    def _column(self, values: Sequence[float], device: torch.device) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device).repeat_interleave(self.classes)[:, None]


def with_ones(x_ND: Tensor) -> Tensor:
    """Features (N, E) with a last column of ones, whose weight is the bias."""
    return torch.cat([x_ND, x_ND.new_ones(len(x_ND), 1)], dim=1)
