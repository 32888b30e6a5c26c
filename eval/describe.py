"""A result as a table for a person; whether a choice lies at the edge of its grid. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from eval.schema import (
    Choice,
    Classifier,
    DistillResult,
    EvaluationResult,
    ExportResult,
    FinetuneResult,
    FinetuneRow,
    KnnResult,
    LinearResult,
    OtherResult,
    TransferResult,
    TsneResult,
)
from pretrain.format import number

NAMES = {"l2": "L2", "weight_decay": "weight decay"}
Row = tuple[str, str]


class Edge(NamedTuple):
    """A chosen setting, and where nothing was tried beyond it: ``smaller`` or ``larger`` values."""

    setting: str
    value: float
    untried: str

    def describe(self) -> str:
        """``L2 0.0001 is the smallest of the grid``."""
        return f"{name_of(self.setting)} {self.value:g} is the {self.untried.removesuffix('r')}st of the grid"


def name_of(setting: str) -> str:
    """What a setting is called in print."""
    return NAMES.get(setting, setting.replace("_", " "))


def edges_of(choice: Choice) -> list[Edge]:
    """The chosen hyper-parameters of a result (or of a row of one) that are the smallest or largest tried.

    One that had no alternative is not among them, nor is 0, which nothing is smaller than.
    """
    found = []
    for setting, value in choice.hyperparameters.items():
        tried = {row[setting] for row in choice.grid if isinstance(row.get(setting), int | float)}
        if len(tried) < 2 or not isinstance(value, int | float):
            continue
        if value == min(tried) and value > 0:
            found.append(Edge(setting, float(value), "smaller"))
        elif value == max(tried):
            found.append(Edge(setting, float(value), "larger"))
    return found


def describe(result: EvaluationResult) -> str:
    """Table for a person, one line per number."""
    rows = [*_ROWS.get(type(result), _other)(result), *_common(result)]
    width = max(20, *(len(name) + 2 for name, _ in rows))
    return "\n".join(f"  {name:<{width}}{value}" for name, value in rows)


def describe_numbers(result: EvaluationResult) -> str:
    """The numbers of one result in one line."""
    values = ((text, getattr(result, name, None)) for name, text in _NUMBERS.items())
    return ", ".join(text.format(value) for text, value in values if value is not None) or "see its result.json"


_NUMBERS = {
    "top1": "top-1 {:.2f} %",
    "top5": "top-5 {:.2f} %",
    "per_class_mean": "mean over classes {:.2f} %",
    "knn_top1": "nearest neighbours {:.2f} %",
    "mean_top1": "mean top-1 over data sets {:.2f} %",
    "alignment": "alignment {:.3f}",
    "uniformity": "uniformity {:.3f}",
    "rankme": "RankMe {:.1f}",
}


def plain(value: float | None, digits: int = 2) -> str:
    """A number in print; a dash where it could not be had."""
    return number(value, f",.{digits}f")


def _common(result: EvaluationResult) -> list[Row]:
    data, run = result.data, result.run
    rows = []
    if data.train_images is not None:
        images = f"{data.train_images:,} to fit, {plain(data.test_images, 0)} to test, {data.size_px} px"
        rows.append(("images", images))
    elif data.test_images is not None:
        rows.append(("images", f"{data.test_images:,} of {data.test_split}, {data.size_px} px"))
    step = f"step {run.step:,}" + ("" if run.finished else " of a run that has not finished")
    rows.append(("checkpoint", step))
    rows.append(("seconds", "  ".join(f"{name} {plain(value, 1)}" for name, value in result.seconds.items())))
    return rows


def _linear(result: LinearResult) -> list[Row]:
    rows = [*_classifier(result), *_neighbours(result)]
    if result.l2 is not None:
        tried = ", ".join(_l2(row) for row in result.grid)
        rows.append(("L2, by held-out", f"{result.l2:g} out of {tried}"))
    if result.protocol == "sgd":
        rows.append(("learning rate, decay", _chosen(result)))
    return [*rows, *_edges(result)]


def _neighbours(result: LinearResult | KnnResult) -> list[Row]:
    if result.knn_top1 is None:
        return []
    asked = result.settings["neighbours"]
    many = result.knn_neighbours or asked["neighbours"]
    few = result.knn_plain_neighbours or asked["plain_neighbours"]
    bound = f"  (k = {asked['neighbours']} is more than the smallest class has)" if many < asked["neighbours"] else ""
    value = f"{result.knn_top1:.2f} % (k = {many}, weighted)  {plain(result.knn_plain_top1)} % (k = {few}){bound}"
    return [("nearest neighbours", value)]


def _edges(choice: Choice) -> list[Row]:
    return [("beyond the grid", f"{edge.describe()}: try {edge.untried} ones") for edge in edges_of(choice)]


def _chosen(result: LinearResult) -> str:
    chosen = f"{result.learning_rate:g}, {result.weight_decay:g}"
    if not result.grid:
        return f"{chosen} (nothing to choose)"
    reached = [row["held_out"] for row in result.grid if row["held_out"] is not None]
    return f"{chosen} out of {len(result.grid)} by held-out: {min(reached):.2f} to {max(reached):.2f} %"


def _classifier(numbers: Classifier) -> list[Row]:
    rows = []
    if numbers.top1 is not None:
        low, high = numbers.top1_interval or (None, None)
        noise = f"95 % of the test set's noise: {plain(low)} to {plain(high)}"
        rows.append(("top-1", f"{numbers.top1:.2f} %  ({noise})"))
    if numbers.top5 is not None:
        rows.append(("top-5", f"{numbers.top5:.2f} %"))
    if numbers.per_class_mean is not None:
        rows.append(("mean over classes", f"{numbers.per_class_mean:.2f} %"))
    return rows


def _transfer(result: TransferResult) -> list[Row]:
    rows = []
    for row in result.rows:
        l2 = "–" if row.l2 is None else f"{row.l2:g}"
        numbers = f"top-1 {_with_interval(row)} %, mean over classes {plain(row.per_class_mean)} %, L2 {l2}"
        rows += [(row.name, f"{numbers}, {plain(row.train_images, 0)} images"), *_edges(row)]
    return [*rows, ("mean of top-1", f"{plain(result.mean_top1)} %")]


def _tsne(result: TsneResult) -> list[Row]:
    rows = []
    for row in result.rows:
        sphere = f"alignment {plain(row.alignment, 3)}, uniformity {plain(row.uniformity, 3)}"
        effective = f"effective rank {plain(row.effective_rank, 1)} of {row.features}"
        ranks = f"RankMe {plain(row.rankme, 1)} and {effective}"
        rows.append((f"step {plain(row.step, 0)}", f"{sphere}, {ranks}, {row.picture}"))
    return rows


def _distill(result: DistillResult) -> list[Row]:
    student, teacher, alone = result.student, result.teacher, result.labels_only
    shape = f"{student.architecture} of width {student.width:g}"
    labels = "" if teacher.label_fraction is None else f", {100 * teacher.label_fraction:g} % of the labels"
    rows = [
        ("teacher", f"top-1 {plain(teacher.top1)} %, {plain(teacher.parameters, 0)} parameters{labels}"),
        ("student", f"top-1 {_with_interval(student)} %, {plain(student.parameters, 0)} parameters, {shape}"),
        ("agreement", f"{plain(result.agreement)} % of the test images"),
    ]
    if alone is not None:
        value = f"top-1 {_with_interval(alone)} %, {plain(alone.images, 0)} labelled images"
        rows.append(("student, labels only", value))
    return rows


def _finetune(result: FinetuneResult) -> list[Row]:
    """One line per method, one column per share of the labels."""
    measured = result.rows
    names = list(dict.fromkeys(row.name for row in measured))
    fractions = sorted({row.label_fraction for row in measured if row.label_fraction is not None})
    cells = {(row.name, row.label_fraction): row for row in measured}
    labels = {row.label_fraction: row.images for row in measured}
    head = "".join(f"{f'{100 * share:g} %: {plain(labels[share], 0)}':>24}" for share in fractions)
    rows = [("labelled images", head)]
    for name in names:
        found: Sequence[FinetuneRow | None] = [cells.get((name, fraction)) for fraction in fractions]
        rows.append((f"{name}, top-1 in %", "".join(f"{_with_interval(row) if row else '':>24}" for row in found)))
    edges = Counter(edge.describe() for row in measured for edge in edges_of(row))
    for text, count in edges.items():
        rows.append(("beyond the grid", f"{text}, in {count} of {len(measured)} rows"))
    return rows


def _export(result: ExportResult) -> list[Row]:
    rows = [(name, f"{file['bytes']:,} bytes") for name, file in result.files.items()]
    rows.append(("parameters", plain(result.parameters, 0)))
    loads = f"loads into torchvision.models.{result.torchvision}" if result.torchvision else "not torchvision's: "
    return [*rows, ("torchvision", loads + (result.torchvision_reason or ""))]


def _other(result: EvaluationResult) -> list[Row]:
    """Of an evaluation of somebody's own: its numbers as it calls them."""
    own = result.own if isinstance(result, OtherResult) else {}
    return [(name.replace("_", " "), str(value)) for name, value in own.items() if isinstance(value, int | float | str)]


def _with_interval(row: Classifier) -> str:
    if row.top1_interval is None:
        return plain(row.top1)
    return f"{plain(row.top1)} ({row.top1_interval[0]:.2f} – {row.top1_interval[1]:.2f})"


def _l2(row: dict[str, Any]) -> str:
    return f"{row['l2']:g}: {row['held_out']:.2f} %" + ("" if row["converged"] else " (not converged)")


_ROWS: dict[type[EvaluationResult], Callable[[Any], list[Row]]] = {
    LinearResult: _linear,
    KnnResult: _neighbours,
    FinetuneResult: _finetune,
    TransferResult: _transfer,
    TsneResult: _tsne,
    DistillResult: _distill,
    ExportResult: _export,
}
