"""What every objective is: an encoder, its heads and a loss behind one forward."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pretrain.collectives import Group, group_rank_and_size
from pretrain.models.encoder import Encoder, join_views, to_float
from pretrain.models.heads import PositionalDropout, build_projector
from pretrain.objectives.config import ProjectorConfig


class ObjectiveOutput(NamedTuple):
    """loss: scalar over the global batch, to differentiate; metrics: detached scalars on the device."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(nn.Module):
    """Encoder + heads + loss. ``encoder`` is what evaluations read.

    The loss is a function of the embeddings of all views alone, so that a batch larger than memory can be embedded in
    parts (see `pretrain.forward_backward`).
    """

    encoder: Encoder
    channels_last: bool = False
    autocast_bf16: bool = False
    group: Group = None  # ranks of the global batch; None: all

    def forward(self, views: Tensor, labels: Tensor, measure: bool = False) -> ObjectiveOutput:
        """Loss of one batch.

        views: (B, V, 3, S, S) uint8, this rank's part of the global batch; labels: (B,) int64.
        measure: also compute the metrics that cost something.
        Collective: every rank calls this.
        """
        return self.loss(self.embed_views(views), labels, measure)

    def embed_views(self, views: Tensor, part: int = 0, parts: int = 1) -> Tensor:
        """Views (B, V, 3, S, S) uint8 -> embeddings (V * B, D), view after view, in one forward.

        Where the images are those number part, part + parts, ... of this rank, say so.
        """
        if self._dropouts:
            rows = self._positions(views, part, parts)
            for dropout in self._dropouts:
                dropout.rows_N = rows
        images = to_float(join_views(views), channels_last=self.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast_bf16):
            return self.embed(images)

    def next_draw(self) -> None:
        """A step is done: dropouts drop other features from now on."""
        for dropout in self._dropouts:
            dropout.next_draw()

    @functools.cached_property
    def _dropouts(self) -> list[PositionalDropout]:
        return [module for module in self.modules() if isinstance(module, PositionalDropout)]

    def _positions(self, views: Tensor, part: int, parts: int) -> Tensor:
        """Where the rows of these views are in the global batch: view * G + image, (V * B,) int64."""
        rank, world_size = group_rank_and_size(self.group)
        of_rank = len(views) * parts
        image_B = rank * of_rank + part + parts * torch.arange(len(views), device=views.device)
        view_V = torch.arange(views.shape[1], device=views.device)
        return (view_V[:, None] * (of_rank * world_size) + image_B).flatten()

    def embed(self, images: Tensor) -> Tensor:
        """Images (V * B, 3, S, S) float, view after view -> what the loss takes (V * B, D)."""
        raise NotImplementedError

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
        """Loss of the embeddings of all views. Collective: every rank calls this."""
        raise NotImplementedError

    def after_optimizer_step(self, progress: float) -> None:
        """Called after each optimizer step with the finished fraction of training."""


class ProjectedObjective(Objective):
    """An objective whose embeddings are the projected features."""

    def __init__(self, projector: ProjectorConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(projector, feature_width=encoder.feature_width)

    def embed(self, images: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.encoder(images))
        return projections


def other_view(targets: Tensor) -> Tensor:
    """Rows of view a and view b (2B, D), exchanged and without gradient."""
    a, b = targets.detach().chunk(2)
    return torch.cat([b, a])
