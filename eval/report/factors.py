"""From a question's points to its figures: every axis of its grid gets one, without being asked for by name.

A factor is a setting that varies on its own. The question's figure has its own factor across, its lines as lines, a
panel for each value of whatever else varies, and each of the other factors gets a figure in which it goes across.
Points that differ in anything but the seed never fall into one mean.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eval.report.figures.model import ScaleName, tick_label
from eval.report.format import brief, lower, named, quantity, setting, without_unit
from eval.report.records import StudyRecord
from eval.study_manifest import Question

Spot = tuple[str, float, str]  # (line, x, point): one point may stand at several places of a question
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

    def text(self, index: int) -> str:
        """``epochs = 100``, ``LR rule = sqrt``."""
        if self.own_texts:
            return self.own_texts[index]
        return f"{brief(self.key)} = {self.level_text(index)}"

    def level_text(self, index: int) -> str:
        """``100``, ``sqrt``."""
        level = self.levels[index]
        return tick_label(level) if _is_number(level) else named(setting(level))


@dataclass(frozen=True)
class Place:
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
    categories: tuple[str, ...] = ()  # names of x = 0, 1, ... on an axis without numbers
    panels: tuple[str, ...] = ("",)
    curves: tuple[str, ...] = ("",)
    derived: bool = False  # not asked for by the study: another axis of a question's grid
    published: bool = False  # published curves over its axis belong beside it
    remarks: tuple[str, ...] = ()
    mark_best: bool = False  # ring the best mean of each line: it was looked for

    def x_text(self, x: float) -> str:
        """``4,096`` or the name of the category."""
        return self.categories[round(x)] if self.categories else tick_label(x)


def views(study: StudyRecord, question: Question) -> list[View]:
    """The question's own figure first, then one for each other factor of its grid."""
    factors = _factors(study, question)
    across = factors[0]
    if len(across.levels) == 1 and len(factors) > 1:  # it stands still: something else is the question
        factors = factors[1:]
        across = factors[0]
    found = [_view(study, question, across, factors)]
    for factor in factors:
        if factor is not across and not _asked_elsewhere(study, question, factor):
            found.append(_view(study, question, factor, factors, derived=True))
    return found


def main_view(study: StudyRecord, question: Question) -> View:
    """The question's own figure."""
    return views(study, question)[0]


def _view(
    study: StudyRecord, question: Question, across: Factor, factors: Sequence[Factor], *, derived: bool = False
) -> View:
    tuned = None
    others = [factor for factor in factors if factor is not across]
    if len(factors) > 1 and not _is_learning_rate(across):
        tuned = next((f for f in others if _is_learning_rate(f) and f is not factors[0]), None)
        others = [factor for factor in others if factor is not tuned]
    lines = next((factor for factor in others if len(factor.levels) <= MOST_LINES), None)
    rest = [factor for factor in others if factor is not lines]
    places = {
        spot: Place(
            ", ".join(factor.text(factor.level_of[spot]) for factor in rest),
            lines.text(lines.level_of[spot]) if lines else "",
            across.x(spot),
            spot[-1],
        )
        for spot in across.level_of
    }
    shown = set(places)
    remarks = list(_along(study, across, factors))
    if tuned is not None and any(len(f.levels) > 1 for f in (across, *others)):
        shown = _best(study, places, tuned)
        remarks.append(
            f"Each place is shown at its best {brief(tuned.key)} of {_listing(tuned)}, picked by the accuracy shown "
            f"here, so that levels lean upwards; {len(places) - len(shown)} other points are in the figure against it."
        )
    title = f"{question.title}, against {lower(without_unit(across.label))}" if derived else question.title
    return View(
        name=f"{question.name}-{_slug(across.key)}" if derived else question.name,
        title=title,
        x_key=across.key,
        x_label=across.label,
        x_scale=across.scale,
        places=tuple(place for spot, place in places.items() if spot in shown),
        categories=tuple(across.level_text(i) for i in range(len(across.levels))) if across.scale == "category" else (),
        panels=_combinations(rest, {place.panel for place in places.values()}),
        curves=tuple(lines.text(i) for i in range(len(lines.levels))) if lines else ("",),
        derived=derived,
        published=question.published,
        remarks=tuple(remarks),
        mark_best=_is_learning_rate(across),
    )


def _factors(study: StudyRecord, question: Question) -> list[Factor]:
    """The question's own factor, its lines, then every other setting that these two do not determine."""
    spots: list[Spot] = [
        (curve.label, x, name)
        for curve in question.curves
        for x, name in zip(curve.x, curve.points)
        if name in study.points
    ]
    spots = list(dict.fromkeys(spots))
    levels = tuple(sorted({x for _, x, _ in spots}))
    categories = question.categories  # names of the places of an axis without numbers
    factors = [
        Factor(
            question.x_key,
            question.x_label,
            "category" if categories else question.x_scale,
            categories or levels,
            {spot: int(spot[1]) if categories else levels.index(spot[1]) for spot in spots},
        )
    ]
    labels = tuple(dict.fromkeys(curve for curve, _, _ in spots))
    varied = _varied(study, spots)
    if len(labels) > 1:
        prefix = labels[0].partition(" = ")[0]
        key = next((key for key in varied if key.rpartition(".")[2] == prefix), prefix or "curve")
        factors.append(_line_factor(key, spots, varied.get(key, {})))
    for key in sorted(varied, key=lambda key: key.rpartition(".")[2] not in ("name", "rule")):  # these lead others
        joint = {spot: tuple(f.level_of[spot] for f in factors) for spot in spots}
        if not _determined(varied[key], joint):
            factors.append(_factor(key, varied[key]))
    return factors


def _varied(study: StudyRecord, spots: Iterable[Spot]) -> dict[str, dict[Spot, Any]]:
    """Setting to spot to value, for every setting that is not the same at all of ``spots``."""
    spots = list(spots)
    keys = dict.fromkeys(key for spot in spots for key in study.points[spot[-1]].point.settings)
    found = {}
    for key in keys:
        values = {spot: study.value(study.points[spot[-1]], key) for spot in spots}
        if key.partition(".")[0] not in NO_FACTOR and len({repr(value) for value in values.values()}) > 1:
            found[key] = values
    return found


def _determined(values: dict[Spot, Any], by: dict[Spot, Any]) -> bool:
    """True where equal ``by`` means equal value."""
    seen: dict[Any, str] = {}
    return all(seen.setdefault(repr(by[spot]), repr(value)) == repr(value) for spot, value in values.items())


def _factor(key: str, values: dict[Spot, Any]) -> Factor:
    texts = {repr(value): value for value in values.values()}
    numbers = all(_is_number(value) for value in texts.values())
    order = sorted(texts, key=lambda text: texts[text]) if numbers else list(texts)
    levels = tuple(texts[text] for text in order)
    level_of = {spot: order.index(repr(value)) for spot, value in values.items()}
    return Factor(key, quantity(key), _scale(key, levels), levels, level_of)


def _line_factor(key: str, spots: Sequence[Spot], values: dict[Spot, Any]) -> Factor:
    """The study's own lines, with their labels; ordered, and with numbers, where the key is a known setting."""
    curves = {spot: spot[0] for spot in spots}
    labels = tuple(dict.fromkeys(curves.values()))
    if values and _determined(values, curves) and _determined(curves, values):
        factor = _factor(key, values)
        texts = {factor.level_of[spot]: _line_text(key, label) for spot, label in curves.items()}
        return replace(factor, own_texts=tuple(texts[index] for index in range(len(factor.levels))))
    levels = tuple(label.partition(" = ")[2] or label for label in labels)
    level_of = {spot: labels.index(label) for spot, label in curves.items()}
    return Factor(key, quantity(key), "category", levels, level_of, tuple(_line_text(key, label) for label in labels))


def _line_text(key: str, label: str) -> str:
    """``batch size = 64`` of the study's ``global_batch_size = 64``."""
    name, equals, value = label.partition(" = ")
    return f"{brief(key)} = {value}" if equals and name == key.rpartition(".")[2] else label


def _scale(key: str, levels: Sequence[Any]) -> ScaleName:
    if not all(_is_number(level) for level in levels):
        return "category"
    if min(levels) > 0 and max(levels) / min(levels) >= 4:
        return "log" if key.endswith("learning_rate") else "log2"
    return "linear"


def _best(study: StudyRecord, places: dict[Spot, Place], tuned: Factor) -> set[Spot]:
    """Of each place, the spots at the level of ``tuned`` with the highest mean; all where nothing is measured."""
    groups: dict[tuple[str, str, float], list[Spot]] = {}
    for spot, place in places.items():
        groups.setdefault((place.panel, place.curve, place.x), []).append(spot)
    kept: set[Spot] = set()
    for members in groups.values():
        values: dict[int, list[float]] = {}
        for spot in members:
            top1 = study.points[spot[-1]].top1
            if top1 is not None:
                values.setdefault(tuned.level_of[spot], []).append(top1)
        best = max(values, key=lambda level: sum(values[level]) / len(values[level]), default=None)
        kept |= {spot for spot in members if best is None or tuned.level_of[spot] == best}
    return kept


def _along(study: StudyRecord, across: Factor, factors: Sequence[Factor]) -> Iterable[str]:
    """What else changes together with the factor that goes across: its effect is theirs too."""
    own = {factor.key for factor in factors}
    if not any(across.key in r.point.settings or across.key in r.config for r in study.points.values()):
        return  # a number of the plan: it is set through other settings
    section = across.key.removesuffix("name") if across.key.endswith(".name") else None
    along = {
        key: values
        for key, values in _varied(study, across.level_of).items()
        if key not in own and _determined(values, across.level_of)
    }
    if section is not None and any(key.startswith(section) for key in along):
        yield f"Each {lower(without_unit(across.label))} comes with settings of its own, as the runs' commands tell."
    for key, values in along.items():
        if section is None or not key.startswith(section):
            pairs = {across.level_of[spot]: setting(value) for spot, value in values.items()}
            shown = ", ".join(f"{text} at {across.level_text(index)}" for index, text in sorted(pairs.items())[:6])
            yield f"Changes together with {lower(without_unit(across.label))}: {brief(key)} ({shown})."


def _asked_elsewhere(study: StudyRecord, question: Question, factor: Factor) -> bool:
    """True where another question of the study already goes across this factor over the same points."""
    mine = {name for _, _, name in factor.level_of}
    return any(
        other is not question
        and other.x_key == factor.key
        and mine <= {name for curve in other.curves for name in curve.points}
        for other in study.manifest.questions
    )


def _combinations(factors: Sequence[Factor], present: set[str]) -> tuple[str, ...]:
    """Labels of the panels, in the order of the factors' levels."""
    texts: list[list[str]] = [[factor.text(i) for i in range(len(factor.levels))] for factor in factors]
    every = [", ".join(parts) for parts in itertools.product(*texts)]
    return tuple(label for label in every if label in present) or ("",)


def _is_learning_rate(factor: Factor) -> bool:
    return factor.key.endswith("learning_rate") and len(factor.levels) > 1


def _listing(factor: Factor) -> str:
    return ", ".join(factor.level_text(index) for index in range(len(factor.levels)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _slug(key: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", key.rpartition(".")[2].lower()).strip("_")
