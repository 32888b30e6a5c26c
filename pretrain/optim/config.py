"""Settings and facts of every optimizer. Torch-free.

A new optimizer is a class here, in ``OPTIMIZERS``; one of torch's needs nothing else, any other a file for the class
that ``implementation`` names. One's own is an optimizer with a ``Config`` derived from
OptimizerSettings, named by its dotted path: ``optimizer: {name: "my_package.my_module:Mine"}``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pretrain.choices import OneOf
from pretrain.configio import Interval, NonNegativeFloat, PositiveFloat, Section


class OptimizerSettings(Section):
    """Base of the settings of every optimizer.

    label: its name in print. implementation: dotted path of ``class(params, lr, **arguments())``; by default the name
    is that path. state_tensors: how many tensors of its size it keeps for each parameter.
    """

    label: ClassVar[str] = ""
    implementation: ClassVar[str] = ""
    state_tensors: ClassVar[int] = 0

    name: str
    weight_decay: NonNegativeFloat = 1e-6  # of weights; biases and norm parameters have none

    def arguments(self) -> dict[str, Any]:
        """What the optimizer is made with, beside parameters, learning rate and weight decay."""
        return {}


class _Shared(OptimizerSettings):
    """These have the same settings, of which each reads its own; fingerprints cover them all."""

    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of LARS and SGD
    trust_coefficient: PositiveFloat = 1e-3  # LARS only
    betas: Interval = (0.9, 0.999)  # Adam and AdamW only


class LARSConfig(_Shared):
    """LARS as in google-research/simclr."""

    label: ClassVar[str] = "LARS"
    implementation: ClassVar[str] = "pretrain.optim.lars:LARS"
    state_tensors: ClassVar[int] = 1

    name: Literal["lars"] = "lars"

    def arguments(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "trust_coefficient": self.trust_coefficient}


class SGDConfig(_Shared):
    """SGD with momentum."""

    label: ClassVar[str] = "SGD"
    implementation: ClassVar[str] = "torch.optim:SGD"
    state_tensors: ClassVar[int] = 1

    name: Literal["sgd"] = "sgd"

    def arguments(self) -> dict[str, Any]:
        return {"momentum": self.momentum, "foreach": True}


class _Adaptive(_Shared):
    """Moments of first and second order."""

    state_tensors: ClassVar[int] = 2

    def arguments(self) -> dict[str, Any]:
        return {"betas": self.betas, "foreach": True}


class AdamWConfig(_Adaptive):
    """AdamW (Loshchilov & Hutter 2017, arXiv:1711.05101)."""

    label: ClassVar[str] = "AdamW"
    implementation: ClassVar[str] = "torch.optim:AdamW"

    name: Literal["adamw"] = "adamw"


class AdamConfig(_Adaptive):
    """Adam (Kingma & Ba 2014, arXiv:1412.6980); weight decay is part of its gradient, unlike AdamW's."""

    label: ClassVar[str] = "Adam"
    implementation: ClassVar[str] = "torch.optim:Adam"

    name: Literal["adam"] = "adam"


OPTIMIZERS: tuple[type[OptimizerSettings], ...] = (LARSConfig, SGDConfig, AdamWConfig, AdamConfig)

OptimizerConfig = Annotated[OptimizerSettings, OneOf(OptimizerSettings, *OPTIMIZERS, default="lars")]

# Name in a configuration to name in print.
OPTIMIZER_LABELS: dict[str, str] = {settings.model_fields["name"].default: settings.label for settings in OPTIMIZERS}


def learning_rate(scaling: Literal["linear", "sqrt", "none"], base: float, global_batch_size: int) -> float:
    """Peak learning rate: base * B / 256 (linear), base * sqrt(B) (sqrt; SimCLR appendix B.1) or base (none)."""
    match scaling:
        case "linear":
            return base * global_batch_size / 256
        case "sqrt":
            return base * math.sqrt(global_batch_size)
        case "none":
            return base


STEP_FACTOR = 0.1  # of decay: steps (He et al. 2016, arXiv:1512.03385)


def lr_at(
    step: int,
    *,
    peak: float,
    warmup_steps: int,
    total_steps: int,
    decay: Literal["cosine", "linear", "steps", "none"] = "cosine",
    steps_at: Sequence[float] = (),
) -> float:
    """Learning rate of the step after ``step`` finished ones: linear warm-up from 0, then the decay, per step.

    steps_at: shares of all steps, at each of which decay: steps lowers it to a tenth.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
    match decay:
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return peak * (1 - progress)
        case "steps":
            return float(peak * STEP_FACTOR ** sum(step >= share * total_steps for share in steps_at))
        case "none":
            return peak
