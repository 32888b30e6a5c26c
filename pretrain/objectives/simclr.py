"""SimCLR (Chen et al. 2020): two views of an image are told apart from all other images of the global batch."""

from __future__ import annotations

from torch import Tensor

from pretrain.config import SimCLRConfig
from pretrain.losses.ntxent import ntxent_diagnostics, ntxent_loss
from pretrain.models.encoder import Encoder
from pretrain.models.heads import build_projector
from pretrain.objectives.base import Objective, ObjectiveOutput


class SimCLR(Objective):
    """Both views in one forward (joint batch-norm statistics), projector, NT-Xent over the global batch."""

    def __init__(self, config: SimCLRConfig, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.projector = build_projector(config.projector, feature_width=encoder.feature_width)
        self.temperature = config.temperature
        self.negatives = config.negatives

    def embed(self, images: Tensor) -> Tensor:
        projections: Tensor = self.projector(self.encoder(images))
        return projections

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        # A group as large as the batch is the whole batch.
        loss = ntxent_loss(z_a, z_b, temperature=self.temperature, negatives=self.negatives)
        metrics = {"loss": loss.detach()}
        if measure:
            metrics |= ntxent_diagnostics(z_a, z_b, temperature=self.temperature, negatives=self.negatives)
        return ObjectiveOutput(loss, metrics)
