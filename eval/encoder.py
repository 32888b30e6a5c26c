"""The frozen encoder of a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from eval.config import Initialisation
from eval.result import EvaluationError
from eval.schema import RunResult, read_run_result
from pretrain.checkpoint import encoder_weights, newest_checkpoint, read_checkpoint
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import validate
from pretrain.models.config import EncoderSettings
from pretrain.models.encoder import Encoder, build_encoder
from pretrain.rundir import RunDirectory


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder in eval mode without gradients, and where it comes from."""

    module: Encoder
    config: PretrainConfig
    checkpoint: Path
    step: int
    fingerprint: str  # of the run
    initialisation: Initialisation = "pretrained"

    def identity(self) -> dict[str, Any]:
        """Plain values that are equal for two encoders exactly when they are the same file of the same run."""
        file = self.checkpoint.stat()
        random = {"initialisation": "random"} if self.initialisation == "random" else {}
        return {
            **random,
            "run": self.fingerprint,
            "checkpoint": [self.checkpoint.name, file.st_size, file.st_mtime_ns],
        }


def load_encoder(
    run: RunDirectory,
    config: PretrainConfig,
    *,
    device: torch.device,
    initialisation: Initialisation = "pretrained",
    checkpoint: Path | None = None,
) -> FrozenEncoder:
    """The encoder of ``checkpoint`` (the newest of ``run`` by default), or its weights before the first step.

    Raises EvaluationError where there is none or it is not of this run, CheckpointError where it cannot be read.
    """
    path = checkpoint or newest_checkpoint(run.checkpoints)
    if path is None:
        raise EvaluationError(f"{run.path} has no checkpoint in {run.checkpoints.name}/: nothing to evaluate")
    content = read_checkpoint(path)
    expected = run_fingerprint(config)
    if content["fingerprint"] != expected:
        raise EvaluationError(f"{path} is of run {content['fingerprint']}, expected {expected}, that of {run.config}")
    training = read_run_result(run, expected)
    if checkpoint is None and isinstance(training, RunResult) and content["step"] != training.total_steps:
        raise EvaluationError(
            f"{path} is the newest checkpoint, of step {content['step']:,}, but the run finished at step "
            f"{training.total_steps:,}: its last checkpoint is gone"
        )
    trained = validate(PretrainConfig, _plain(content["config"]), f"configuration in {path}")
    module = new_encoder(trained.encoder, seed=trained.seed)
    if initialisation == "pretrained":
        try:
            module.load_state_dict(encoder_weights(content))
        except RuntimeError as error:
            raise EvaluationError(f"{path} does not fit the encoder of {run.config}: {error}") from error
    module.requires_grad_(False).eval().to(device).to(memory_format=torch.channels_last)
    return FrozenEncoder(module, trained, path, int(content["step"]), str(content["fingerprint"]), initialisation)


def new_encoder(config: EncoderSettings, *, seed: int) -> Encoder:
    """An encoder with the weights that a run with this seed starts from."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_encoder(config)


def _plain(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise EvaluationError(f"the configuration in the checkpoint is a {type(config).__name__}, expected a mapping")
    return config
