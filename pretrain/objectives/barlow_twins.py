"""Barlow Twins (Zbontar et al. 2021, arXiv:2103.03230): the two views' cross-correlation is drawn to the identity."""

from __future__ import annotations

from torch import Tensor

from pretrain.batch import StepContext
from pretrain.losses.redundancy import barlow_twins_loss
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.objectives.config import BarlowTwinsConfig


class BarlowTwins(ProjectedObjective):
    """Cross-correlation of the two views' embeddings towards the identity."""

    def __init__(self, config: BarlowTwinsConfig, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.off_diagonal_weight = config.off_diagonal_weight

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = barlow_twins_loss(z_a, z_b, off_diagonal_weight=self.off_diagonal_weight, group=self.group)
        return ObjectiveOutput(loss, {"loss": loss.detach()})
