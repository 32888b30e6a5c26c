"""SimSiam (Chen & He 2021, arXiv:2011.10566): one view predicts the other, whose gradient is stopped."""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.batch import StepContext
from pretrain.losses.predictive import simsiam_loss
from pretrain.models.encoder import Encoder
from pretrain.models.heads import build_projector
from pretrain.objectives.base import Embedded, Objective, ObjectiveOutput, other_view
from pretrain.objectives.config import SimSiamConfig


class SimSiam(Objective):
    """Predictor on one view, stop-gradient on the other, both ways."""

    def __init__(self, config: SimSiamConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(config.projector, feature_width=encoder.feature_width)
        self.predictor = build_projector(config.predictor, feature_width=config.projector.output_width)

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        features = self.encoder(images)
        projections = self.projector(features, context)
        predictions = self.predictor(projections, context)
        return Embedded(torch.cat([predictions, projections.detach()], dim=1), features)

    def compared(self, embeddings: Tensor) -> Tensor:
        return embeddings.chunk(2, dim=1)[1]

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        predictions, targets = embeddings.chunk(2, dim=1)
        loss = simsiam_loss(predictions, other_view(targets))
        return ObjectiveOutput(loss, {"loss": loss.detach()})
