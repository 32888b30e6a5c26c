"""From a question's points to its figures: every axis of its grid gets one, without being asked for by name.

A factor is a setting that varies on its own. The question's figure has its own factor across, its lines as lines, a
panel for each value of whatever else varies, and each of the other factors gets a figure in which it goes across.
Points that differ in anything but the seed never fall into one mean.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from eval.report.figures.model import ScaleName, tick_label
from eval.report.format import brief, lower, named, quantity, setting, without_unit
from eval.report.records import PointRecord, StudyRecord, grouped, mean
from eval.study_manifest import Question

Spot = tuple[str, float, str]  # (line, x, point): one point may stand at several places of a question
Criterion = Literal["held_out", "top1"]
MOST_LINES = 8  # as many as there are colours
NO_FACTOR = ("seed", "run", "log", "device")  # settings that change nothing of the result, by their first part


@dataclass(frozen=True)
class Factor:
    """A setting that varies on its own; ``level_of`` gives the index into ``levels`` at each spot."""

    key: str
    label: str
    scale: ScaleName
    levels: tuple[Any, ...]
    level_of: dict[Spot, int]
    own_texts: tuple[str, ...] = ()  # where somebody has already named the levels

    def x(self, spot: Spot) -> float:
        """Where the spot is on an axis of this factor."""
        index = self.level_of[spot]
        return float(index) if self.scale == "category" else float(self.levels[index])

    @property
    def texts(self) -> tuple[str, ...]:
        """``epochs = 100``, ``LR rule = sqrt``."""
        return self.own_texts or tuple(f"{brief(self.key)} = {level}" for level in self.level_texts)

    @property
    def level_texts(self) -> tuple[str, ...]:
        """``100``, ``sqrt``."""
        return tuple(tick_label(level) if _is_number(level) else named(setting(level)) for level in self.levels)

    @property
    def is_learning_rate(self) -> bool:
        return self.key.endswith("learning_rate") and len(self.levels) > 1


class Place(NamedTuple):
    """Where one point stands in a view."""

    panel: str
    curve: str
    x: float
    point: str


@dataclass(frozen=True)
class View:
    """One figure: accuracy against one factor, a line for each value of another, a panel for each of the rest."""

    name: str  # of its files and of its place on the page
    title: str
    x_key: str
    x_label: str
    x_scale: ScaleName
    places: tuple[Place, ...]
    categories: tuple[str, ...]  # names of x = 0, 1, ... on an axis without numbers
    panels: tuple[str, ...]
    curves: tuple[str, ...]
    derived: bool  # not asked for by the study: another axis of a question's grid
    published: bool  # published curves over its axis belong beside it
    remarks: tuple[str, ...]
    mark_best: bool  # ring the best mean of each line: it was looked for
    chosen_by: Criterion  # what is best

    def x_text(self, x: float) -> str:
        """``4,096`` or the name of the category."""
        return self.categories[round(x)] if self.categories else tick_label(x)


def views(study: StudyRecord, question: Question) -> list[View]:
    """The question's own figure first, then one for each other factor of its grid."""
    factors = _factors(study, question)
    if len(factors[0].levels) == 1 and len(factors) > 1:  # it stands still: something else is the question
        factors = factors[1:]
    others = [factor for factor in factors[1:] if not _asked_elsewhere(study, question, factor)]
    return [_view(study, question, across, factors) for across in (factors[0], *others)]


def _view(study: StudyRecord, question: Question, across: Factor, factors: Sequence[Factor]) -> View:
    derived = across is not factors[0]
    others = [factor for factor in factors if factor is not across]
    tuned = None if across.is_learning_rate else next((f for f in factors[1:] if f.is_learning_rate), None)
    others = [factor for factor in others if factor is not tuned]
    lines = next((factor for factor in others if len(factor.levels) <= MOST_LINES), None)
    rest = [factor for factor in others if factor is not lines]
    places = {
        spot: Place(
            ", ".join(factor.texts[factor.level_of[spot]] for factor in rest),
            lines.texts[lines.level_of[spot]] if lines else "",
            across.x(spot),
            spot[-1],
        )
        for spot in across.level_of
    }
    shown, remarks = set(places), list(_along(study, across, factors))
    chosen_by = _criterion(study.points[spot[-1]] for spot in places)
    if tuned is not None and any(len(f.levels) > 1 for f in (across, *others)):
        shown = _best(study, places, tuned, chosen_by)
        lean = (
            "held-out accuracy" if chosen_by == "held_out" else "the accuracy shown here, so that levels lean upwards"
        )
        remarks.append(
            f"Each place is shown at its best {brief(tuned.key)} of {', '.join(tuned.level_texts)}, picked by {lean}; "
            f"{len(places) - len(shown)} other points are in the figure against it."
        )
    present = {place.panel for place in places.values()}
    panels = (", ".join(parts) for parts in itertools.product(*(factor.texts for factor in rest)))
    against = f", against {lower(without_unit(across.label))}"
    return View(
        name=f"{question.name}-{_slug(across.key)}" if derived else question.name,
        title=question.title + (against if derived else ""),
        x_key=across.key,
        x_label=across.label,
        x_scale=across.scale,
        places=tuple(place for spot, place in places.items() if spot in shown),
        categories=across.level_texts if across.scale == "category" else (),
        panels=tuple(label for label in panels if label in present) or ("",),
        curves=lines.texts if lines else ("",),
        derived=derived,
        published=question.published,
        remarks=tuple(remarks),
        mark_best=across.is_learning_rate,
        chosen_by=chosen_by,
    )


def _factors(study: StudyRecord, question: Question) -> list[Factor]:
    """The question's own factor, its lines, then every other setting that these two do not determine."""
    pairs = ((curve.label, x, name) for curve in question.curves for x, name in zip(curve.x, curve.points))
    spots: list[Spot] = list(dict.fromkeys(spot for spot in pairs if spot[-1] in study.points))
    levels = tuple(sorted({x for _, x, _ in spots}))
    categories = question.categories  # names of the places of an axis without numbers
    level_of = {spot: int(spot[1]) if categories else levels.index(spot[1]) for spot in spots}
    scale: ScaleName = "category" if categories else question.x_scale
    factors = [Factor(question.x_key, question.x_label, scale, categories or levels, level_of)]
    labels = tuple(dict.fromkeys(curve for curve, _, _ in spots))
    varied = _varied(study, spots)
    if len(labels) > 1:
        prefix = labels[0].partition(" = ")[0]
        key = next((key for key in varied if key.rpartition(".")[2] == prefix), prefix or "curve")
        factors.append(_line_factor(key, labels, spots, varied.get(key, {})))
    leading = ("name", "rule", "scaling")  # others follow from these
    for key in sorted(varied, key=lambda key: key.rpartition(".")[2] not in leading):
        joint = {spot: tuple(f.level_of[spot] for f in factors) for spot in spots}
        if not _determined(varied[key], joint):
            factors.append(_factor(key, varied[key]))
    return factors


def _varied(study: StudyRecord, spots: Iterable[Spot]) -> dict[str, dict[Spot, Any]]:
    """Setting to spot to value, for every setting that is not the same at all of ``spots``."""
    records = {spot: study.points[spot[-1]] for spot in spots}
    keys = dict.fromkeys(key for record in records.values() for key in record.point.settings)
    found = {}
    for key in keys:
        values = {spot: study.value(record, key) for spot, record in records.items()}
        if key.partition(".")[0] not in NO_FACTOR and len({repr(value) for value in values.values()}) > 1:
            found[key] = values
    return found


def _determined(values: Mapping[Spot, Any], by: Mapping[Spot, Any]) -> bool:
    """True where equal ``by`` means equal value."""
    pairs = {(repr(by[spot]), repr(value)) for spot, value in values.items()}
    return len(pairs) == len({first for first, _ in pairs})


def _factor(key: str, values: Mapping[Spot, Any]) -> Factor:
    texts = {repr(value): value for value in values.values()}
    numbers = all(_is_number(value) for value in texts.values())
    order = sorted(texts, key=lambda text: texts[text]) if numbers else list(texts)
    levels = tuple(texts[text] for text in order)
    scale: ScaleName = "linear" if numbers else "category"
    if numbers and levels[0] > 0 and levels[-1] / levels[0] >= 4:
        scale = "log" if key.endswith("learning_rate") else "log2"
    return Factor(key, quantity(key), scale, levels, {spot: order.index(repr(value)) for spot, value in values.items()})


def _line_factor(key: str, labels: Sequence[str], spots: Sequence[Spot], values: Mapping[Spot, Any]) -> Factor:
    """The study's own lines, with their labels; ordered, and with numbers, where the key is a known setting."""
    curves = {spot: spot[0] for spot in spots}
    if values and _determined(values, curves) and _determined(curves, values):
        factor = _factor(key, values)
    else:
        level_of = {spot: labels.index(label) for spot, label in curves.items()}
        levels = tuple(label.partition(" = ")[2] or label for label in labels)
        factor = Factor(key, quantity(key), "category", levels, level_of)
    texts = {factor.level_of[spot]: _line_text(key, label) for spot, label in curves.items()}
    return replace(factor, own_texts=tuple(texts[index] for index in range(len(factor.levels))))


def _line_text(key: str, label: str) -> str:
    """``batch size = 64`` of the study's ``global_batch_size = 64``."""
    name, equals, value = label.partition(" = ")
    return f"{brief(key)} = {value}" if equals and name == key.rpartition(".")[2] else label


def _criterion(records: Iterable[PointRecord]) -> Criterion:
    """Held-out accuracy, where all that have been measured have it."""
    return "held_out" if all(r.top1 is None or r.held_out is not None for r in records) else "top1"


def _best(study: StudyRecord, places: Mapping[Spot, Place], tuned: Factor, chosen_by: Criterion) -> set[Spot]:
    """Of each place, the spots at the level of ``tuned`` with the highest mean; all where nothing is measured."""
    kept: set[Spot] = set()
    for members in grouped(places, lambda spot: places[spot][:-1]).values():
        levels = grouped(members, lambda spot: tuned.level_of[spot])
        means = {
            level: mean(getattr(study.points[spot[-1]], chosen_by) for spot in own) for level, own in levels.items()
        }
        known = {level: value for level, value in means.items() if value is not None}
        kept.update(levels[max(known, key=lambda level: known[level])] if known else members)
    return kept


def _along(study: StudyRecord, across: Factor, factors: Sequence[Factor]) -> Iterator[str]:
    """What else changes together with the factor that goes across: its effect is theirs too."""
    own = {factor.key for factor in factors}
    if not any(across.key in r.point.settings or across.key in r.config for r in study.points.values()):
        return  # a number of the plan: it is set through other settings
    label = lower(without_unit(across.label))
    varied = {key: values for key, values in _varied(study, across.level_of).items() if key not in own}
    along = {key: values for key, values in varied.items() if _determined(values, across.level_of)}
    section = across.key.removesuffix("name") if across.key.endswith(".name") else None
    inside = [key for key in along if section is not None and key.startswith(section)]
    if inside:
        yield f"Each {label} comes with settings of its own, as the runs' commands tell."
    for key, values in along.items():
        if key not in inside:
            pairs = {across.level_of[spot]: setting(value) for spot, value in values.items()}
            shown = ", ".join(f"{text} at {across.level_texts[index]}" for index, text in sorted(pairs.items())[:6])
            yield f"Changes together with {label}: {brief(key)} ({shown})."


def _asked_elsewhere(study: StudyRecord, question: Question, factor: Factor) -> bool:
    """True where another question of the study already goes across this factor over the same points."""
    mine = {name for _, _, name in factor.level_of}
    return any(
        other is not question
        and other.x_key == factor.key
        and mine <= {name for curve in other.curves for name in curve.points}
        for other in study.manifest.questions
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _slug(key: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", key.rpartition(".")[2].lower()).strip("_")
