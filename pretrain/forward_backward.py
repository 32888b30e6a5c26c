"""Forward and backward of one batch: whole, or in micro-batches by gradient caching (Gao et al. 2021).

Gradient caching embeds all micro-batches without a graph, takes the loss and its gradient on the embeddings of all the
batch, then embeds each micro-batch again and sends its slice of that gradient backward. It is exact where normalisation
does not couple samples; with batch norm it equals a run whose statistics are those of each micro-batch, over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain.data.batch import Batch
from pretrain.gradients import GradientAverager
from pretrain.objectives.base import Objective, ObjectiveOutput


def forward_backward(
    objective: Objective, gradients: GradientAverager, batch: Batch, *, micro_batches: int, measure: bool
) -> ObjectiveOutput:
    """Loss of one batch, with the gradients of its mean over the ranks in ``.grad``.

    batch: views (B, V, 3, S, S) uint8 and labels (B,) of this rank. micro_batches divides B; micro-batch j holds the
    images j, j + micro_batches, ..., so that over all ranks it is the same part of the global batch, whatever their
    number. Collective: every rank calls this.
    """
    if micro_batches == 1:
        output: ObjectiveOutput = objective(batch.views, batch.labels, measure)
        torch.autograd.backward(output.loss)
    else:
        gradients.expect_backwards(micro_batches)
        parts = [batch.views[first::micro_batches] for first in range(micro_batches)]
        output = _cached(objective, parts, batch.labels, measure)
    gradients.average_over_ranks()
    objective.next_draw()
    return ObjectiveOutput(output.loss.detach(), output.metrics)


def _cached(objective: Objective, parts: list[Tensor], labels: Tensor, measure: bool) -> ObjectiveOutput:
    number_of_views, random_states, embedded = parts[0].shape[1], [], []
    with torch.no_grad(), _running_statistics_kept(objective):
        for number, part in enumerate(parts):
            random_states.append(_random_state(part))
            embedded.append(objective.embed_views(part, number, len(parts)).view(number_of_views, len(part), -1))
    # (V, B / n, n, D): image i of part j is image i * n + j of the batch.
    embeddings = torch.stack(embedded, dim=2).flatten(0, 2).requires_grad_()
    output = objective.loss(embeddings, labels, measure)
    torch.autograd.backward(output.loss)
    assert embeddings.grad is not None, "the loss is a function of the embeddings"
    grads = embeddings.grad.view(number_of_views, -1, len(parts), embeddings.shape[1])
    after = _random_state(parts[0])
    for number, (part, random_state) in enumerate(zip(parts, random_states, strict=True)):
        _set_random_state(random_state)
        torch.autograd.backward(objective.embed_views(part, number, len(parts)), grads[:, :, number].flatten(0, 1))
    _set_random_state(after)
    return output


@contextmanager
def _running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """What batch norms do to their running statistics inside is undone."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
    kept = [[buffer.clone() for buffer in norm.buffers()] for norm in norms]
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for buffer, value in zip(norm.buffers(), buffers, strict=True):
                buffer.copy_(value)


def _random_state(like: Tensor) -> list[Tensor]:
    """States of the generators that a forward on ``like``'s device draws from."""
    states = [torch.get_rng_state()]
    if like.is_cuda:
        states.append(torch.cuda.get_rng_state(like.device))
    return states


def _set_random_state(states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    if len(states) > 1:
        torch.cuda.set_rng_state(states[1])
