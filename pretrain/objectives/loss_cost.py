"""What the loss costs in a step, its communication included, measured where it will run."""

from __future__ import annotations

import statistics
import time

import torch
from torch import Tensor

from pretrain.objectives.base import Objective

REPEATS = 3
# Of so many embeddings a loss takes so long that one measurement is as good as several.
LARGE = 4096


def measure_loss_seconds(objective: Objective, *, images: int, views: int, size_px: int, classes: int) -> float:
    """Seconds of forward and backward of the loss on one rank's part of a batch of random embeddings.

    images: of this rank. Neither the objective nor the random state is changed.
    Collective: every rank calls this. Costs as much as the loss of two steps, or of four where the batch is small.
    """
    device = next(objective.parameters()).device
    width = _embedding_width(objective, views, size_px, device)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(views * images, width, generator=generator).to(device).requires_grad_()
    labels = (torch.arange(images) % max(classes, 1)).to(device)
    times = []
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        for _ in range(1 + (1 if len(embeddings) > LARGE else REPEATS)):
            start = time.perf_counter()
            torch.autograd.grad(objective.loss(embeddings, labels, measure=False).loss, embeddings)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one opens connections and allocates


@torch.no_grad()
def _embedding_width(objective: Objective, views: int, size_px: int, device: torch.device) -> int:
    """D of what the loss takes; without training statistics, so that nothing moves and nobody communicates."""
    was_training = objective.training
    objective.eval()
    blank: Tensor = torch.zeros(1, views, 3, size_px, size_px, dtype=torch.uint8, device=device)
    width = objective.embed_views(blank).shape[1]
    objective.train(was_training)
    return width
