"""Forward and backward of one batch: whole, or in micro-batches by gradient caching (Gao et al. 2021).

Gradient caching embeds all micro-batches without a graph, takes the loss and its gradient on the embeddings of all the
batch, then embeds each micro-batch again and sends its slice of that gradient backward. It is exact where normalisation
does not couple samples; with batch norm it equals a run whose statistics are those of each micro-batch, over all ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pretrain.batch import Batch, StepContext
from pretrain.gradients import GradientAverager
from pretrain.losses.diagnostics import embedding_diagnostics
from pretrain.numerics import full_float32
from pretrain.objectives.base import Objective, ObjectiveOutput


class StepOutput(NamedTuple):
    """loss, gradient_norm: scalars; metrics: scalars on the device; features_bF: of the first view of the first
    micro-batch. gradient_norm is the same on every rank, and not finite where the loss of any rank is not.

    The first of n micro-batches holds the images 0, n, 2n, ... of this rank. Nothing here has a graph.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    features_bF: Tensor
    gradient_norm: Tensor


def forward_backward(
    objective: Objective, gradients: GradientAverager, batch: Batch, context: StepContext, *, micro_batches: int = 1
) -> StepOutput:
    """Loss of one batch, with the gradients of its mean over the ranks in ``.grad``.

    batch: views (B, V, 3, S, S) uint8 and labels (B,) of this rank. micro_batches divides B; micro-batch j holds the
    images j, j + micro_batches, ..., so that over all ranks it is the same part of the global batch, whatever their
    number. Collective: every rank calls this.
    """
    if micro_batches == 1:
        embedded = objective.embed_views(batch.views, context)
        output, gradient = _loss_and_gradient(objective, embedded.embeddings, batch.labels, context)
        torch.autograd.backward(embedded.embeddings, gradient)
        features = embedded.features
    else:
        gradients.expect_backwards(micro_batches)
        parts = [batch.views[first::micro_batches] for first in range(micro_batches)]
        output, features = _cached(objective, parts, batch.labels, context)
    gradients.average_over_ranks()
    images = len(features) // batch.views.shape[1]
    norms = torch._foreach_norm([p.grad for p in objective.parameters() if p.grad is not None])
    gradient_norm = torch.linalg.vector_norm(torch.stack(norms))
    metrics = output.metrics | ({"gradient_norm": gradient_norm} if context.measure else {})
    return StepOutput(output.loss.detach(), metrics, features.detach()[:images], gradient_norm)


def _loss_and_gradient(
    objective: Objective, embeddings: Tensor, labels: Tensor, context: StepContext
) -> tuple[ObjectiveOutput, Tensor]:
    """The loss of all embeddings, and its gradient by them."""
    embeddings = embeddings.detach().requires_grad_()
    with full_float32():
        output = objective.loss(embeddings, labels, context)
        torch.autograd.backward(output.loss)
        if context.measure:
            compared = objective.compared(embeddings.detach())
            output = output._replace(metrics=output.metrics | embedding_diagnostics(compared, objective.group))
    assert embeddings.grad is not None, "the loss is a function of the embeddings"
    # Times 1, or not a number: a loss that is not finite on one rank must show in the gradient that all ranks share.
    return output, embeddings.grad.mul_(output.loss.detach() * 0 + 1)


def _cached(
    objective: Objective, parts: list[Tensor], labels: Tensor, context: StepContext
) -> tuple[ObjectiveOutput, Tensor]:
    """The output, and the features of the first part."""
    number_of_views, count, random_states, embedded = parts[0].shape[1], len(parts), [], []
    with torch.no_grad(), _running_statistics_kept(objective):
        for number, part in enumerate(parts):
            random_states.append(_random_state(part))
            rows = objective.embed_views(part, context, number, count).embeddings
            embedded.append(rows.view(number_of_views, len(part), -1))
    # (V, B / n, n, D): image i of part j is image i * n + j of the batch.
    embeddings = torch.stack(embedded, dim=2).flatten(0, 2)
    output, gradient = _loss_and_gradient(objective, embeddings, labels, context)
    grads = gradient.view(number_of_views, -1, count, embeddings.shape[1])
    after, features = _random_state(parts[0]), None
    for number, (part, random_state) in enumerate(zip(parts, random_states, strict=True)):
        _set_random_state(random_state)  # the second pass draws what the first one drew
        again = objective.embed_views(part, context, number, count)
        torch.autograd.backward(again.embeddings, grads[:, :, number].flatten(0, 1))
        features = again.features.detach() if features is None else features
    _set_random_state(after)
    assert features is not None, "there is a first part"
    return output, features


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
