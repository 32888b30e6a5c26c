"""W-MSE (Ermolov et al. 2021, arXiv:2007.06346): whitened embeddings of two views are drawn together."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pretrain.batch import StepContext
from pretrain.losses.wmse import wmse_loss
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.objectives.config import WMSEConfig


class WMSE(ProjectedObjective):
    """Squared distance of whitened embeddings. The draws of sub-batches are numbered by the training steps."""

    @classmethod
    def build(cls, config: Any, encoder: Encoder, *, classes: int, seed: int) -> WMSE:
        return cls(config, encoder, seed=seed)

    def __init__(self, config: WMSEConfig, encoder: Encoder, *, seed: int) -> None:
        super().__init__(config.projector, encoder)
        self.config, self.seed = config, seed

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = wmse_loss(
            z_a,
            z_b,
            sub_batch_size=self.config.sub_batch_size,
            iterations=self.config.iterations,
            shrinkage=self.config.shrinkage,
            seed=self.seed,
            draw=context.step,
            group=self.group,
        )
        return ObjectiveOutput(loss, {"loss": loss.detach()})
