"""The schema of an evaluation. Torch-free: the launcher names the result of a probe without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from pretrain.config import FilePath, PositiveFloat, PositiveInt, Section, fingerprint
from pretrain.configio import apply_overrides, read_yaml, validate
from pretrain.errors import ConfigError, Problem, did_you_mean

TASKS = ("linear", "knn")

# Half decades; the mean cross-entropy is penalised by l2/2 * |W|^2.
DEFAULT_L2 = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)

OpenFraction = Annotated[float, Field(gt=0, lt=1)]


class FeatureConfig(Section):
    """Which images of which splits, and how they pass through the frozen encoder.

    ``directory``, ``train_split`` and ``size_px`` are those of the run itself where they are null.
    """

    directory: FilePath | None = None
    train_split: str | None = None
    test_split: str = "test"
    train_images: PositiveInt | None = None  # use only this many, a fixed subset of the split
    size_px: Annotated[int, Field(ge=8)] | None = None  # side of the central crop
    batch_size: PositiveInt = 500  # images per forward pass: speed only
    device: Literal["auto", "cpu", "cuda"] = "auto"
    cache: bool = True  # keep the features below the run's directory
    allow_unfinished: bool = False  # evaluate the newest checkpoint of a run that has no result

    @model_validator(mode="after")
    def _two_splits(self) -> FeatureConfig:
        if self.train_split == self.test_split:
            raise ValueError(f"train_split and test_split are both '{self.test_split}', wanted two different splits")
        return self


class NeighbourSettings(Section):
    """Weighted k-nearest-neighbours by cosine (Wu et al. 2018, section 3.4), and a plain vote of fewer beside it."""

    neighbours: PositiveInt = 200
    temperature: PositiveFloat = 0.07
    plain_neighbours: PositiveInt = 5


class LinearConfig(FeatureConfig):
    """Multinomial logistic regression on frozen features; its L2 is chosen on a part of the training set."""

    l2: Annotated[tuple[PositiveFloat, ...], Field(strict=False, min_length=1)] = DEFAULT_L2
    held_out_fraction: OpenFraction = 0.1
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0  # of the held-out part
    standardize: bool = True  # each feature to mean 0 and variance 1 over the training images
    max_iterations: PositiveInt = 300
    tolerance: PositiveFloat = 1e-7  # stop this close to the minimum, in nats per image
    knn: bool = True  # report k-nearest-neighbours on the same features
    neighbours: NeighbourSettings = NeighbourSettings()


class KnnConfig(FeatureConfig):
    """k-nearest-neighbours alone: nothing is trained."""

    neighbours: NeighbourSettings = NeighbourSettings()


# What changes the speed of an evaluation, or what is kept of it, but not its result.
_SPEED_ONLY = ("batch_size", "device", "cache", "allow_unfinished")


def evaluation_config(task: str, overrides: Sequence[str]) -> BaseModel:
    """Configuration of ``task`` from ``key=value`` overrides; ``config=FILE`` reads a YAML file before all others.

    Raises ConfigError where the task does not exist or a setting is wrong.
    """
    files = [text.removeprefix("config=") for text in overrides if text.startswith("config=")]
    others = [text for text in overrides if not text.startswith("config=")]
    if len(files) > 1:
        raise ConfigError("command line", [Problem("config", f"got {len(files)} files, wanted one")])
    base = read_yaml(Path(files[0])) if files else {}
    source = files[0] if files and not others else f"eval {task}"
    return validate(_schema(task), apply_overrides(base, others), source)


def evaluation_fingerprint(task: str, config: BaseModel) -> str:
    """Equal for two evaluations of one checkpoint exactly when their settings mean the same result."""
    return fingerprint({"task": task, **result_settings(config)})


def result_settings(config: BaseModel) -> dict[str, Any]:
    """The settings that the result depends on, as plain JSON values."""
    settings = config.model_dump(mode="json")
    if settings.get("knn") is False:
        del settings["neighbours"]
    if "l2" in settings:
        settings["l2"] = sorted(set(settings["l2"]), reverse=True)
    return {name: value for name, value in settings.items() if name not in _SPEED_ONLY}


def _schema(task: str) -> type[LinearConfig] | type[KnnConfig]:
    match task:
        case "linear":
            return LinearConfig
        case "knn":
            return KnnConfig
        case _:
            wanted = f"wanted one of {', '.join(TASKS)}{did_you_mean(task, TASKS)}"
            raise ConfigError("command line", [Problem("task", f"got '{task}', {wanted}")])
