"""What results say, as types, and the one rule by which they are read. Torch-free.

    read_run_result(run, fingerprint)        the run's own result.json
    read_evaluation(path, training)          one evaluation of that run
    read_evaluations(run, training)          all of them

The rule: a result is a run's when it says that it measured this run (by fingerprint), at its last step, after the run
had finished. Anything else is refused, with the reason; what is missing is None. Whether the encoder was the trained
one, `EvaluationResult.initialisation` says: an evaluation of the random encoder is never the run's accuracy.

Accuracies are in percent, losses mean cross-entropies in nats, learning rates base rates. A number that could not be
had, or is not finite, is None; nothing becomes 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from eval.lenient import Count, Matrix, Number, Numbers, Pair
from eval.lenient import Refused as Refused
from eval.lenient import finite as finite
from pretrain.rundir import RunDirectory, read_json

VERSION = 1  # of the format; results without one were written before there was one, and are read alike


class Record(BaseModel):
    """Base of all: unknown keys are kept aside, so that a later version's result can still be read."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunResult(Record):
    """result.json of a finished run, which `pretrain.train` writes."""

    version: int = 0
    fingerprint: str
    total_steps: int
    epochs: Number = None
    images_seen: Count = None
    train_seconds: Number = None
    images_per_second: Number = None
    world_size: Count = None
    sync_batch_norm_seconds_per_step: Number = None
    loss_seconds_per_step: Number = None
    peak_memory_bytes: Count = None
    final: dict[str, Number] = {}  # the last row of metrics.jsonl
    restarts: Count = None


class EvaluatedRun(Record):
    """Which run an evaluation measured, and how far that was then."""

    fingerprint: str
    step: int
    finished: bool
    checkpoint: str | None = None


class EvaluationData(Record):
    """The images."""

    directory: str | None = None
    train_split: str | None = None
    test_split: str | None = None
    size_px: Count = None
    class_names: tuple[str, ...] | None = None
    train_images: Count = None
    test_images: Count = None
    classes: Count = None
    features: Count = None


class Classifier(Record):
    """How well a classifier tells the test images apart."""

    top1: Number = None
    top1_interval: Pair = None  # Wilson, 95 %
    top5: Number = None  # None up to 5 classes
    per_class_mean: Number = None
    per_class: Numbers = None
    test_loss: Number = None
    train_top1: Number = None
    train_loss: Number = None
    confusion: Matrix = None  # [class][guess]; None above 100 classes


class Curves(Record):
    """An entry each epoch. The test columns are a record; nothing is chosen by them."""

    epoch: Numbers = None
    train_loss: Numbers = None
    train_top1: Numbers = None
    test_loss: Numbers = None
    test_top1: Numbers = None


class Choice(Record):
    """Settings that were chosen on held-out training images, out of ``grid``.

    held_out_top1: what the chosen ones reached there; by it, never by the test set, is anything else chosen too.
    """

    hyperparameters: dict[str, Any] = {}
    held_out_top1: Number = None
    grid: tuple[dict[str, Any], ...] = ()  # a row each: the settings, held_out, held_out_loss, train_loss, ...
    converged: bool | None = None
    l2: Number = None


class EvaluationResult(Record):
    """What every evaluation's result says beside its own numbers."""

    version: int = 0
    task: str
    fingerprint: str  # of the evaluation's settings
    run: EvaluatedRun
    data: EvaluationData = EvaluationData()
    settings: dict[str, Any] = {}
    inputs: dict[str, str] = {}  # files beside the run that it depends on: SHA-256
    seconds: dict[str, Number] = {}
    directory: Path | None = None  # where it lies; known to the reader

    @property
    def initialisation(self) -> Literal["pretrained", "random"]:
        """Whether the encoder was the trained one, or its weights before the first step."""
        return "random" if self.settings.get("initialisation") == "random" else "pretrained"


class Neighbours(Record):
    """Accuracy of k-nearest-neighbours, weighted and by a plain vote, and how many voted in each."""

    knn_top1: Number = None
    knn_plain_top1: Number = None
    knn_neighbours: Count = None
    knn_plain_neighbours: Count = None


class LinearResult(EvaluationResult, Classifier, Choice, Neighbours):
    """A linear classifier on frozen features; nearest neighbours on the same features."""

    protocol: str = "lbfgs"
    iterations: Count = None
    learning_rate: Number = None
    weight_decay: Number = None
    epochs: Count = None
    batch_size: Count = None
    augmented: bool | None = None
    heads: Count = None
    curves: Curves | None = None
    reported: str | None = None


class KnnResult(EvaluationResult, Neighbours):
    """Nearest neighbours alone."""


class FinetuneRow(Classifier, Choice):
    """One cell of the table: a method, an initialisation, a share of the labels."""

    name: str  # random | supervised | linear | fine-tuned
    method: str = ""
    initialisation: str = ""
    label_fraction: Number = None
    images: Count = None
    epochs: Count = None
    curves: Curves | None = None
    reported: str | None = None


class FinetuneResult(EvaluationResult):
    """Fine-tuning beside a linear classifier and training from scratch."""

    rows: tuple[FinetuneRow, ...] = ()
    reported: str | None = None


class TransferRow(Classifier, Choice):
    """One other data set."""

    name: str
    directory: str | None = None
    train_images: Count = None
    test_images: Count = None
    classes: Count = None
    class_names: tuple[str, ...] | None = None
    validation: str | None = None


class TransferResult(EvaluationResult):
    """Logistic regression on features of other data sets."""

    rows: tuple[TransferRow, ...] = ()
    mean_top1: Number = None
    mean_per_class: Number = None


class FeatureRow(Record):
    """The feature space of one checkpoint; ``picture`` and ``points`` are files beside the result."""

    step: Count = None
    checkpoint: str | None = None
    epoch: Number = None
    alignment: Number = None
    uniformity: Number = None
    rankme: Number = None
    effective_rank: Number = None
    features: Count = None
    images: Count = None
    kl_divergence: Number = None
    picture: str | None = None
    points: str | None = None


class TsneResult(EvaluationResult):
    """The feature space at each checkpoint."""

    rows: tuple[FeatureRow, ...] = ()
    alignment: Number = None  # of the newest row, as are the others
    uniformity: Number = None
    rankme: Number = None
    effective_rank: Number = None


class Network(Classifier):
    """A student, its teacher, or the student taught by the labels alone."""

    architecture: str | None = None
    width: Number = None
    parameters: Count = None
    label_fraction: Number = None
    images: Count = None
    epochs: Count = None
    file: str | None = None


class DistillResult(EvaluationResult):
    """A fine-tuned teacher into a student."""

    student: Network
    teacher: Network
    labels_only: Network | None = None
    agreement: Number = None
    temperature: Number = None
    images: Count = None
    epochs: Count = None
    curves: Curves | None = None  # train_top1: agreement with the teacher
    reported: str | None = None


class ExportResult(EvaluationResult):
    """The encoder in files; nothing is measured."""

    files: dict[str, dict[str, Any]] = {}
    parameters: Count = None
    torchvision: str | None = None
    torchvision_reason: str | None = None
    numbers: dict[str, dict[str, Any]] = {}


class OtherResult(EvaluationResult, Classifier):
    """Of an evaluation that this project does not ship; its own numbers are in ``own``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    @property
    def own(self) -> dict[str, Any]:
        """What only this evaluation says."""
        return dict(self.model_extra or {})


RESULTS: dict[str, type[EvaluationResult]] = {
    "linear": LinearResult,
    "knn": KnnResult,
    "finetune": FinetuneResult,
    "transfer": TransferResult,
    "tsne": TsneResult,
    "distill": DistillResult,
    "export": ExportResult,
}


def parse_result(content: Mapping[str, Any], directory: Path | None = None) -> EvaluationResult:
    """The result of an evaluation by its task. Raises ValueError where it is not one."""
    kind = RESULTS.get(str(content.get("task")), OtherResult)
    try:
        return kind.model_validate({**content, "directory": directory})
    except ValidationError as error:
        raise ValueError(_first_problem(error)) from None


def read_run_result(run: RunDirectory, fingerprint: str) -> RunResult | Refused | None:
    """What the finished run ``fingerprint`` says of itself; None where it has not finished."""
    content = _read(run.result)
    if not isinstance(content, dict):
        return content
    if (given := content.get("fingerprint", fingerprint)) != fingerprint:
        why = f"is the result of run {given}, another run than {fingerprint}; move it away"
        return Refused(run.result, why, damaged=True)
    try:
        return RunResult.model_validate(content)
    except ValidationError as error:
        return Refused(run.result, f"is damaged: {_first_problem(error)}", damaged=True)


def read_evaluation(path: Path, training: RunResult, *, step: int | None = None) -> EvaluationResult | Refused | None:
    """The evaluation of the run ``training`` in ``path``; None where there is none.

    step: asks for the evaluation of this step, which need not be the last, of a run that may have gone on since.
    """
    content = _read(path)
    if not isinstance(content, dict):
        return content
    if not isinstance(content.get("run"), dict):
        return Refused(path, "does not say which run it measured; evaluate again")
    try:
        result = parse_result(content, path.parent)
    except ValueError as error:
        return Refused(path, f"is damaged: {error}", damaged=True)
    run = result.run
    if run.fingerprint != training.fingerprint:
        return Refused(path, f"measured run {run.fingerprint}, expected {training.fingerprint}; evaluate again")
    if run.step != (training.total_steps if step is None else step):
        expected = f"the last is {training.total_steps:,}" if step is None else f"expected {step:,}"
        return Refused(path, f"measured step {run.step:,}, {expected}; evaluate again")
    if not run.finished and step is None:
        return Refused(path, "was measured before its run had finished; evaluate again")
    return result


def read_evaluations(
    run: RunDirectory, training: RunResult, *, step: int | None = None
) -> tuple[tuple[EvaluationResult, ...], tuple[Refused, ...]]:
    """(evaluations of the run by the names of their directories, those that do not count)."""
    read = [read_evaluation(path, training, step=step) for path in sorted((run.path / "eval").glob("*/result.json"))]
    return (
        tuple(result for result in read if isinstance(result, EvaluationResult)),
        tuple(result for result in read if isinstance(result, Refused)),
    )


def _read(path: Path) -> dict[str, Any] | Refused | None:
    try:
        content = read_json(path)
    except FileNotFoundError:
        return None
    except (ValueError, OSError) as error:
        return Refused(path, str(error).removeprefix(f"{path} "), damaged=True)
    if not isinstance(content, dict):
        return Refused(path, f"is damaged: expected a mapping, got {type(content).__name__}", damaged=True)
    return content


def _first_problem(error: ValidationError) -> str:
    detail = error.errors()[0]
    where = ".".join(map(str, detail["loc"]))
    return f"{where}: {detail['msg']}"
