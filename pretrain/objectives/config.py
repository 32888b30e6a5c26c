"""Settings of every objective. Torch-free: the plan, the launcher and the login node read them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from pretrain.configio import NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Section


class ProjectorConfig(Section):
    """MLP between encoder and loss: Linear, batch norm and ReLU in each layer, the last without ReLU.

    ``last_batch_norm``: batch norm (without beta) after the last layer too, as SimCLR does. ``dropout``: share of the
    features dropped ahead of each layer but the first, or of the only one; another way to make two views differ.
    """

    layers: Annotated[int, Field(ge=1, le=8)] = 2
    hidden_width: PositiveInt | None = None  # as wide as the features
    output_width: PositiveInt = 128
    last_batch_norm: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


def _head(layers: int, hidden_width: int, output_width: int) -> ProjectorConfig:
    return ProjectorConfig(layers=layers, hidden_width=hidden_width, output_width=output_width, last_batch_norm=False)


class SimCLRConfig(Section):
    """SimCLR (Chen et al. 2020). ``negatives``: images that are each other's negatives; all of the batch by default."""

    name: Literal["simclr"] = "simclr"
    temperature: PositiveFloat = 0.1
    negatives: Annotated[int, Field(ge=2)] | None = None
    projector: ProjectorConfig = ProjectorConfig()


class DCLConfig(Section):
    """Decoupled contrastive learning (Yeh et al. 2022): SimCLR without the positive in the denominator."""

    name: Literal["dcl"] = "dcl"
    temperature: PositiveFloat = 0.1
    negatives: Annotated[int, Field(ge=2)] | None = None
    projector: ProjectorConfig = ProjectorConfig()


class BarlowTwinsConfig(Section):
    """Barlow Twins (Zbontar et al. 2021)."""

    name: Literal["barlow_twins"] = "barlow_twins"
    off_diagonal_weight: NonNegativeFloat = 0.0051
    projector: ProjectorConfig = _head(3, 8192, 8192)


class VICRegConfig(Section):
    """VICReg (Bardes et al. 2022)."""

    name: Literal["vicreg"] = "vicreg"
    invariance_weight: NonNegativeFloat = 25.0
    variance_weight: NonNegativeFloat = 25.0
    covariance_weight: NonNegativeFloat = 1.0
    projector: ProjectorConfig = _head(3, 8192, 8192)


class WMSEConfig(Section):
    """W-MSE (Ermolov et al. 2021). ``sub_batch_size``: whiten random parts of the global batch; by default all."""

    name: Literal["wmse"] = "wmse"
    sub_batch_size: Annotated[int, Field(ge=2)] | None = None
    iterations: PositiveInt = 1
    shrinkage: Probability = 0.0
    projector: ProjectorConfig = _head(2, 1024, 64)


class BYOLConfig(Section):
    """BYOL (Grill et al. 2020): ``momentum`` of the target network at the start; it rises to 1 by a cosine."""

    name: Literal["byol"] = "byol"
    momentum: Probability = 0.996
    projector: ProjectorConfig = _head(2, 4096, 256)
    predictor: ProjectorConfig = _head(2, 4096, 256)


class SimSiamConfig(Section):
    """SimSiam (Chen & He 2021)."""

    name: Literal["simsiam"] = "simsiam"
    projector: ProjectorConfig = ProjectorConfig(layers=3, hidden_width=2048, output_width=2048)
    predictor: ProjectorConfig = _head(2, 512, 2048)


class SupervisedConfig(Section):
    """Cross-entropy on labels: the baseline that the same network reaches with them."""

    name: Literal["supervised"] = "supervised"


ObjectiveConfig = Annotated[
    SimCLRConfig
    | DCLConfig
    | BarlowTwinsConfig
    | VICRegConfig
    | WMSEConfig
    | BYOLConfig
    | SimSiamConfig
    | SupervisedConfig,
    Field(discriminator="name"),
]
