"""The schema of a pretraining run. Torch-free: a login node reads it without importing torch.

A run is a function of what its `fingerprint` covers; everything else here (paths, logging, checkpoints, loader threads)
changes only its speed and what is kept of it.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from pretrain.configio import FilePath, Interval, NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Section
from pretrain.models.config import AnyEncoderConfig
from pretrain.models.config import EncoderConfig as EncoderConfig
from pretrain.objectives.config import OBJECTIVE_LABELS as OBJECTIVE_LABELS
from pretrain.objectives.config import ObjectiveConfig, SimCLRConfig
from pretrain.optim.config import OPTIMIZER_LABELS as OPTIMIZER_LABELS
from pretrain.optim.config import LARSConfig, OptimizerConfig


class DataConfig(Section):
    """Which images. ``directory`` holds what `pretrain.data.write_beton` wrote: {split}.beton and {split}.json."""

    dataset: str = "fashion_mnist"
    directory: FilePath = Path("data/fashion_mnist")
    split: str = "train"
    images: PositiveInt | None = None  # use only this many, a fixed subset of the split
    loader: Literal["ffcv", "beton"] = "ffcv"
    workers: PositiveInt = 1  # threads per rank
    batches_ahead: PositiveInt = 2
    decoded_in_memory: bool = False  # keep JPEG images decoded, once per rank, from their first use on


class ViewSettings(Section):
    """Random augmentation of one view: SimCLR's (arXiv:2002.05709, appendix A). Sizes are pixels of the view.

    Every operation but the crop happens with its own ``…_probability``; 0 switches it off.
    """

    crop_area: Interval = (0.08, 1.0)
    crop_aspect_ratio: Interval = (3 / 4, 4 / 3)
    flip_probability: Probability = 0.5
    jitter_probability: Probability = 0.8
    brightness: NonNegativeFloat = 0.8
    contrast: NonNegativeFloat = 0.8
    saturation: NonNegativeFloat = 0.8
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    grayscale_probability: Probability = 0.2
    blur_probability: Probability = 0.5
    blur_sigma_px: Interval = (0.1, 2.0)
    blur_kernel_fraction: Probability = 0.1
    solarize_probability: Probability = 0.0
    solarize_threshold: Annotated[float, Field(ge=0, le=256)] = 128.0
    # Not part of SimCLR. The first two see the resized crop and leave black what they uncover.
    perspective_probability: Probability = 0.0
    perspective_distortion: Probability = 0.5
    rotation_probability: Probability = 0.0
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0  # at most, to either side
    invert_probability: Probability = 0.0

    @field_validator("crop_area", "crop_aspect_ratio", "blur_sigma_px")
    @classmethod
    def _ordered(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"got {list(value)}, expected [low, high] with 0 < low <= high")
        return value

    @field_validator("crop_area")
    @classmethod
    def _fraction(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError(f"got {list(value)}, expected fractions of the image's area, at most 1")
        return value


class AugmentationConfig(ViewSettings):
    """Augmentation of all views; ``view_overrides[v]`` changes single settings of view v (BYOL's views differ)."""

    crop_size_px: Annotated[int, Field(ge=8)] = 224
    number_of_views: Annotated[int, Field(ge=1, le=8)] = 2
    view_overrides: dict[Annotated[int, Field(ge=0, le=7, strict=False)], dict[str, Any]] = Field(default_factory=dict)

    @field_validator("view_overrides")
    @classmethod
    def _valid_overrides(cls, value: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
        problems = []
        for view, override in value.items():
            try:
                ViewSettings.model_validate(override)
            except ValidationError as error:
                problems += [f"view {view}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        if problems:
            raise ValueError("; ".join(problems))
        return value

    def for_view(self, view: int) -> ViewSettings:
        """Settings of view number ``view``."""
        shared = {name: getattr(self, name) for name in ViewSettings.model_fields}
        return ViewSettings.model_validate({**shared, **self.view_overrides.get(view, {})})


class ScheduleConfig(Section):
    """Peak learning rate from the global batch B: ``linear`` base*B/256, ``sqrt`` base*sqrt(B), ``constant`` base.

    Linear warm-up from 0, then cosine to 0, per step.
    """

    rule: Literal["linear", "sqrt", "constant"] = "linear"
    base_learning_rate: PositiveFloat = 0.3
    warmup_epochs: NonNegativeFloat = 10.0


class BatchConfig(Section):
    """How a global batch larger than memory is worked through (gradient caching).

    micro_batch_size: images, over all ranks, that are embedded and normalised together; the whole batch by default. It
    divides the global batch, and batch norm sees so many images at a time on any number of ranks.
    """

    micro_batch_size: PositiveInt | None = None


class PrecisionConfig(Section):
    """How the networks compute; losses, statistics and the optimizer are float32 under all of it.

    float32: what float32 means in convolutions and products on a GPU, IEEE's or TF32 (10 bits of mantissa, faster);
    autocast: bf16 instead of either. deterministic: only algorithms that give the same bits each time; slower on a GPU.
    compile: let torch.compile make kernels of the networks, which takes minutes at the start.
    """

    float32: Literal["ieee", "tf32"] = "ieee"
    autocast: Literal["off", "bf16"] = "off"
    channels_last: bool = True
    deterministic: bool = False
    compile: bool = False


class LogConfig(Section):
    """metrics.jsonl is the record; console and wandb are copies of it.

    online_probe: let a linear classifier learn beside the encoder, so that accuracy can be watched; training is the
    same bit for bit without it.
    """

    every_steps: PositiveInt = 10
    online_probe: bool = True
    wandb: Literal["disabled", "offline", "online"] = "offline"
    wandb_project: str = "bigbatch"


class CheckpointConfig(Section):
    """A checkpoint every so many steps and seconds, and always at the end; ``keep`` of them stay."""

    every_steps: PositiveInt | None = None  # once per epoch
    every_s: PositiveFloat | None = 900.0  # what a dead node costs at most; null: never for the time alone
    keep: PositiveInt = 2


class RunConfig(Section):
    """Where the run lives: ``directory``, or ``root``/<config name>-<fingerprint>; and how far it goes this time.

    stop_after_steps: save and stop there, as at a signal; the next start goes on.
    """

    directory: FilePath | None = None
    root: FilePath = Path("runs")
    stop_after_steps: PositiveInt | None = None


class PretrainConfig(Section):
    """Everything a pretraining run needs to know."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    global_batch_size: Annotated[int, Field(ge=2)] = 256
    epochs: Annotated[int, Field(ge=0)] = 100  # 0: the randomly initialised encoder
    device: Literal["auto", "cpu", "cuda"] = "auto"
    # Ranks that share batch norm's moments: all, those of a node, so many, or each its own ("off"). With any but
    # "global" the result depends on the number of ranks.
    sync_batch_norm: Literal["global", "node", "off"] | PositiveInt = "global"
    batch_norm_library: Literal["bigbatch", "torch", "apex"] = "bigbatch"  # torch and apex: CUDA only
    batch: BatchConfig = BatchConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    encoder: AnyEncoderConfig = EncoderConfig()
    objective: ObjectiveConfig = SimCLRConfig()
    optimizer: OptimizerConfig = LARSConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    precision: PrecisionConfig = PrecisionConfig()
    log: LogConfig = LogConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    run: RunConfig = RunConfig()


# What changes the speed of a run, or what is kept of it, but not its result.
_SPEED_ONLY: dict[str, tuple[str, ...]] = {
    "data": ("directory", "loader", "workers", "batches_ahead", "decoded_in_memory"),
    "": ("device", "batch_norm_library", "log", "checkpoint", "run"),
}

# Settings that joined after runs had been made, by dotted key, with the value that means what those runs did. At that
# value they are left out of what is fingerprinted, so that a study does not train the same runs again.
_JOINED_LATER: dict[str, Any] = {
    "precision.float32": "ieee",
    "precision.deterministic": False,
    "precision.compile": False,
}


def result_settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings that the run's result depends on, in one form for equal meanings, as plain JSON values."""
    settings = config.model_dump(mode="json")
    for section, names in _SPEED_ONLY.items():
        target = settings[section] if section else settings
        for name in names:
            del target[name]
    settings["objective"] = config.objective.canonical(config.global_batch_size).model_dump(mode="json")
    for key, before in _JOINED_LATER.items():
        section, _, name = key.rpartition(".")
        target = settings[section] if section else settings
        if target[name] == before:
            del target[name]
    return settings


def fingerprint(settings: dict[str, Any]) -> str:
    """Twelve hexadecimal digits of SHA-256 over canonical JSON."""
    text = json.dumps(settings, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_fingerprint(config: PretrainConfig) -> str:
    """Equal for two runs exactly when their configurations mean the same result."""
    return fingerprint(result_settings(config))
