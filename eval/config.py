"""The schema of an evaluation. Torch-free: the launcher names the result of a probe without importing torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from pretrain.choices import load_object, settings_class
from pretrain.config import EncoderConfig, fingerprint
from pretrain.configio import (
    FilePath,
    Interval,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    Section,
    apply_overrides,
    find_config,
    read_yaml,
    validate,
)
from pretrain.errors import ConfigError, Problem, did_you_mean

# Half decades; the mean cross-entropy is penalised by l2/2 * |W|^2.
DEFAULT_L2 = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5, 3e-6)

# Forty-five values over eleven decades, as transfer evaluations choose from (Kornblith et al. 2019).
WIDE_L2 = tuple(float(f"{10 ** (2 - quarter / 4):.1e}") for quarter in range(45))

OpenFraction = Annotated[float, Field(gt=0, lt=1)]
LabelFraction = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Several = Field(strict=False, min_length=1)  # a list in YAML, with something in it
Initialisation = Literal["pretrained", "random"]


class FeatureConfig(Section):
    """An evaluation: its settings, and what the commands must know of it. Base of every one, yours included.

    The settings here say which images of which splits are used, and how they pass through the frozen encoder;
    ``directory``, ``train_split`` and ``size_px`` are those of the run itself where they are null.

    One of your own needs no change here: ``bigbatch eval my_package.my_module:Sharpness RUN_DIR threshold=0.2``, or
    ``task: my_package.my_module:Sharpness`` among a study's probes, with

        class Sharpness(FeatureConfig):
            help: ClassVar[str] = "how sharply the features tell neighbours apart"
            threshold: float = 0.1

            def evaluate(self, subject):                 # subject: eval.subject.Subject
                train, test, classes = subject.features()
                return subject.write({"top1": ...}, data={"test_images": len(test.x_ND)})
    """

    help: ClassVar[str] = ""  # one line for --help
    label: ClassVar[str] = ""  # in print; the task's name where it says enough
    classifies: ClassVar[bool] = True  # learns from labels of one split what it tests on another
    shared: ClassVar[bool] = False  # several ranks may do it together: see `eval.evaluate`
    runs: ClassVar[str] = ""  # package.module:function that does it, imported when it is needed
    revision: ClassVar[int] = 1  # raised where the same settings come to mean other numbers

    directory: FilePath | None = None  # of the images; null: the run's own
    train_split: str | None = None  # null: the run's own
    test_split: str = "test"  # read once, at the end
    train_images: PositiveInt | None = None  # use only this many, a fixed subset of the split
    size_px: Annotated[int, Field(ge=8)] | None = None  # side of the central crop
    batch_size: PositiveInt = 500  # images per forward pass: speed only
    workers: PositiveInt | None = None  # threads that make images; null: one on a CPU, all cores beside a GPU
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: a GPU where there is one
    cache: bool = True  # keep the features below the run's directory
    allow_unfinished: bool = False  # evaluate the newest checkpoint of a run that has no result

    def evaluate(self, subject: Any) -> dict[str, Any]:
        """Do the evaluation of an `eval.subject.Subject` and return its result, which the subject makes and writes."""
        result: dict[str, Any] = load_object(self.runs)(subject, self)
        return result

    @property
    def trains_on_images(self) -> bool:
        """Whether all ranks do all of it together; else they share the extraction of features alone."""
        return False

    @model_validator(mode="after")
    def _two_splits(self) -> FeatureConfig:
        if self.train_split == self.test_split:
            raise ValueError(f"train_split and test_split are both '{self.test_split}', expected two different splits")
        return self


class ProbeConfig(FeatureConfig):
    """An evaluation of one encoder. ``random``: its weights before the first step, for comparison."""

    initialisation: Initialisation = "pretrained"  # random: the weights ahead of the first step


class NeighbourSettings(Section):
    """Weighted k-nearest-neighbours by cosine (Wu et al. 2018, section 3.4), and a plain vote of fewer beside it."""

    neighbours: PositiveInt = 200  # that vote, weighted
    temperature: PositiveFloat = 0.07  # of their weights
    plain_neighbours: PositiveInt = 5  # that vote alike


class SgdSettings(Section):
    """SimCLR's linear evaluation: Nesterov momentum, cosine, learning rates times batch_size / 256.

    With several learning rates or weight decays all are trained in one pass, and a held-out part chooses.
    """

    learning_rates: Annotated[tuple[PositiveFloat, ...], Several] = (0.1,)  # base rates, times batch_size / 256
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Several] = (0.0,)  # a grid with learning_rates
    epochs: PositiveInt = 90  # passes over the training images
    batch_size: PositiveInt = 256  # images of a step
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Nesterov's
    # random crop and flip, through the encoder every epoch; false: the same features every epoch
    augmented: bool = True
    crop_area: Interval | None = None  # as fractions of the image's; null: the run's own
    standardize: bool = False  # each feature to mean 0 and variance 1; SimCLR takes them as they are


class LinearConfig(ProbeConfig):
    """A linear classifier on frozen features; its hyper-parameters are chosen on a part of the training set.

    protocol: ``lbfgs`` minimises the L2-regularised multinomial logistic loss exactly; ``sgd`` is SimCLR's.
    """

    help: ClassVar[str] = "logistic regression on frozen features, its L2 chosen without the test set"
    label: ClassVar[str] = "Linear probe"
    shared: ClassVar[bool] = True
    runs: ClassVar[str] = "eval.tasks.probe:evaluate_linear"
    revision: ClassVar[int] = 2

    protocol: Literal["lbfgs", "sgd"] = "lbfgs"
    sgd: SgdSettings = SgdSettings()  # of that protocol
    l2: Annotated[tuple[PositiveFloat, ...], Several] = DEFAULT_L2  # of lbfgs
    held_out_fraction: OpenFraction = 0.1  # of the training images: chooses among the grid
    seed: Seed = 0  # of the held-out part
    standardize: bool = True  # each feature to mean 0 and variance 1 over the training images
    max_iterations: PositiveInt = 1000  # of L-BFGS, for each penalty
    gradient_tolerance: PositiveFloat = 3e-7  # stop where no component of the gradient is larger
    knn: bool = True  # report k-nearest-neighbours on the same features
    neighbours: NeighbourSettings = NeighbourSettings()

    @property
    def trains_on_images(self) -> bool:
        """SimCLR's protocol passes augmented images through the encoder in every epoch."""
        return self.protocol == "sgd" and self.sgd.augmented


class KnnConfig(ProbeConfig):
    """k-nearest-neighbours alone: nothing is trained."""

    help: ClassVar[str] = "k-nearest-neighbours on frozen features"
    label: ClassVar[str] = "Nearest neighbours"
    shared: ClassVar[bool] = True
    runs: ClassVar[str] = "eval.tasks.probe:evaluate_knn"
    revision: ClassVar[int] = 2

    neighbours: NeighbourSettings = NeighbourSettings()


class TrainingSettings(Section):
    """How a whole network is trained on images: random crop and flip, Nesterov momentum, cosine without warm-up.

    Learning rates are base rates, multiplied by batch_size / 256 (SimCLR). The batch is as small as the images are few.
    """

    batch_size: PositiveInt = 256  # images of a step, at most
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # Nesterov's
    crop_area: Interval | None = None  # as fractions of the image's; null: the run's own
    autocast: Literal["off", "bf16"] = "off"  # bf16: faster on GPUs
    test_every_epochs: Annotated[int, Field(ge=0)] = 5  # for the curves alone; 0: after the last epoch only


class FinetuneConfig(FeatureConfig):
    """The encoder trained further with few or all labels, beside a linear classifier on it and training from scratch.

    One result with a row for each of initialisations x methods x label_fractions. Every list of learning rates and
    weight decays is a grid, whose best is chosen on a held-out part of the labelled images; the last epoch is reported.
    """

    help: ClassVar[str] = "random, supervised, linear, fine-tuned with few and all labels: one table"
    shared: ClassVar[bool] = True
    runs: ClassVar[str] = "eval.tasks.finetune:evaluate_finetune"
    revision: ClassVar[int] = 2

    label_fractions: Annotated[tuple[LabelFraction, ...], Several] = (0.01, 0.1, 1.0)  # equally many of each class
    # Rows: weights ahead of the first step, or trained ones.
    # Rows: weights ahead of the first step, or trained ones.
    initialisations: Annotated[tuple[Initialisation, ...], Several] = ("random", "pretrained")
    # Rows: a classifier alone, or the whole network.
    # Rows: a classifier alone, or the whole network.
    methods: Annotated[tuple[Literal["linear", "finetune"], ...], Several] = ("linear", "finetune")
    epochs: PositiveInt | None = None  # SimCLR's: 60 below a tenth of the labels, 30 from there on
    encoder_learning_rates: Annotated[tuple[NonNegativeFloat, ...], Several] = (0.05,)  # grid of base rates
    head_learning_rates: Annotated[tuple[PositiveFloat, ...], Several] = (0.05,)  # grid of base rates
    weight_decays: Annotated[tuple[NonNegativeFloat, ...], Several] = (0.0,)  # grid
    training: TrainingSettings = TrainingSettings()
    l2: Annotated[tuple[PositiveFloat, ...], Several] = DEFAULT_L2  # of the linear rows, which L-BFGS fits
    held_out_fraction: OpenFraction = 0.1  # of the labelled images: chooses among the grids
    seed: Seed = 0  # of the labelled images, the held-out part, the order, the augmentation and new weights
    keep_networks: bool = True  # the fine-tuned networks beside the result: teachers for distillation

    def epochs_for(self, label_fraction: float) -> int:
        """Epochs over so large a part of the labels."""
        return self.epochs or (60 if label_fraction < 0.1 else 30)

    @property
    def trains_on_images(self) -> bool:
        return True


class TransferConfig(ProbeConfig):
    """Logistic regression on the encoder's features of other data sets, each in a directory of its own.

    train_split and test_split are theirs ("train" where null). validation_split: chooses the L2 and is then fitted too;
    null: a held-out part of the training images does. train_images: of each data set.
    """

    help: ClassVar[str] = "logistic regression on features of other data sets"
    shared: ClassVar[bool] = True
    runs: ClassVar[str] = "eval.tasks.transfer:evaluate_transfer"
    revision: ClassVar[int] = 2

    directories: Annotated[tuple[FilePath, ...], Several]  # of the other data sets
    validation_split: str | None = None
    l2: Annotated[tuple[PositiveFloat, ...], Several] = WIDE_L2  # grid of penalties
    held_out_fraction: OpenFraction = 0.1  # chooses among the grid
    seed: Seed = 0  # of the held-out part
    standardize: bool = True  # each feature to mean 0 and variance 1
    max_iterations: PositiveInt = 1000  # of L-BFGS
    gradient_tolerance: PositiveFloat = 3e-7  # stop where no component of the gradient is larger

    @model_validator(mode="after")
    def _directories(self) -> TransferConfig:
        if self.directory is not None:
            raise ValueError("directory is of the run's own data; expected directories, those of the other data sets")
        if self.validation_split in (self.train_split or "train", self.test_split):
            raise ValueError(
                f"validation_split is '{self.validation_split}', as another split is; expected a third one"
            )
        return self


class TsneConfig(ProbeConfig):
    """A picture of the features of test images, and how they lie on the sphere; no classifier is trained."""

    help: ClassVar[str] = "a picture of the features, alignment, uniformity, RankMe and effective rank"
    classifies: ClassVar[bool] = False
    runs: ClassVar[str] = "eval.tasks.tsne:evaluate_tsne"

    checkpoints: Literal["newest", "all"] = "newest"  # that the run kept
    images: Annotated[int, Field(ge=2)] = 2000  # of the test split, a fixed subset
    perplexity: Annotated[float, Field(gt=1)] = 30.0  # effective number of neighbours (van der Maaten & Hinton 2008)
    seed: Seed = 0  # of the picture, and of the views that alignment compares


class DistillConfig(FeatureConfig):
    """A fine-tuned teacher into a student, on images without their labels (SimCLRv2).

    teacher: a file that `eval finetune` kept; null: the one that this run's encoder became with ``label_fraction``.
    student: its encoder; null: the teacher's at half the width. train_images: how many images it learns from.
    """

    help: ClassVar[str] = "a fine-tuned teacher into a smaller student, without labels"
    shared: ClassVar[bool] = True
    runs: ClassVar[str] = "eval.tasks.distill:evaluate_distill"

    teacher: FilePath | None = None
    label_fraction: LabelFraction = 0.1  # with which the teacher was fine-tuned
    student: EncoderConfig | None = None
    temperature: PositiveFloat = 1.0  # of the teacher's probabilities
    epochs: PositiveInt = 100  # passes over the images
    learning_rate: PositiveFloat = 0.1  # base rate, times training.batch_size / 256
    weight_decay: NonNegativeFloat = 0.0  # of the student
    training: TrainingSettings = TrainingSettings()
    labels_only: bool = True  # the same student from the teacher's labels alone, for comparison
    seed: Seed = 0  # of the order, the augmentation and the student's first weights

    @property
    def trains_on_images(self) -> bool:
        return True


class ExportConfig(FeatureConfig):
    """The encoder as safetensors with a model card: nothing is measured."""

    help: ClassVar[str] = "the encoder as safetensors, with a model card"
    classifies: ClassVar[bool] = False
    runs: ClassVar[str] = "eval.tasks.export:evaluate_export"


# A new evaluation is its settings above, a line here, and the file that `runs` names.
EVALUATIONS: dict[str, type[FeatureConfig]] = {
    "linear": LinearConfig,
    "knn": KnnConfig,
    "transfer": TransferConfig,
    "tsne": TsneConfig,
    "distill": DistillConfig,
    "export": ExportConfig,
    "finetune": FinetuneConfig,
}

_OF_LBFGS = ("l2", "standardize", "max_iterations", "gradient_tolerance")
# What changes the speed of an evaluation, or what is kept of it, but not its result.
_SPEED_ONLY = ("batch_size", "workers", "device", "cache", "allow_unfinished")
# Settings that came later: left out where they say what was always so, so that earlier results keep their names.
_AS_ALWAYS: dict[str, Any] = {"initialisation": "pretrained", "protocol": "lbfgs"}


def evaluation_config(task: str, overrides: Sequence[str]) -> FeatureConfig:
    """Configuration of ``task`` from ``key=value`` overrides; ``config=FILE`` reads a YAML file before all others.

    Raises ConfigError where the task does not exist or a setting is wrong.
    """
    files = [text.removeprefix("config=") for text in overrides if text.startswith("config=")]
    others = [text for text in overrides if not text.startswith("config=")]
    if len(files) > 1:
        raise ConfigError("command line", [Problem("config", f"got {len(files)} files, expected one")])
    base = read_yaml(find_config("eval", Path(files[0]))) if files else {}
    source = files[0] if files and not others else f"eval {task}"
    return validate(evaluation_class(task), apply_overrides(base, others), source, others)


def evaluation_fingerprint(task: str, config: BaseModel) -> str:
    """Equal for two evaluations of one checkpoint exactly when their settings mean the same result."""
    revision = getattr(config, "revision", 1)
    revised = {"revision": revision} if revision > 1 else {}
    return fingerprint({"task": task, **revised, **result_settings(config)})


def result_settings(config: BaseModel) -> dict[str, Any]:
    """The settings that the result depends on, as plain JSON values."""
    settings = config.model_dump(mode="json")
    if settings.get("knn") is False:
        del settings["neighbours"]
    if isinstance(config, LinearConfig):
        unused = ("sgd",) if config.protocol == "lbfgs" else _OF_LBFGS
        settings = {name: value for name, value in settings.items() if name not in unused}
    if "l2" in settings:
        settings["l2"] = sorted(set(settings["l2"]), reverse=True)
    for name, value in _AS_ALWAYS.items():
        if settings.get(name) == value:
            del settings[name]
    return {name: value for name, value in settings.items() if name not in _SPEED_ONLY}


def evaluation_class(task: str) -> type[FeatureConfig]:
    """Settings of a task: ours by its name, anybody's own by ``package.module:Class``.

    Raises ConfigError where there is no such task.
    """
    if task in EVALUATIONS:
        return EVALUATIONS[task]
    if ":" not in task:
        known = f"{', '.join(EVALUATIONS)}, or package.module:Class of your own"
        message = f"got '{task}', expected one of {known}{did_you_mean(task, EVALUATIONS)}"
        raise ConfigError("command line", [Problem("task", message)])
    try:
        found = settings_class(task, FeatureConfig)
    except ValueError as error:
        raise ConfigError("command line", [Problem("task", str(error))]) from error
    assert issubclass(found, FeatureConfig), "settings_class has looked"
    return found
