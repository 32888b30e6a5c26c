"""The feature space: alignment, uniformity, rank, and t-SNE pictures coloured by class."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from eval.report.figures.model import Figure
from eval.report.format import count, plain
from eval.report.records import grouped
from eval.report.sections.base import Column, Picture, Section, cell, num, tabulate
from eval.report.sections.curves import curve, curve_panels
from eval.report.table import ReportData, Row
from eval.schema import FeatureRow, TsneResult, finite
from pretrain.format import plural

SIDE_PX = 900  # of a picture made small enough to lie inside the page
COLOURS = 96  # of its palette: points of ten classes on white need no more
BUDGET_BYTES = 240_000  # all pictures together
MOST_PICTURES = 16  # made smaller, to find those that fit
MOST_OPEN_ROWS = 12
NUMBERS = {"alignment": "Alignment", "uniformity": "Uniformity", "rankme": "RankMe", "effective_rank": "Effective rank"}
EXPLANATION = (
    "Alignment: lower is closer positives. Uniformity: lower is more uniform. Ranks: at most the features' width."
)

Shown = tuple[Row, FeatureRow, Path]  # a run, its feature space at one checkpoint, and the folder of its picture


def sections(data: ReportData) -> Iterator[Section]:
    """Numbers by checkpoint, their curves where there are several, and the pictures."""
    shown = [
        (run, row, result.directory or Path())
        for run, result in data.of_trained_encoders
        if isinstance(result, TsneResult)
        for row in result.rows
    ]
    if not shown:
        return
    columns: dict[str, Column[Shown]] = {
        "Setting": lambda found: cell(found[0].label),
        "Seed": lambda found: num(found[0].seed, count),
        "Epoch": lambda found: num(found[1].epoch, lambda value: plain(value, 1)),
        "Step": lambda found: num(found[1].step, count),
    }
    columns |= {name: _number(key) for key, name in NUMBERS.items()}
    pictures, left_out = _pictures(shown)
    more = (f"{plural(left_out, 'more picture')} beside the runs' results.",) if left_out else ()
    yield Section(
        anchor="features",
        title="The feature space",
        figures=_figures(shown),
        pictures=pictures,
        tables=(tabulate("Numbers", shown, columns, folded=len(shown) > MOST_OPEN_ROWS),),
        notes=(EXPLANATION, *more),
    )


def _number(key: str) -> Column[Shown]:
    return lambda found: num(finite(getattr(found[1], key)))


def _figures(shown: Sequence[Shown]) -> tuple[Figure, ...]:
    """A panel for each number, a line for each run with several checkpoints."""
    lines = grouped(shown, lambda found: f"{found[0].label}, seed {found[0].seed}")
    panels = []
    for key, label in NUMBERS.items():
        pairs = (
            [(r.step if r.epoch is None else r.epoch, getattr(r, key)) for _, r, _ in own] for own in lines.values()
        )
        drawn = [curve(own, line, colour) for colour, (line, own) in enumerate(zip(lines, pairs))]
        panels += curve_panels({label: drawn}, label, percent=False)
    description = "Alignment, uniformity and rank of the features by epoch"
    return (Figure("features", description, tuple(panels), 3),) if panels else ()


def _pictures(shown: Sequence[Shown]) -> tuple[tuple[Picture, ...], int]:
    """(newest picture of each setting's first seed as far as they fit, number of others)."""
    drawn = [found for found in shown if found[1].picture is not None]
    kept: list[Picture] = []
    used = 0
    for own in list(grouped(drawn, lambda found: found[0].label).values())[:MOST_PICTURES]:
        run, row, folder = [found for found in own if found[0] is own[0][0]][-1]
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
