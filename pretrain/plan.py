"""Every number that follows from the configuration, in one place, printed before the first step. Torch-free."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.errors import ConfigError, Problem
from pretrain.objectives.settings import LossBatch, divisor_problems
from pretrain.optim.config import learning_rate, lr_at

# Batch norm over fewer images than this is too noisy to be meant.
FEWEST_IMAGES_OF_A_STATISTIC = 32


@dataclass(frozen=True)
class TrainPlan:
    """Derived numbers of one run on one number of ranks.

    Only ``world_size``, ``batch_size_per_rank``, ``batch_norm_ranks`` and ``loss_bytes_per_rank`` depend on the ranks;
    ``batch_norm_images`` does where the ranks do not all share batch norm's statistics.
    """

    fingerprint: str
    world_size: int
    global_batch_size: int
    batch_size_per_rank: int
    micro_batches: int
    batch_norm_ranks: int
    batch_norm_images: int
    images: int
    images_dropped_per_epoch: int
    steps_per_epoch: int
    total_steps: int
    stop_step: int
    warmup_steps: int
    peak_learning_rate: float
    negatives_per_anchor: int
    feature_width: int
    loss_bytes_per_rank: int
    checkpoint_every_steps: int
    data: str | None = None  # checksum of the images and labels, where they have been written
    decay: Literal["cosine", "linear", "steps", "none"] = "cosine"
    steps_at: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()  # of the objective

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, batch within that epoch) of the step after ``step`` finished ones."""
        return divmod(step, self.steps_per_epoch)

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the step after ``step`` finished ones."""
        return lr_at(
            step,
            peak=self.peak_learning_rate,
            warmup_steps=self.warmup_steps,
            total_steps=self.total_steps,
            decay=self.decay,
            steps_at=self.steps_at,
        )

    def describe(self) -> str:
        """Table for a person, one line per number."""
        size = f"{self.loss_bytes_per_rank / 2**20:.1f} MiB"
        rows = [
            ("global batch", f"{self.global_batch_size} images = {self.world_size} ranks x {self.batch_size_per_rank}"),
            ("batch norm sees", self._batch_norm()),
            ("images", f"{self.images:,} ({self.images_dropped_per_epoch} dropped at the end of each epoch)"),
            ("steps", f"{self.total_steps:,} ({self.steps_per_epoch:,} per epoch), {self.warmup_steps:,} of warm-up"),
            ("peak learning rate", f"{self.peak_learning_rate:.6g}, {self._decay()}"),
            ("negatives per anchor", f"{self.negatives_per_anchor:,}" if self.negatives_per_anchor else "none"),
            ("features", f"{self.feature_width}"),
            ("memory of the loss", f"{size} per rank"),
            *(("objective", note) for note in self.notes),
            ("fingerprint", self.fingerprint),
        ]
        lines = [f"  {name:<22}{value}" for name, value in rows]
        return "\n".join([*lines, *(f"  warning: {warning}" for warning in self.warnings())])

    def _decay(self) -> str:
        match self.decay:
            case "none":
                return "constant after the warm-up"
            case "steps":
                return f"a tenth from {', '.join(f'{share:.0%}' for share in self.steps_at)} of the steps on, each"
            case _:
                return f"{self.decay} to 0"

    def _batch_norm(self) -> str:
        images = f"{self.batch_norm_images:,} images at a time"
        if self.batch_norm_ranks == self.world_size:
            return images
        each = "each rank's own" if self.batch_norm_ranks == 1 else f"{self.batch_norm_ranks} ranks together"
        return f"{images} ({each}: the result depends on the number of ranks)"

    def warnings(self) -> list[str]:
        """What can be run and is probably not meant."""
        if self.batch_norm_images >= FEWEST_IMAGES_OF_A_STATISTIC:
            return []
        return [
            f"batch norm's statistics rest on {self.batch_norm_images} images, fewer than "
            f"{FEWEST_IMAGES_OF_A_STATISTIC}: expected a larger batch.micro_batch_size, fewer ranks, or more ranks "
            "that share statistics (sync_batch_norm)"
        ]


def epochs_to_steps(epochs: float, steps_per_epoch: int) -> int:
    """The one place where epochs become steps; rounds to the nearest step."""
    return round(epochs * steps_per_epoch)


def loss_batch(config: PretrainConfig, world_size: int, global_batch_size: int | None = None) -> LossBatch:
    """What the loss of a step works on; by default of the configured batch. ``device: auto`` is planned as a GPU."""
    device = "cpu" if config.device == "cpu" else "cuda"
    return LossBatch(global_batch_size or config.global_batch_size, world_size, config.encoder.feature_width, device)


def batch_norm_ranks(setting: str | int, *, world_size: int, ranks_per_node: int) -> int:
    """How many neighbouring ranks share batch norm's statistics under the setting ``sync_batch_norm``."""
    match setting:
        case "global":
            return world_size
        case "node":
            return min(ranks_per_node, world_size)
        case "off":
            return 1
        case _:
            return int(setting)


def make_plan(
    config: PretrainConfig,
    *,
    images: int,
    world_size: int,
    ranks_per_node: int | None = None,
    source: str = "configuration",
    data: str | None = None,
) -> TrainPlan:
    """Plan of ``config`` on ``world_size`` ranks with ``images`` images in its split.

    ranks_per_node: None stands for one node. data: checksum of what the split holds.
    Raises ConfigError with everything that cannot be run, and the nearest values that could be.
    """
    norm_ranks = batch_norm_ranks(
        config.sync_batch_norm, world_size=world_size, ranks_per_node=ranks_per_node or world_size
    )
    problems = _problems(config, images=images, world_size=world_size) + _batch_norm_problems(norm_ranks, world_size)
    if problems:
        raise ConfigError(source, problems)
    used = min(config.data.images or images, images)
    batch, schedule = config.global_batch_size, config.schedule
    steps_per_epoch = used // batch
    micro_batch = config.batch.micro_batch_size or batch
    total_steps = epochs_to_steps(config.epochs, steps_per_epoch)
    return TrainPlan(
        fingerprint=run_fingerprint(config),
        world_size=world_size,
        global_batch_size=batch,
        batch_size_per_rank=batch // world_size,
        micro_batches=batch // micro_batch,
        batch_norm_ranks=norm_ranks,
        batch_norm_images=micro_batch // world_size * norm_ranks,
        images=used,
        images_dropped_per_epoch=used - steps_per_epoch * batch,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
        stop_step=min(total_steps, config.run.stop_after_steps or total_steps),
        warmup_steps=epochs_to_steps(schedule.warmup_epochs, steps_per_epoch) if config.epochs else 0,
        peak_learning_rate=learning_rate(schedule.scaling, schedule.base_learning_rate, batch),
        negatives_per_anchor=config.objective.negatives_per_anchor(batch),
        feature_width=config.encoder.feature_width,
        loss_bytes_per_rank=config.objective.loss_bytes(loss_batch(config, world_size)),
        checkpoint_every_steps=config.checkpoint.every_steps or steps_per_epoch,
        data=data,
        decay=schedule.decay,
        steps_at=schedule.steps_at,
        notes=config.objective.notes(),
    )


def _problems(config: PretrainConfig, *, images: int, world_size: int) -> list[Problem]:
    problems: list[Problem] = []
    batch = config.global_batch_size
    if world_size < 1:
        problems.append(Problem("ranks", f"got {world_size}, expected at least 1"))
    elif batch % world_size:
        near = " or ".join(str(value) for value in _nearest_multiples(batch, world_size))
        problems.append(
            Problem("global_batch_size", f"got {batch}, not a multiple of {world_size} ranks; nearest: {near}")
        )
    if config.data.images is not None and config.data.images > images:
        problems.append(Problem("data.images", f"got {config.data.images}, but the split has {images}"))
    used = min(config.data.images or images, images)
    if used < batch:
        problems.append(Problem("global_batch_size", f"got {batch}, more than the {used} images"))
    if config.epochs and config.schedule.warmup_epochs > config.epochs:
        problems.append(
            Problem(
                "schedule.warmup_epochs",
                f"got {config.schedule.warmup_epochs:g}, longer than the {config.epochs} epochs of training; "
                f"expected at most {config.epochs}",
            )
        )
    problems += _micro_batch_problems(config.batch.micro_batch_size, batch, world_size)
    views = config.augmentation.number_of_views
    problems += config.objective.problems(global_batch_size=batch, number_of_views=views)
    return problems


def _batch_norm_problems(norm_ranks: int, world_size: int) -> list[Problem]:
    if world_size < 1 or world_size % norm_ranks == 0:
        return []
    valid = ", ".join(str(size) for size in range(1, world_size + 1) if world_size % size == 0)
    message = f"got {norm_ranks} ranks that share statistics, which does not divide {world_size} ranks; valid: {valid}"
    return [Problem("sync_batch_norm", message)]


def _micro_batch_problems(size: int | None, batch: int, world_size: int) -> list[Problem]:
    where = "batch.micro_batch_size"
    if size is not None and world_size > 0 and size % world_size:
        near = " or ".join(map(str, _nearest_multiples(size, world_size)))
        return [Problem(where, f"got {size}, not a multiple of {world_size} ranks; nearest: {near}")]
    return divisor_problems(where, size, batch)


def _nearest_multiples(value: int, of: int) -> list[int]:
    below = value // of * of
    return [candidate for candidate in (below, below + of) if candidate > 0]
