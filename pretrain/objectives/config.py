"""Settings and facts of every objective of this project. Torch-free: plan, launcher and login node read them.

A new objective is a class here, in ``OBJECTIVES``, and a file for the class that ``implementation`` names.
Memory is counted in float32 numbers that are alive at once at the worst moment of the loss and its gradient, beside the
embeddings. G pairs of the global batch, B on this rank, M = 2 G rows, N = 2 B rows of this rank, D dimensions, W ranks.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from pretrain.choices import OneOf
from pretrain.configio import NonNegativeFloat, PositiveFloat, PositiveInt, Probability
from pretrain.errors import Problem
from pretrain.kernels.contrastive_work import tile_rows
from pretrain.objectives.settings import (
    FLOAT_BYTES,
    LossBatch,
    Message,
    ObjectiveSettings,
    divisor_problems,
)
from pretrain.objectives.settings import ProjectorConfig as ProjectorConfig


def _head(layers: int, hidden_width: int, output_width: int) -> ProjectorConfig:
    return ProjectorConfig(layers=layers, hidden_width=hidden_width, output_width=output_width, last_batch_norm=False)


# In float32 the exponents of colder losses need a shift of their own in each row, and its maximum over the ranks.
_COLDEST_WITH_ONE_SHIFT = 2 / (227 * math.log(2))


class _Contrastive(ObjectiveSettings):
    """NT-Xent and its kin. negatives: images that are each other's negatives; all of the batch by default."""

    told_apart_by: ClassVar[tuple[str, ...]] = ("temperature", "negatives")

    temperature: PositiveFloat = 0.1  # by which similarities are divided
    negatives: Annotated[int, Field(ge=2)] | None = None
    projector: ProjectorConfig = ProjectorConfig()

    def problems(self, *, global_batch_size: int, number_of_views: int) -> list[Problem]:
        return [
            *super().problems(global_batch_size=global_batch_size, number_of_views=number_of_views),
            *divisor_problems("objective.negatives", self.negatives, global_batch_size),
        ]

    def canonical(self, global_batch_size: int) -> Self:
        one_group = self.negatives is not None and self.negatives >= global_batch_size
        return self.model_copy(update={"negatives": None}) if one_group else self

    def negatives_per_anchor(self, global_batch_size: int) -> int:
        return 2 * (self.negatives or global_batch_size) - 2

    def chance_loss(self, global_batch_size: int) -> float | None:
        return math.log(self.negatives_per_anchor(global_batch_size) + 1)

    def loss_bytes(self, batch: LossBatch) -> int:
        """In the backward: the gathered rows, the own ones and their gradient, two tiles; or, in the forward on many
        ranks, the own rows twice and the products of the positives; and numbers for each row.

        oneDNN's products, which CPUs with AVX-512 use, keep what they have seen of the rows, and the gradient,
        transposed as well, and make two tiles more; they are counted on every CPU.
        """
        width, tile, own = self.projector.output_width, tile_rows(batch.device), batch.own_rows
        group = 2 * (self.negatives or batch.global_batch_size)
        block = min(group, own)  # of one rank, in which all rows meet
        at_once = max(1, min((tile // min(block, tile)) ** 2, own // block))  # small blocks, several at a time
        rows, tiles = batch.rows + 2 * own, 2 * at_once * min(tile, block) ** 2
        if batch.device == "cpu" and at_once == 1:
            rows, tiles = rows + max(own, group) + (own if block > tile else 0), 2 * tiles
        forward = 3 * batch.rows // 2 + 2 * own
        return FLOAT_BYTES * (max(rows * width + tiles, forward * width) + 5 * batch.rows)

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        """Rows, then their sums; the backward communicates nothing."""
        sums = Message("all_reduce", batch.rows)
        maxima = (sums,) if self.temperature <= _COLDEST_WITH_ONE_SHIFT else ()
        return (Message("all_gather", batch.rows * self.projector.output_width), *maxima, sums)

    def similarities(self, batch: LossBatch) -> int:
        return batch.own_rows * 2 * min(batch.global_batch_size, self.negatives or batch.global_batch_size)

    def small(self, images: int) -> Self:
        negatives = None if self.negatives is None else images // 2
        return super().small(images).model_copy(update={"negatives": negatives})


class SimCLRConfig(_Contrastive):
    """SimCLR (Chen et al. 2020). ``negatives``: images that are each other's negatives; all of the batch by default."""

    label: ClassVar[str] = "SimCLR"
    implementation: ClassVar[str] = "pretrain.objectives.simclr:SimCLR"

    name: Literal["simclr"] = "simclr"

    @classmethod
    def variants(cls, images: int) -> tuple[Self, ...]:
        return (cls(), cls(negatives=images // 2))


class DCLConfig(_Contrastive):
    """Decoupled contrastive learning (Yeh et al. 2022): SimCLR without the positive in the denominator."""

    label: ClassVar[str] = "DCL"
    implementation: ClassVar[str] = "pretrain.objectives.simclr:SimCLR"

    name: Literal["dcl"] = "dcl"

    def chance_loss(self, global_batch_size: int) -> float | None:
        return math.log(self.negatives_per_anchor(global_batch_size))


class BarlowTwinsConfig(ObjectiveSettings):
    """Barlow Twins (Zbontar et al. 2021)."""

    label: ClassVar[str] = "Barlow Twins"
    implementation: ClassVar[str] = "pretrain.objectives.barlow_twins:BarlowTwins"

    name: Literal["barlow_twins"] = "barlow_twins"
    off_diagonal_weight: NonNegativeFloat = 0.0051  # lambda: of the redundancy term
    projector: ProjectorConfig = _head(3, 8192, 8192)

    def loss_bytes(self, batch: LossBatch) -> int:
        """At the end of the forward, two centred views and 6 matrices (D, D): the products, their mean, the scales,
        the correlations, those off the diagonal, their squares; on several ranks the message too. Or, where the batch
        is larger than D, the views in the backward. (gloo copies its message once more, outside of tensors.)
        """
        width, rows = self.projector.output_width, batch.own_rows
        matrices = 6 + (batch.world_size > 1)
        return FLOAT_BYTES * max(rows * width + matrices * width**2, 3 * rows * width + width**2)

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        """Means; then the cross-correlation and both views' squares."""
        width = self.projector.output_width
        return Message("all_reduce", 2 * width), Message("all_reduce", width**2 + 2 * width)


class VICRegConfig(ObjectiveSettings):
    """VICReg (Bardes et al. 2022)."""

    label: ClassVar[str] = "VICReg"
    implementation: ClassVar[str] = "pretrain.objectives.vicreg:VICReg"

    name: Literal["vicreg"] = "vicreg"
    invariance_weight: NonNegativeFloat = 25.0  # of the distance between views
    variance_weight: NonNegativeFloat = 25.0  # of the hinge on the spread
    covariance_weight: NonNegativeFloat = 1.0  # of the covariances
    projector: ProjectorConfig = _head(3, 8192, 8192)

    def loss_bytes(self, batch: LossBatch) -> int:
        """At the end of the forward, two centred views, their difference, and 6 matrices (D, D): both products, and of
        each view the covariances or those off the diagonal with their squares; on several ranks the message of both.
        """
        width, rows = self.projector.output_width, batch.own_rows
        sent = 2 * (batch.world_size > 1)
        return FLOAT_BYTES * max((3 * rows * width) // 2 + (6 + sent) * width**2, 3 * rows * width + sent * width**2)

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        """Means; then the distance of the views and both covariances."""
        width = self.projector.output_width
        return Message("all_reduce", 2 * width), Message("all_reduce", 2 * width**2 + 1)


class WMSEConfig(ObjectiveSettings):
    """W-MSE (Ermolov et al. 2021). ``sub_batch_size``: whiten random parts of the global batch; by default all."""

    label: ClassVar[str] = "W-MSE"
    implementation: ClassVar[str] = "pretrain.objectives.wmse:WMSE"
    told_apart_by: ClassVar[tuple[str, ...]] = ("sub_batch_size",)

    name: Literal["wmse"] = "wmse"
    sub_batch_size: Annotated[int, Field(ge=2)] | None = None
    iterations: PositiveInt = 1  # random partitions into parts, averaged
    shrinkage: Probability = 0.0  # of the covariance towards the identity
    projector: ProjectorConfig = _head(2, 1024, 64)

    def problems(self, *, global_batch_size: int, number_of_views: int) -> list[Problem]:
        problems = super().problems(global_batch_size=global_batch_size, number_of_views=number_of_views)
        problems += divisor_problems("objective.sub_batch_size", self.sub_batch_size, global_batch_size)
        size, width = self.sub_batch_size or global_batch_size, self.projector.output_width
        if size <= width and self.shrinkage == 0:
            message = (
                f"got {width}, but the covariance of {size} images has an inverse only below {size} dimensions; "
                "expected a smaller output, a larger batch, or objective.shrinkage above 0"
            )
            problems.append(Problem("objective.projector.output_width", message))
        return problems

    def loss_bytes(self, batch: LossBatch) -> int:
        """In the backward, of all rows: centred and whitened ones, what normalises them, and their gradients; one
        factor (D, D) of each view and part. Each iteration before the last keeps four of the rows, and its factors.
        """
        width = self.projector.output_width
        parts = batch.global_batch_size // (self.sub_batch_size or batch.global_batch_size)
        iterations = self.iterations if parts > 1 else 1
        copies = 7 if parts == 1 else 4 + 4 * iterations
        return FLOAT_BYTES * (copies * batch.rows * width + 2 * iterations * parts * width**2)

    def messages(self, batch: LossBatch) -> tuple[Message, ...]:
        """The rows; every rank then computes the same, and the gradient of its own rows is there already."""
        return (Message("all_gather", batch.rows * self.projector.output_width),)

    def small(self, images: int) -> Self:
        size = None if self.sub_batch_size is None else images // 2
        return super().small(images).model_copy(update={"sub_batch_size": size})

    @classmethod
    def variants(cls, images: int) -> tuple[Self, ...]:
        return (cls(), cls(sub_batch_size=images // 2, iterations=2))


class _Predicting(ObjectiveSettings):
    """One view's prediction against the other view's projection, pair by pair: ranks tell one another nothing."""

    def problems(self, *, global_batch_size: int, number_of_views: int) -> list[Problem]:
        problems = super().problems(global_batch_size=global_batch_size, number_of_views=number_of_views)
        projector, predictor = self.heads
        wanted, got = projector.output_width, predictor.output_width
        if wanted != got:
            message = f"got {got}, expected {wanted}, the width of the projections that it predicts"
            problems.append(Problem("objective.predictor.output_width", message))
        return problems

    def loss_bytes(self, batch: LossBatch) -> int:
        """In the backward: what the two normalisations keep, their product, and the gradients."""
        return FLOAT_BYTES * 5 * batch.own_rows * self.embedding_width(batch.feature_width)


class BYOLConfig(_Predicting):
    """BYOL (Grill et al. 2020): ``momentum`` of the target network at the start; it rises to 1 by a cosine."""

    label: ClassVar[str] = "BYOL"
    implementation: ClassVar[str] = "pretrain.objectives.byol:BYOL"
    has_target: ClassVar[bool] = True

    name: Literal["byol"] = "byol"
    momentum: Probability = 0.996  # of the target network at the start; it rises to 1 by a cosine
    projector: ProjectorConfig = _head(2, 4096, 256)
    predictor: ProjectorConfig = _head(2, 4096, 256)

    def notes(self) -> tuple[str, ...]:
        return (f"momentum of the target rises from {self.momentum:g} to 1 by a cosine",)


class SimSiamConfig(_Predicting):
    """SimSiam (Chen & He 2021)."""

    label: ClassVar[str] = "SimSiam"
    implementation: ClassVar[str] = "pretrain.objectives.simsiam:SimSiam"

    name: Literal["simsiam"] = "simsiam"
    projector: ProjectorConfig = ProjectorConfig(layers=3, hidden_width=2048, output_width=2048)
    predictor: ProjectorConfig = _head(2, 512, 2048)


class SupervisedConfig(ObjectiveSettings):
    """Cross-entropy on labels: the baseline that the same network reaches with them."""

    label: ClassVar[str] = "Supervised"
    implementation: ClassVar[str] = "pretrain.objectives.supervised:Supervised"
    number_of_views: ClassVar[int | None] = None

    name: Literal["supervised"] = "supervised"


OBJECTIVES: tuple[type[ObjectiveSettings], ...] = (
    SimCLRConfig,
    DCLConfig,
    BarlowTwinsConfig,
    VICRegConfig,
    WMSEConfig,
    BYOLConfig,
    SimSiamConfig,
    SupervisedConfig,
)

ObjectiveConfig = Annotated[ObjectiveSettings, OneOf(ObjectiveSettings, *OBJECTIVES)]


# Name in a configuration to name in print.
OBJECTIVE_LABELS: dict[str, str] = {settings.model_fields["name"].default: settings.label for settings in OBJECTIVES}
