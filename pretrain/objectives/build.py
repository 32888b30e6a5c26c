"""From a configuration's objective to the module that is trained."""

from __future__ import annotations

import torch

from pretrain.config import EncoderConfig, ObjectiveConfig, SimCLRConfig, SupervisedConfig
from pretrain.models.encoder import build_encoder
from pretrain.objectives.base import Objective
from pretrain.objectives.simclr import SimCLR
from pretrain.objectives.supervised import Supervised


def build_objective(objective: ObjectiveConfig, encoder: EncoderConfig, *, classes: int, seed: int) -> Objective:
    """Objective on the CPU with weights that are a function of ``seed`` alone.

    classes: number of labels of the data set; only objectives that read labels use it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = build_encoder(encoder)
        match objective:
            case SimCLRConfig():
                return SimCLR(objective, backbone)
            case SupervisedConfig():
                return Supervised(backbone, classes=classes)
