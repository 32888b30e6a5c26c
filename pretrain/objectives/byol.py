"""BYOL (Grill et al. 2020, arXiv:2006.07733): one view predicts a slowly following target's embedding of the other."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.losses.predictive import byol_loss
from pretrain.models.encoder import Encoder
from pretrain.models.heads import build_projector
from pretrain.objectives.base import Embedded, Objective, ObjectiveOutput, other_view
from pretrain.objectives.config import BYOLConfig


class BYOL(Objective):
    """Predictor of the online network against the projection of a target network that follows it slowly.

    The target's parameters and buffers are exponential moving averages of the online network's, moved after each
    optimizer step with tau_k = 1 - (1 - tau_0) (cos(pi k / K) + 1) / 2.
    """

    def __init__(self, config: BYOLConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(config.projector, feature_width=encoder.feature_width)
        self.predictor = build_projector(config.predictor, feature_width=config.projector.output_width)
        self.target_encoder = copy.deepcopy(encoder).requires_grad_(False)
        self.target_projector = copy.deepcopy(self.projector).requires_grad_(False)
        self.momentum = config.momentum

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        features = self.encoder(images)
        predictions = self.predictor(self.projector(features, context), context)
        with torch.no_grad():
            targets = self.target_projector(self.target_encoder(images), context)
        return Embedded(torch.cat([predictions, targets], dim=1), features)

    def compared(self, embeddings: Tensor) -> Tensor:
        return embeddings.chunk(2, dim=1)[1]

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        predictions, targets = embeddings.chunk(2, dim=1)
        # Both directions are one batch here: the paper's symmetrised loss is twice its mean.
        loss = 2 * byol_loss(predictions, other_view(targets))
        return ObjectiveOutput(loss, {"loss": loss.detach()})

    @torch.no_grad()
    def after_optimizer_step(self, context: StepContext) -> None:
        keep = 1 - (1 - self.momentum) * (math.cos(math.pi * context.progress) + 1) / 2
        for target, online in ((self.target_encoder, self.encoder), (self.target_projector, self.projector)):
            _follow(list(target.parameters()), list(online.parameters()), keep)
            _follow(_float_buffers(target), _float_buffers(online), keep)


def _follow(targets: list[Tensor], online: list[Tensor], keep: float) -> None:
    if targets:  # a head without batch norm has no buffers
        torch._foreach_lerp_(targets, online, 1 - keep)


def _float_buffers(module: nn.Module) -> list[Tensor]:
    return [buffer for buffer in module.buffers() if buffer.is_floating_point()]
