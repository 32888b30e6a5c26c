"""Cross-entropy on labels: what the same encoder reaches when it is told them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.losses.common import full_precision
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import Embedded, Objective, ObjectiveOutput


class Supervised(Objective):
    """A linear classifier on the encoder, trained together with it on every view."""

    @classmethod
    def build(cls, config: Any, encoder: Encoder, *, classes: int, seed: int) -> Supervised:
        return cls(encoder, classes=classes)

    def __init__(self, encoder: Encoder, *, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_width, classes)

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        features = self.encoder(images)
        return Embedded(self.classifier(features), features)

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        # Ranks hold equally many samples, so the mean over ranks of local means is the global mean.
        targets = labels.repeat(embeddings.shape[0] // labels.shape[0])
        loss = nn.functional.cross_entropy(full_precision(embeddings), targets)
        with torch.no_grad():
            accuracy = (embeddings.argmax(1) == targets).float().mean()  # a fraction, as every top1 of metrics.jsonl
        return ObjectiveOutput(loss, {"loss": loss.detach(), "train_top1": accuracy})
