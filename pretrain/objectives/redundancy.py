"""Barlow Twins (Zbontar et al. 2021), VICReg (Bardes et al. 2022) and W-MSE (Ermolov et al. 2021).

Two views are drawn together while the dimensions of the embedding are kept from repeating one another; the statistics
are those of the global batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pretrain.config import BarlowTwinsConfig, VICRegConfig, WMSEConfig
from pretrain.losses.barlow_twins import barlow_twins_loss
from pretrain.losses.vicreg import vicreg_loss
from pretrain.losses.wmse import wmse_loss
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective


class BarlowTwins(ProjectedObjective):
    """Cross-correlation of the two views' embeddings towards the identity."""

    def __init__(self, config: BarlowTwinsConfig, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.off_diagonal_weight = config.off_diagonal_weight

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = barlow_twins_loss(z_a, z_b, off_diagonal_weight=self.off_diagonal_weight, group=self.group)
        return ObjectiveOutput(loss, {"loss": loss.detach()})


class VICReg(ProjectedObjective):
    """Invariance, variance and covariance terms."""

    def __init__(self, config: VICRegConfig, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.config = config

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
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


class WMSE(ProjectedObjective):
    """Squared distance of whitened embeddings. The draws of sub-batches are numbered by the training steps."""

    draw: Tensor

    def __init__(self, config: WMSEConfig, encoder: Encoder, *, seed: int) -> None:
        super().__init__(config.projector, encoder)
        self.config, self.seed = config, seed
        self.register_buffer("draw", torch.zeros((), dtype=torch.int64))

    def loss(self, embeddings: Tensor, labels: Tensor, measure: bool) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = wmse_loss(
            z_a,
            z_b,
            sub_batch_size=self.config.sub_batch_size,
            iterations=self.config.iterations,
            shrinkage=self.config.shrinkage,
            seed=self.seed,
            draw=self.draw,
            group=self.group,
        )
        return ObjectiveOutput(loss, {"loss": loss.detach()})

    def after_optimizer_step(self, progress: float) -> None:
        self.draw += 1
