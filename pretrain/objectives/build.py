"""From a configuration's objective to the module that is trained."""

from __future__ import annotations

from typing import assert_never

import torch

from pretrain.config import EncoderConfig
from pretrain.models.encoder import Encoder, build_encoder
from pretrain.objectives.barlow_twins import BarlowTwins
from pretrain.objectives.base import Objective
from pretrain.objectives.byol import BYOL
from pretrain.objectives.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DCLConfig,
    ObjectiveConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupervisedConfig,
    VICRegConfig,
    WMSEConfig,
)
from pretrain.objectives.simclr import SimCLR
from pretrain.objectives.simsiam import SimSiam
from pretrain.objectives.supervised import Supervised
from pretrain.objectives.vicreg import VICReg
from pretrain.objectives.wmse import WMSE


def build_objective(objective: ObjectiveConfig, encoder: EncoderConfig, *, classes: int, seed: int) -> Objective:
    """Objective on the CPU with weights that are a function of ``seed`` alone.

    classes: number of labels of the data set; only objectives that read labels use it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _objective(objective, build_encoder(encoder), classes=classes, seed=seed)


def _objective(config: ObjectiveConfig, encoder: Encoder, *, classes: int, seed: int) -> Objective:
    match config:
        case SimCLRConfig() | DCLConfig():
            return SimCLR(config, encoder)
        case BarlowTwinsConfig():
            return BarlowTwins(config, encoder)
        case VICRegConfig():
            return VICReg(config, encoder)
        case WMSEConfig():
            return WMSE(config, encoder, seed=seed)
        case BYOLConfig():
            return BYOL(config, encoder)
        case SimSiamConfig():
            return SimSiam(config, encoder)
        case SupervisedConfig():
            return Supervised(encoder, classes=classes)
        case _:
            assert_never(config)
