"""What every objective is: an encoder, its heads and a loss behind one forward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.choices import load_object
from pretrain.collectives import Group, group_rank_and_size
from pretrain.models.config import EncoderSettings
from pretrain.models.encoder import Encoder, build_encoder, join_views, to_float
from pretrain.models.heads import build_projector
from pretrain.objectives.config import ProjectorConfig
from pretrain.objectives.settings import ObjectiveSettings


class Embedded(NamedTuple):
    """Of all views, view after view. embeddings: (V * B, D), all that the loss takes; features: (V * B, F)."""

    embeddings: Tensor
    features: Tensor


class ObjectiveOutput(NamedTuple):
    """loss: scalar over the global batch, to differentiate; metrics: detached scalars on the device."""

    loss: Tensor
    metrics: dict[str, Tensor]


class Objective(nn.Module):
    """Encoder + heads + loss: an objective says how images are embedded, and what the loss of the embeddings is.

    The loss is a function of the embeddings of all views alone, so that a batch larger than memory can be embedded in
    parts (see `pretrain.forward_backward`). Whatever depends on how far training is comes in the context.
    One's own has a ``Config``, its settings (see `pretrain.objectives.settings`).
    """

    encoder: Encoder  # what evaluations read
    channels_last: bool = False
    autocast_bf16: bool = False
    group: Group = None  # ranks of the global batch; None: the default process group, if there is one

    @classmethod
    def build(cls, config: Any, encoder: Encoder, *, classes: int, seed: int) -> Self:
        """The objective of these settings; one that reads labels or draws numbers takes more than two of them."""
        return cls(config, encoder)

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        """Images (V * B, 3, S, S) float, view after view -> what the loss takes, and the encoder's features."""
        raise NotImplementedError

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        """Loss of the embeddings of all views; labels: (B,) int64. Collective: every rank calls this."""
        raise NotImplementedError

    def compared(self, embeddings: Tensor) -> Tensor:
        """The part of the embeddings that must not become the same for all images: of a collapse they tell first."""
        return embeddings

    def after_optimizer_step(self, context: StepContext) -> None:
        """Called once the optimizer has moved the weights."""

    def embed_views(self, views: Tensor, context: StepContext, part: int = 0, parts: int = 1) -> Embedded:
        """Views (B, V, 3, S, S) uint8, embedded in one forward.

        Where the images are those number part, part + parts, ... of this rank, say so.
        """
        context = replace(context, rows_N=self._positions(views, part, parts))
        images = to_float(join_views(views), channels_last=self.channels_last)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.autocast_bf16):
            return self.embed(images, context)

    def _positions(self, views: Tensor, part: int, parts: int) -> Tensor:
        """Where the rows of these views are in the global batch: view * G + image, (V * B,) int64."""
        rank, world_size = group_rank_and_size(self.group)
        of_rank = len(views) * parts
        image_B = rank * of_rank + part + parts * torch.arange(len(views), device=views.device)
        view_V = torch.arange(views.shape[1], device=views.device)
        return (view_V[:, None] * (of_rank * world_size) + image_B).flatten()


class ProjectedObjective(Objective):
    """An objective whose embeddings are the projected features."""

    def __init__(self, projector: ProjectorConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(projector, feature_width=encoder.feature_width)

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        features = self.encoder(images)
        return Embedded(self.projector(features, context), features)


def other_view(targets: Tensor) -> Tensor:
    """Rows of view a and view b (2B, D), exchanged and without gradient."""
    a, b = targets.detach().chunk(2)
    return torch.cat([b, a])


def build_objective(objective: ObjectiveSettings, encoder: EncoderSettings, *, classes: int, seed: int) -> Objective:
    """Objective on the CPU with weights that are a function of ``seed`` alone.

    classes: number of labels of the data set; only objectives that read labels use it.
    """
    implementation = load_object(objective.implementation or objective.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: Objective = implementation.build(objective, build_encoder(encoder), classes=classes, seed=seed)
    return built
