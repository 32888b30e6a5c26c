"""The feature space: alignment, uniformity, rank, and t-SNE pictures coloured by class."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.report.figures.model import Figure
from eval.report.format import count, many, plain
from eval.report.sections.base import Cell, Picture, Section, Table, cell
from eval.report.sections.curves import curve, curve_panels
from eval.report.table import ReportData, Row, grouped
from eval.schema import FeatureRow, TsneResult, finite

SIDE_PX = 900  # of a picture made small enough to lie inside the page
COLOURS = 96  # of its palette: points of ten classes on white need no more
BUDGET_BYTES = 240_000  # all pictures together
MOST_PICTURES = 16  # made smaller, to find those that fit
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

Shown = tuple[Row, FeatureRow, Path]  # a run, its feature space at one checkpoint, and the folder of its picture


def sections(data: ReportData) -> Iterator[Section]:
    """Numbers by checkpoint, their curves where there are several, and the pictures."""
    shown = [
        (found.row, row, found.result.directory or Path())
        for found in data.of_trained_encoders
        if isinstance(found.result, TsneResult)
        for row in found.result.rows
    ]
    if not shown:
        return
    rows = []
    for run, row, _ in shown:
        cells = [cell(run.label), cell(str(run.seed), run.seed), Cell(plain(row.epoch, 1), row.epoch)]
        values = [finite(getattr(row, key)) for key, _ in NUMBERS]
        rows.append((*cells, Cell(count(row.step), row.step), *(Cell(plain(value), value) for value in values)))
    pictures, left_out = _pictures(shown)
    headers = ("Setting", "Seed", "Epoch", "Step", *(label for _, label in NUMBERS))
    more = (f"{many(left_out, 'more picture')} beside the runs' results.",) if left_out else ()
    yield Section(
        anchor="features",
        title="The feature space",
        figures=_figures(shown),
        pictures=pictures,
        tables=(Table("Numbers", headers, tuple(rows), folded=len(rows) > MOST_OPEN_ROWS),),
        notes=(EXPLANATION, *more),
    )


def _figures(shown: Sequence[Shown]) -> tuple[Figure, ...]:
    """A panel for each number, a line for each run with several checkpoints."""
    lines = grouped(shown, lambda found: (found[0].label, found[0].seed))
    panels = []
    for key, label in NUMBERS:
        drawn = [
            curve(
                ((r.step if r.epoch is None else r.epoch, getattr(r, key)) for _, r, _ in own), f"{s}, seed {seed}", i
            )
            for i, ((s, seed), own) in enumerate(lines.items())
        ]
        drawn = [line for line in drawn if len(line.marks) > 1]
        panels += curve_panels({label: drawn}, label, percent=False) if drawn else []
    description = "Alignment, uniformity and rank of the features by epoch"
    return (Figure("features", description, tuple(panels), 3),) if panels else ()


def _pictures(shown: Sequence[Shown]) -> tuple[tuple[Picture, ...], int]:
    """(newest picture of each setting's first seed as far as they fit, number of others)."""
    drawn = [found for found in shown if found[1].picture is not None]
    first = grouped(drawn, lambda found: found[0].label)
    newest = [[found for found in own if found[0] is own[0][0]][-1] for own in first.values()]
    kept: list[Picture] = []
    used = 0
    for run, row, folder in newest[:MOST_PICTURES]:
        png = _small(folder / Path(row.picture or "").name)
        if png is None or used + len(png) > BUDGET_BYTES:
            continue
        used += len(png)
        what = f"t-SNE of the features of {run.label}, seed {run.seed}, step {count(row.step)}"
        name = f"tsne_{re.sub(r'[^a-z0-9]+', '_', run.label.lower()).strip('_')[:60]}"
        kept.append(Picture(name, run.label, f"{what}, coloured by class", png))
    return tuple(kept), len(drawn) - len(kept)


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
