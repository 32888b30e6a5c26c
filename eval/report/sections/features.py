"""The feature space: alignment, uniformity, rank, and t-SNE pictures coloured by class."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.evaluations import Found
from eval.report.figures.model import Figure, Series
from eval.report.format import count, many, plain
from eval.report.records import PointRecord
from eval.report.sections.base import Cell, Picture, Section, Table, cell
from eval.report.sections.curves import curve, curve_panels
from eval.schema import FeatureRow, TsneResult, finite

# t-SNE pictures of the runs, made small enough to lie inside the page.


SIDE_PX = 900
COLOURS = 96  # of the palette: points of ten classes on white need no more
BUDGET_BYTES = 600_000  # all pictures together


def feature_pictures(
    shown: Sequence[tuple[str, PointRecord, FeatureRow, TsneResult]],
) -> tuple[tuple[Picture, ...], int]:
    """(newest picture of each setting's first seed, number of others). ``shown``: setting, run, row, result."""
    newest: dict[str, tuple[PointRecord, FeatureRow, TsneResult]] = {}
    total = 0
    for setting, record, row, result in shown:
        if row.picture is None:
            continue
        total += 1
        if setting not in newest or record is newest[setting][0]:
            newest[setting] = (record, row, result)
    found, used = [], 0
    for setting, (record, row, result) in newest.items():
        png = _small(Path(result.directory or "") / Path(row.picture or "").name)
        if png is None or used + len(png) > BUDGET_BYTES:
            continue
        used += len(png)
        what = f"t-SNE of the features of {setting}, seed {record.point.seed}, step {count(row.step)}"
        name = f"tsne_{re.sub(r'[^a-z0-9]+', '_', setting.lower()).strip('_')[:60]}"
        found.append(Picture(name, setting, f"{what}, coloured by class", png))
    return tuple(found), total - len(found)


def _small(path: Path) -> bytes | None:
    """The picture with fewer pixels and colours; None where there is none, or it is damaged."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            flat = image.convert("RGB")
    except (OSError, ValueError, SyntaxError):
        return None
    flat.thumbnail((SIDE_PX, SIDE_PX))
    file = io.BytesIO()
    flat.quantize(COLOURS, dither=Image.Dither.NONE).save(file, format="PNG", optimize=True)
    return file.getvalue()


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
        if isinstance(result, TsneResult)
        for row in result.rows
    ]
    if not shown:
        return None
    rows = []
    for setting, record, row, _ in shown:
        epoch, step = row.epoch, finite(row.step)
        cells = [cell(setting), cell(str(record.point.seed), record.point.seed)]
        cells += [Cell(plain(epoch, 1), epoch), Cell(plain(step, 0), step)]
        values = (getattr(row, key) for key, _ in NUMBERS)
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


def _figures(shown: list[tuple[str, int, FeatureRow]]) -> tuple[Figure, ...]:
    """A panel for each number, a line for each run with several checkpoints."""
    panels = []
    for key, label in NUMBERS:
        lines: dict[tuple[str, int], list[tuple[Any, Any]]] = {}
        for setting, seed, row in shown:
            x = row.step if row.epoch is None else row.epoch
            lines.setdefault((setting, seed), []).append((x, getattr(row, key)))
        drawn: list[Series] = [
            curve(pairs, f"{s}, seed {seed}", i) for i, ((s, seed), pairs) in enumerate(lines.items())
        ]
        drawn = [line for line in drawn if len(line.marks) > 1]
        panels += curve_panels({label: drawn}, label, percent=False) if drawn else []
    description = "Alignment, uniformity and rank of the features by epoch"
    return (Figure("features", description, tuple(panels), 3),) if panels else ()
