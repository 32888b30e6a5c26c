"""The schema of a pretraining run. Torch-free: a login node reads it without importing torch.

A run is a function of what its `fingerprint` covers; everything else here (paths, logging, checkpoints, loader threads)
changes only its speed and what is kept of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from pretrain.configio import FilePath, Interval, NonNegativeFloat, PositiveFloat, PositiveInt, Probability, Section
from pretrain.models.config import AnyEncoderConfig
from pretrain.models.config import EncoderConfig as EncoderConfig
from pretrain.objectives.config import OBJECTIVE_LABELS as OBJECTIVE_LABELS
from pretrain.objectives.config import ObjectiveConfig, SimCLRConfig
from pretrain.optim.config import OPTIMIZER_LABELS as OPTIMIZER_LABELS
from pretrain.optim.config import LARSConfig, OptimizerConfig


class DataConfig(Section):
    """Which images. ``directory`` holds what `pretrain.data.write_beton` wrote: {split}.beton and {split}.json."""

    dataset: str = "fashion_mnist"  # a source by name, a path of a folder of images, or package.module:Class
    directory: FilePath = Path("data/fashion_mnist")  # what `bigbatch data write` wrote
    split: str = "train"  # of the data set
    images: PositiveInt | None = None  # use only this many, a fixed subset of the split
    # beton: our own reader of the same file, the same batches; auto: ffcv where it can be imported
    loader: Literal["auto", "ffcv", "beton"] = "auto"
    # threads per rank; auto: its share of the node's cores beside a GPU, one without
    workers: PositiveInt | Literal["auto"] = "auto"
    batches_ahead: PositiveInt = 2  # made while the present one trains
    decoded_in_memory: bool = False  # keep JPEG images decoded, once per rank, from their first use on


Flavour = Literal["torchvision", "simclr"]


class ViewSettings(Section):
    """Random augmentation of one view: SimCLR's (arXiv:2002.05709, appendix A). Sizes are pixels of the view.

    Every operation but the crop happens with its own ``…_probability``; 0 switches it off.
    """

    # whose resize, contrast, saturation and blur: torchvision's, or those of google-research/simclr
    flavour: Flavour = "torchvision"
    crop_area: Interval = (0.08, 1.0)  # of the random crop, as a fraction of the image's
    crop_aspect_ratio: Interval = (3 / 4, 4 / 3)  # width / height of the random crop
    flip_probability: Probability = 0.5  # of a mirrored view
    jitter_probability: Probability = 0.8  # of any change of colours
    brightness: NonNegativeFloat = 0.8  # largest relative change
    contrast: NonNegativeFloat = 0.8  # largest relative change
    saturation: NonNegativeFloat = 0.8  # largest relative change
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.2  # largest turn, as a fraction of the circle
    grayscale_probability: Probability = 0.2  # of a view without colour
    blur_probability: Probability = 0.5  # of a Gaussian blur
    blur_sigma_px: Interval = (0.1, 2.0)  # width of the blur
    blur_kernel_fraction: Probability = 0.1  # side of its kernel, as a fraction of the view's
    solarize_probability: Probability = 0.0  # of inverting bright pixels
    solarize_threshold: Annotated[float, Field(ge=0, le=256)] = 128.0  # grey levels from this one on are inverted
    # Not part of SimCLR. The first two see the resized crop and leave black what they uncover.
    perspective_probability: Probability = 0.0
    perspective_distortion: Probability = 0.5  # how far corners move, as a fraction of half a side
    rotation_probability: Probability = 0.0  # of a turn
    rotation_degrees: Annotated[float, Field(ge=0, le=180)] = 15.0  # at most, to either side
    invert_probability: Probability = 0.0  # of a negative

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

    crop_size_px: Annotated[int, Field(ge=8)] = 224  # side of a view
    number_of_views: Annotated[int, Field(ge=1, le=8)] = 2  # of each image
    # View number to the settings in which it differs.
    # View number to the settings in which it differs.
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
    """Peak learning rate from the global batch B: ``linear`` base*B/256, ``sqrt`` base*sqrt(B), ``none`` base.

    Linear warm-up from 0, then the decay, per step: to 0 by a cosine or in a line, to a tenth at each of ``steps_at``,
    or none.
    """

    scaling: Literal["linear", "sqrt", "none"] = "linear"  # how the peak grows with the batch
    base_learning_rate: PositiveFloat = 0.3  # ahead of the scaling with the batch
    warmup_epochs: NonNegativeFloat = 10.0  # of a linear rise from 0
    decay: Literal["cosine", "linear", "steps", "none"] = "cosine"  # what follows the warm-up
    steps_at: tuple[Probability, ...] = Field((0.6, 0.8), strict=False)  # shares of training, for decay: steps

    @model_validator(mode="before")
    @classmethod
    def _earlier_name(cls, value: Any) -> Any:
        """``rule``, of earlier configurations, was the scaling; ``constant`` was none."""
        if not isinstance(value, dict) or "rule" not in value:
            return value
        if "scaling" in value:
            raise ValueError("got both scaling and rule, its earlier name; expected scaling: linear | sqrt | none")
        rest = {key: given for key, given in value.items() if key != "rule"}
        return {**rest, "scaling": "none" if value["rule"] == "constant" else value["rule"]}


class BatchConfig(Section):
    """How a global batch larger than memory is worked through (gradient caching).

    micro_batch_size: images, over all ranks, that are embedded and normalised together; the whole batch by default. It
    divides the global batch, and batch norm sees so many images at a time on any number of ranks.
    """

    micro_batch_size: PositiveInt | None = None


class PrecisionConfig(Section):
    """How the networks compute; losses, statistics and the optimizer are float32 under all of it.

    float32: what float32 means in convolutions and products on a GPU, IEEE's or TF32 (10 bits of mantissa, faster);
    autocast: bf16 instead of either. deterministic: only algorithms that give the same bits each time, so that a
    resumed run is the undisturbed one bit for bit; slower on a GPU, and needless on a CPU.
    compile: let torch.compile make kernels of the networks, which takes minutes at the start.
    skip_nonfinite_steps: how many steps whose loss or gradient is not finite may be left out before the run stops; the
    host then waits for the device in each step.
    """

    float32: Literal["ieee", "tf32"] = "ieee"
    autocast: Literal["off", "bf16"] = "off"
    channels_last: bool = True  # memory order NHWC, faster on GPUs and in oneDNN
    deterministic: bool = False
    compile: bool = False
    skip_nonfinite_steps: Annotated[int, Field(ge=0)] = 0


class LogConfig(Section):
    """metrics.jsonl is the record; console and wandb are copies of it.

    wandb: offline keeps the record on disk (`wandb sync` sends it); online sends it while the run trains; disabled, or
    off, neither. WANDB_MODE in the environment comes before it.
    online_probe: let a linear classifier learn beside the encoder, so that accuracy can be watched; training is the
    same bit for bit without it.
    """

    every_steps: PositiveInt = 10  # steps between two rows of metrics.jsonl
    online_probe: bool = True
    wandb: Literal["disabled", "offline", "online"] = "offline"
    wandb_project: str = "bigbatch"  # where wandb files the run

    @field_validator("wandb", mode="before")
    @classmethod
    def _off(cls, value: Any) -> Any:
        return "disabled" if value == "off" else value


class CheckpointConfig(Section):
    """A checkpoint every so many steps and seconds, and always at the end; ``keep`` of them stay.

    on_error: what follows where one cannot be written, e.g. to a full disk: stop, or warn and train on. The last one
    has to be written all the same.
    """

    every_steps: PositiveInt | None = None  # once per epoch
    every_s: PositiveFloat | None = 900.0  # what a dead node costs at most; null: never for the time alone
    on_error: Literal["stop", "warn"] = "stop"
    keep: PositiveInt = 2  # how many of them stay


class RunConfig(Section):
    """Where the run lives: ``directory``, or ``root``/<config name>-<fingerprint>; and how far it goes this time.

    stop_after_steps: save and stop there, as at a signal; the next start goes on.
    """

    directory: FilePath | None = None  # of this run; null: made from root
    root: FilePath = Path("runs")  # of runs without a directory of their own
    stop_after_steps: PositiveInt | None = None


# What a setting, or what stands for one here, is called in other trainers.
_CALLED_ELSEWHERE = {
    "schedule.base_learning_rate": "lr learning_rate base_lr max_lr",
    "global_batch_size, of all GPUs together": "batch_size bs total_batch_size",
    "objective.projector.output_width": "embedding_dim embedding_size projection_dim proj_dim out_dim z_dim",
    "objective.projector.hidden_width": "hidden_dim proj_hidden_dim projection_hidden_dim",
    "encoder.architecture": "backbone arch network model base_encoder",
    "data.workers, threads of a rank": "num_workers workers dataloader_workers",
    "objective.temperature": "tau temp t",
    "optimizer.weight_decay": "wd",
    "no setting: torchrun --nproc-per-node N": "gpus num_gpus devices nproc world_size",
    "run.directory": "name run_name experiment output_dir save_dir run.name",
    "data.directory": "data_path data_dir root",
    "schedule.scaling": "schedule.rule",
    "schedule.warmup_epochs": "warmup warmup_steps num_warmup_epochs",
    "epochs": "num_epochs max_epochs n_epochs",
    "precision.autocast=bf16": "amp fp16 bf16 mixed_precision",
    "augmentation.crop_size_px": "image_size img_size crop_size resolution",
    "objective.name": "loss method algorithm",
    "optimizer.name": "opt",
    "objective.momentum": "ema ema_decay moving_average_decay",
    "objective.negatives": "num_negatives n_negatives queue_size",
    "batch.micro_batch_size": "accumulate_grad_batches grad_accum accum_steps",
    "sync_batch_norm": "syncbn sync_bn sync_batchnorm",
    "checkpoint.every_steps": "save_every save_freq",
    "log.every_steps": "log_every print_freq",
    "no setting: the same command again resumes": "resume resume_from_checkpoint",
    "seed": "random_seed manual_seed",
}
KNOWN_AS: dict[str, str] = {name: ours for ours, names in _CALLED_ELSEWHERE.items() for name in names.split()}


class PretrainConfig(Section):
    """Everything a pretraining run needs to know."""

    known_as: ClassVar[Mapping[str, str]] = KNOWN_AS

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # of everything random: weights, order, augmentation
    global_batch_size: Annotated[int, Field(ge=2)] = 256  # images of a step, of all ranks together
    epochs: Annotated[int, Field(ge=0)] = 100  # 0: the randomly initialised encoder
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    # Ranks that share batch norm's moments: all, those of a node, so many, or each its own ("off"). With any but
    # "global" the result depends on the number of ranks.
    sync_batch_norm: Literal["global", "node", "off"] | PositiveInt = "global"
    batch_norm_library: Literal["bigbatch", "torch", "apex"] = "bigbatch"  # torch and apex: CUDA only
    batch: BatchConfig = BatchConfig()
    data: DataConfig = DataConfig()
    augmentation: AugmentationConfig = AugmentationConfig()
    encoder: AnyEncoderConfig = EncoderConfig()  # what turns images into features
    objective: ObjectiveConfig = SimCLRConfig()  # what is learnt; each kind has settings of its own
    optimizer: OptimizerConfig = LARSConfig()  # what moves the weights
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
    "augmentation.flavour": "torchvision",
    "precision.skip_nonfinite_steps": 0,
    "schedule.decay": "cosine",
    "schedule.steps_at": [0.6, 0.8],
}


def result_settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings that the run's result depends on, in one form for equal meanings, as plain JSON values."""
    settings = config.model_dump(mode="json")
    for section, names in _SPEED_ONLY.items():
        target = settings[section] if section else settings
        for name in names:
            del target[name]
    if "/" in config.data.dataset:  # a folder of images, wherever it lies
        settings["data"]["dataset"] = "imagefolder"
    settings["objective"] = config.objective.canonical(config.global_batch_size).model_dump(mode="json")
    scaling = settings["schedule"].pop("scaling")  # under its earlier name and value, as in every fingerprint so far
    settings["schedule"]["rule"] = "constant" if scaling == "none" else scaling
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
