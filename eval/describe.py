"""A result as a table for a person. Torch-free."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

# Whether a chosen setting lies at the edge of the grid that it was chosen from: beyond it may be a better one.


NAMES = {"l2": "L2", "weight_decay": "weight decay"}


class Edge(NamedTuple):
    """A chosen setting, and where nothing was tried: ``smaller`` or ``larger`` values."""

    setting: str
    value: float
    untried: str

    def describe(self) -> str:
        """``L2 0.0001 is the smallest of the grid``."""
        return f"{name_of(self.setting)} {self.value:g} is the {self.untried.removesuffix('r')}st of the grid"


def name_of(setting: str) -> str:
    """What a setting is called in print."""
    return NAMES.get(setting, setting.replace("_", " "))


def edges_of(measured: Mapping[str, Any]) -> list[Edge]:
    """The chosen hyper-parameters of a result (or of a row of one) that are the smallest or largest tried.

    One that had no alternative is not among them, nor is 0, which nothing is smaller than.
    """
    grid = [row for row in measured.get("grid") or [] if isinstance(row, Mapping)]
    found = []
    for setting, value in (measured.get("hyperparameters") or {}).items():
        tried = {row[setting] for row in grid if isinstance(row.get(setting), int | float)}
        if len(tried) < 2 or not isinstance(value, int | float):
            continue
        if value == min(tried) and value > 0:
            found.append(Edge(setting, float(value), "smaller"))
        elif value == max(tried):
            found.append(Edge(setting, float(value), "larger"))
    return found


Row = tuple[str, str]


def describe(result: Mapping[str, Any]) -> str:
    """Table for a person, one line per number."""
    rows = [*_own(result), *_common(result)]
    width = max(20, *(len(name) + 2 for name, _ in rows))
    return "\n".join(f"  {name:<{width}}{value}" for name, value in rows)


def _own(result: Mapping[str, Any]) -> list[Row]:
    """What only this task has."""
    match result.get("task"):
        case "export":
            return _export(result)
        case "transfer":
            return _transfer(result)
        case "tsne":
            return _tsne(result["rows"])
        case "distill":
            return _distill(result)
        case "finetune":
            return _finetune(result["rows"])
        case _:
            return _probe(result)


def describe_numbers(measured: Mapping[str, Any]) -> str:
    """The numbers of one result in one line."""
    texts = []
    for name, text in _NUMBERS.items():
        if isinstance(measured.get(name), int | float):
            texts.append(f"{text.format(measured[name])}")
    return ", ".join(texts) or "see its result.json"


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


def _export(result: Mapping[str, Any]) -> list[Row]:
    rows = [(name, f"{file['bytes']:,} bytes") for name, file in result["files"].items()]
    rows.append(("parameters", f"{result['parameters']:,}"))
    loads = f"loads into torchvision.models.{result['torchvision']}" if result["torchvision"] else "not torchvision's: "
    return [*rows, ("torchvision", loads + (result["torchvision_reason"] or ""))]


def _common(result: Mapping[str, Any]) -> list[Row]:
    data, run = result["data"], result["run"]
    rows = []
    if data.get("train_images") is not None:
        images = f"{data['train_images']:,} to fit, {data['test_images']:,} to test, {data['size_px']} px"
        rows.append(("images", images))
    elif data.get("test_images") is not None:
        rows.append(("images", f"{data['test_images']:,} of {data['test_split']}, {data['size_px']} px"))
    step = f"step {run['step']:,}" + ("" if run["finished"] else " of a run that has not finished")
    rows.append(("checkpoint", step))
    rows.append(("seconds", "  ".join(f"{name} {value:.1f}" for name, value in result["seconds"].items())))
    return rows


def _probe(result: Mapping[str, Any]) -> list[Row]:
    rows = _classifier(result)
    if result.get("knn_top1") is not None:
        settings = result["settings"]["neighbours"]
        many, few = settings["neighbours"], settings["plain_neighbours"]
        value = f"{result['knn_top1']:.2f} % (k = {many}, weighted)  {result['knn_plain_top1']:.2f} % (k = {few})"
        rows.append(("nearest neighbours", value))
    if result.get("l2") is not None:
        tried = ", ".join(_l2(row) for row in result["grid"])
        rows.append(("L2, by held-out", f"{result['l2']:g} out of {tried}"))
    if result.get("protocol") == "sgd":
        rows.append(("learning rate, decay", _chosen(result)))
    return [*rows, *_edges(result)]


def _edges(measured: Mapping[str, Any]) -> list[Row]:
    return [("beyond the grid", f"{edge.describe()}: try {edge.untried} ones") for edge in edges_of(measured)]


def _chosen(result: Mapping[str, Any]) -> str:
    grid = result["grid"]
    chosen = f"{result['learning_rate']:g}, {result['weight_decay']:g}"
    if not grid:
        return f"{chosen} (nothing to choose)"
    reached = [row["held_out"] for row in grid if row["held_out"] is not None]
    return f"{chosen} out of {len(grid)} by held-out: {min(reached):.2f} to {max(reached):.2f} %"


def _classifier(numbers: Mapping[str, Any]) -> list[Row]:
    rows = []
    if numbers.get("top1") is not None:
        low, high = numbers["top1_interval"]
        rows.append(("top-1", f"{numbers['top1']:.2f} %  (95 % of the test set's noise: {low:.2f} to {high:.2f})"))
    if numbers.get("top5") is not None:
        rows.append(("top-5", f"{numbers['top5']:.2f} %"))
    if numbers.get("per_class_mean") is not None:
        rows.append(("mean over classes", f"{numbers['per_class_mean']:.2f} %"))
    return rows


def _transfer(result: Mapping[str, Any]) -> list[Row]:
    rows = []
    for row in result["rows"]:
        numbers = f"top-1 {_with_interval(row)} %, mean over classes {row['per_class_mean']:.2f} %, L2 {row['l2']:g}"
        rows += [(row["name"], f"{numbers}, {row['train_images']:,} images"), *_edges(row)]
    return [*rows, ("mean of top-1", f"{result['mean_top1']:.2f} %")]


def _tsne(measured: Sequence[Mapping[str, Any]]) -> list[Row]:
    rows = []
    for row in measured:
        sphere = f"alignment {row['alignment']:.3f}, uniformity {row['uniformity']:.3f}"
        ranks = f"RankMe {row['rankme']:.1f} and effective rank {row['effective_rank']:.1f} of {row['features']}"
        rows.append((f"step {row['step']:,}", f"{sphere}, {ranks}, {row['picture']}"))
    return rows


def _distill(result: Mapping[str, Any]) -> list[Row]:
    student, teacher, alone = result["student"], result["teacher"], result["labels_only"]
    shape = f"{student['architecture']} of width {student['width']:g}"
    labels = f", {100 * teacher['label_fraction']:g} % of the labels" if "label_fraction" in teacher else ""
    rows = [
        ("teacher", f"top-1 {teacher['top1']:.2f} %, {teacher['parameters']:,} parameters{labels}"),
        ("student", f"top-1 {_with_interval(student)} %, {student['parameters']:,} parameters, {shape}"),
        ("agreement", f"{result['agreement']:.2f} % of the test images"),
    ]
    if alone is not None:
        rows.append(("student, labels only", f"top-1 {_with_interval(alone)} %, {alone['images']:,} labelled images"))
    return rows


def _finetune(measured: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One line per method, one column per share of the labels."""
    names = list(dict.fromkeys(row["name"] for row in measured))
    fractions = sorted({row["label_fraction"] for row in measured})
    cells = {(row["name"], row["label_fraction"]): row for row in measured}
    labels = {row["label_fraction"]: row["images"] for row in measured}
    head = "".join(f"{_share(fraction, labels[fraction]):>24}" for fraction in fractions)
    rows = [("labelled images", head)]
    for name in names:
        line = ""
        for fraction in fractions:
            row = cells.get((name, fraction))
            line += f"{_with_interval(row) if row else '':>24}"
        rows.append((f"{name}, top-1 in %", line))
    edges = Counter(edge.describe() for row in measured for edge in edges_of(row))
    for text, number in edges.items():
        rows.append(("beyond the grid", f"{text}, in {number} of {len(measured)} rows"))
    return rows


def _share(fraction: float, images: int) -> str:
    return f"{100 * fraction:g} %: {images:,}"


def _with_interval(row: Mapping[str, Any]) -> str:
    low, high = row["top1_interval"]
    return f"{row['top1']:.2f} ({low:.2f} – {high:.2f})"


def _l2(row: Mapping[str, Any]) -> str:
    return f"{row['l2']:g}: {row['held_out']:.2f} %" + ("" if row["converged"] else " (not converged)")
