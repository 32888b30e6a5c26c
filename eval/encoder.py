"""The frozen encoder of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from eval.errors import EvaluationError
from pretrain.checkpoint import newest_checkpoint, read_checkpoint
from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.models.encoder import build_encoder
from pretrain.rundir import RunDirectory

PREFIX = "encoder."


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder in eval mode without gradients, and where it comes from."""

    module: nn.Module
    config: PretrainConfig
    checkpoint: Path
    step: int
    fingerprint: str  # of the run


def load_encoder(run: RunDirectory, config: PretrainConfig, *, device: torch.device) -> FrozenEncoder:
    """The encoder of the newest checkpoint of ``run``.

    Raises EvaluationError where there is none or it is not of this run, CheckpointError where it cannot be read.
    """
    path = newest_checkpoint(run.checkpoints)
    if path is None:
        raise EvaluationError(f"{run.path} has no checkpoint in {run.checkpoints.name}/: nothing to evaluate")
    content = read_checkpoint(path)
    trained = validate(PretrainConfig, _plain(content["config"]), f"configuration in {path}")
    if trained.encoder != config.encoder:
        raise EvaluationError(f"{path} holds another encoder than {run.config}: {trained.encoder} != {config.encoder}")
    module = build_encoder(trained.encoder)
    weights = {key.removeprefix(PREFIX): value for key, value in content["model"].items() if key.startswith(PREFIX)}
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise EvaluationError(f"{path} does not fit the encoder of {run.config}: {error}") from error
    module.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    return FrozenEncoder(module, trained, path, int(content["step"]), str(content["fingerprint"]))


def _plain(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise EvaluationError(f"the configuration in the checkpoint is a {type(config).__name__}, wanted a mapping")
    return config
