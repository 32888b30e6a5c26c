"""SimSiam (Chen & He 2021, arXiv:2011.10566): one view predicts the other, whose gradient is stopped."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.losses.simsiam import simsiam_loss
from pretrain.models.encoder import Encoder
from pretrain.models.heads import build_projector
from pretrain.objectives.base import Objective, ObjectiveOutput, other_view
from pretrain.objectives.config import SimSiamConfig


class SimSiam(Objective):
    """Predictor on one view, stop-gradient on the other, both ways."""

    def __init__(self, config: SimSiamConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(config.projector, feature_width=encoder.feature_width)
        self.predictor = build_projector(config.predictor, feature_width=config.projector.output_width)

    def embed(self, images: Tensor) -> Tensor:
        projections = self.projector(self.encoder(images))
        return torch.cat([self.predictor(projections), projections.detach()], dim=1)

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
        predictions, targets = embeddings.chunk(2, dim=1)
        loss = simsiam_loss(predictions, other_view(targets))
        return ObjectiveOutput(loss, {"loss": loss.detach()})
