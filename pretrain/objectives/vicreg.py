"""VICReg (Bardes et al. 2022, arXiv:2105.04906): views agree while each dimension varies and none repeats another."""

from __future__ import annotations

from torch import Tensor

from pretrain.batch import StepContext
from pretrain.losses.redundancy import vicreg_loss
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.objectives.config import VICRegConfig


class VICReg(ProjectedObjective):
    """Invariance, variance and covariance terms."""

    def __init__(self, config: VICRegConfig, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.config = config

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = vicreg_loss(
            z_a,
            z_b,
            invariance_weight=self.config.invariance_weight,
            variance_weight=self.config.variance_weight,
            covariance_weight=self.config.covariance_weight,
            group=self.group,
        )
        return ObjectiveOutput(loss, {"loss": loss.detach()})
