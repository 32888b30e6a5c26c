"""Numbers as a person reads them. None, and whatever is not finite, is a dash and never a number."""

from __future__ import annotations

from typing import Any

from pretrain.config import OBJECTIVE_LABELS, OPTIMIZER_LABELS
from pretrain.data.sources.registry import SOURCES
from pretrain.format import DASH as DASH
from pretrain.format import duration as duration
from pretrain.format import number

MINUS = "\N{MINUS SIGN}"


def percent(value: float | None, digits: int = 2) -> str:
    """``83.12 %``, or a dash."""
    text = plain(value, digits)
    return text if text == DASH else f"{text} %"


def plain(value: float | None, digits: int = 2) -> str:
    """``83.12``, or a dash."""
    return number(value, f".{digits}f").replace("-", MINUS)


def signed(value: float) -> str:
    """``+0.31`` or ``−0.31``."""
    return number(value, "+.2f").replace("-", MINUS)


def count(value: float | None) -> str:
    """``1,234``, or a dash."""
    return number(value, ",.0f")


def setting(value: Any) -> str:
    """A configuration value: ``64``, ``0.075``, ``all``, ``simclr``."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return number(value, "g")
    if isinstance(value, dict):
        return str(value.get("name", "…"))
    if isinstance(value, list | tuple):
        return "–".join(setting(item) for item in value)
    return str(value)


def listed(items: list[str]) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def lower(text: str) -> str:
    """Without its capital, unless it is an abbreviation."""
    return text if text[:2].isupper() else text[:1].lower() + text[1:]


def without_unit(label: str) -> str:
    """``Batch size`` of ``Batch size (images)``."""
    return label.partition(" (")[0]


def interval(ends: tuple[float, float] | None) -> str:
    """``81.20 – 82.90``, or a dash."""
    return DASH if ends is None else f" {DASH} ".join(map(plain, ends))


def size(number_of_bytes: float | None) -> str:
    """``2.6 MiB``, ``11.4 GiB``, or a dash."""
    for unit, factor in (("GiB", 2**30), ("MiB", 2**20)):
        if number_of_bytes is not None and number_of_bytes >= factor:
            return f"{number_of_bytes / factor:,.1f} {unit}"
    return DASH if number_of_bytes is None else f"{number_of_bytes / 2**10:,.0f} KiB"


# What configuration values are called in print.
METHODS = OBJECTIVE_LABELS
DATASETS = {name: source.label for name, source in SOURCES.items() if source.label}
ENCODERS = {f"resnet{depth}": f"ResNet-{depth}" for depth in (18, 34, 50, 101)} | {"convnet4": "four convolutions"}
QUANTITIES = {
    "global_batch_size": "Batch size (images)",
    "negatives_per_anchor": "Negatives per anchor",
    "batch_norm_images": "Images per batch-norm statistic",
    "epochs": "Epochs",
    "schedule.base_learning_rate": "Base learning rate",
    "schedule.rule": "Learning-rate rule",  # of earlier runs
    "schedule.scaling": "Learning-rate rule",
    "schedule.decay": "Learning-rate decay",
    "schedule.warmup_epochs": "Warm-up epochs",
    "objective.name": "Objective",
    "objective.temperature": "Temperature",
    "objective.negatives": "Images that are each other's negatives",
    "encoder.architecture": "Encoder",
    "sync_batch_norm": "Batch norm over ranks",
    "data.images": "Training images",
}
BRIEF = {"global_batch_size": "batch size", "base_learning_rate": "base LR", "rule": "LR rule", "scaling": "LR rule"}


def quantity(key: str) -> str:
    """Axis label of a dotted configuration key: ``Batch size (images)``, ``Projector layers``."""
    return QUANTITIES.get(key) or _words(key, parts=2).capitalize()


def brief(key: str) -> str:
    """The key in a legend: ``batch size``, ``epochs``, ``projector layers``."""
    last = key.rpartition(".")[2]
    return BRIEF.get(last) or _words(key, parts=2 if last in ("name", "layers", "width", "images") else 1)


def named(value: str) -> str:
    """Print name of a value that has one: ``SimCLR`` for simclr."""
    for names in (METHODS, OPTIMIZER_LABELS, DATASETS, ENCODERS):
        if value in names:
            return names[value]
    return value


def _words(key: str, *, parts: int) -> str:
    return " ".join(key.split(".")[-parts:]).replace("_", " ")
