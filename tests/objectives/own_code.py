"""An objective and an encoder as a person would write them outside of the project."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.batch import StepContext
from pretrain.losses import ntxent_loss
from pretrain.models.config import EncoderSettings
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import ObjectiveOutput, ProjectedObjective
from pretrain.objectives.settings import ObjectiveSettings, ProjectorConfig


class SharpSettings(ObjectiveSettings):
    label: ClassVar[str] = "Sharp"
    told_apart_by: ClassVar[tuple[str, ...]] = ("sharpness",)

    sharpness: float = 5.0
    projector: ProjectorConfig = ProjectorConfig(output_width=16)


class Sharp(ProjectedObjective):
    """NT-Xent by another name."""

    Config = SharpSettings

    def __init__(self, config: SharpSettings, encoder: Encoder) -> None:
        super().__init__(config.projector, encoder)
        self.sharpness = config.sharpness

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z_a, z_b = embeddings.chunk(2)
        loss = ntxent_loss(z_a, z_b, temperature=1 / self.sharpness, group=self.group)
        return ObjectiveOutput(loss, {"loss": loss.detach()})


class Forgetful(Sharp):
    """The same with the negatives of one rank."""

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        z = F.normalize(embeddings, dim=1)
        logits = self.sharpness * z @ z.t()
        logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
        loss = F.cross_entropy(logits, torch.arange(len(z)).roll(len(z) // 2))
        return ObjectiveOutput(loss, {"loss": loss.detach()})


class Shallow(Encoder):
    """Two convolutions."""

    class Config(EncoderSettings):
        feature_width: int = 32

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.feature_width = config.feature_width
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, config.feature_width, 3, stride=2, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.body(images).mean((2, 3))
        return features


class NoSettings(nn.Module):
    """Nothing says what it is configured with."""
