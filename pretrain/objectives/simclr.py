"""SimCLR (Chen et al. 2020) and DCL (Yeh et al. 2022): two views of an image are told apart from all other images."""

from __future__ import annotations

from torch import Tensor

from pretrain.batch import StepContext
from pretrain.losses.contrastive import dcl_loss, ntxent_loss
from pretrain.losses.diagnostics import ntxent_diagnostics
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.objectives.config import DCLConfig, SimCLRConfig


class SimCLR(ProjectedObjective):
    """Both views in one forward (joint batch-norm statistics), projector, NT-Xent or DCL over the global batch."""

    def __init__(self, config: SimCLRConfig | DCLConfig, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.loss_function = dcl_loss if isinstance(config, DCLConfig) else ntxent_loss
        self.temperature = config.temperature
        self.negatives = config.negatives

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        negatives, group = self.negatives, self.group
        loss = self.loss_function(z_a, z_b, temperature=self.temperature, negatives=negatives, group=group)
        metrics = {"loss": loss.detach()}
        if context.measure:
            metrics |= ntxent_diagnostics(z_a, z_b, temperature=self.temperature, negatives=negatives, group=group)
        return ObjectiveOutput(loss, metrics)
