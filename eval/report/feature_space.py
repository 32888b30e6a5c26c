"""The feature space: alignment, uniformity, rank, and t-SNE pictures coloured by class."""

from __future__ import annotations

from typing import Any

from eval.report.collect import number
from eval.report.evaluations import Found, rows_of
from eval.report.panels import Figure, Series
from eval.report.pictures import feature_pictures
from eval.report.sections import Cell, Section, Table, cell
from eval.report.text import many, plain
from eval.report.training import curve, curve_panels

MOST_OPEN_ROWS = 12
NUMBERS = (
    ("alignment", "Alignment"),
    ("uniformity", "Uniformity"),
    ("rankme", "RankMe"),
    ("effective_rank", "Effective rank"),
)
EXPLANATION = (
    "Alignment: lower is closer positives. Uniformity: lower is more uniform. Ranks: at most the features' width."
)


def features_section(found: Found) -> Section | None:
    """Numbers by checkpoint, their curves where there are several, and the pictures."""
    shown = [
        (setting, record, row, result)
        for setting, record, result in found
        if result.get("task") == "tsne"
        for row in rows_of(result)
    ]
    if not shown:
        return None
    rows = []
    for setting, record, row, _ in shown:
        epoch, step = number(row.get("epoch")), number(row.get("step"))
        cells = [cell(setting), cell(str(record.point.seed), record.point.seed)]
        cells += [Cell(plain(epoch, 1), epoch), Cell(plain(step, 0), step)]
        values = (number(row.get(key)) for key, _ in NUMBERS)
        rows.append((*cells, *(Cell(plain(value), value) for value in values)))
    pictures, left_out = feature_pictures(shown)
    headers = ("Setting", "Seed", "Epoch", "Step", *(label for _, label in NUMBERS))
    more = (f"{many(left_out, 'more picture')} beside the runs' results.",) if left_out else ()
    return Section(
        anchor="features",
        title="The feature space",
        figures=_figures([(setting, record.point.seed, row) for setting, record, row, _ in shown]),
        pictures=pictures,
        tables=(Table("Numbers", headers, tuple(rows), folded=len(rows) > MOST_OPEN_ROWS),),
        notes=(EXPLANATION, *more),
    )


def _figures(shown: list[tuple[str, int, dict[str, Any]]]) -> tuple[Figure, ...]:
    """A panel for each number, a line for each run with several checkpoints."""
    panels = []
    for key, label in NUMBERS:
        lines: dict[tuple[str, int], list[tuple[Any, Any]]] = {}
        for setting, seed, row in shown:
            lines.setdefault((setting, seed), []).append((row.get("epoch", row.get("step")), row.get(key)))
        drawn: list[Series] = [
            curve(pairs, f"{s}, seed {seed}", i) for i, ((s, seed), pairs) in enumerate(lines.items())
        ]
        drawn = [line for line in drawn if len(line.marks) > 1]
        panels += curve_panels({label: drawn}, label, percent=False) if drawn else []
    description = "Alignment, uniformity and rank of the features by epoch"
    return (Figure("features", description, tuple(panels), 3),) if panels else ()
