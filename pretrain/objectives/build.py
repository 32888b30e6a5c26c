"""From a configuration's objective to the module that is trained."""

from __future__ import annotations

import torch

from pretrain.choices import load_object
from pretrain.models.config import EncoderSettings
from pretrain.models.encoder import build_encoder
from pretrain.objectives.base import Objective
from pretrain.objectives.settings import ObjectiveSettings


def build_objective(objective: ObjectiveSettings, encoder: EncoderSettings, *, classes: int, seed: int) -> Objective:
    """Objective on the CPU with weights that are a function of ``seed`` alone.

    classes: number of labels of the data set; only objectives that read labels use it.
    """
    implementation = load_object(objective.implementation or objective.name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built: Objective = implementation.build(objective, build_encoder(encoder), classes=classes, seed=seed)
    return built
