"""t-SNE pictures of the runs, made small enough to lie inside the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eval.report.collect import PointRecord, number
from eval.report.sections import Picture
from eval.report.text import count

SIDE_PX = 900
COLOURS = 96  # of the palette: points of ten classes on white need no more
BUDGET_BYTES = 600_000  # all pictures together


def feature_pictures(
    shown: Sequence[tuple[str, PointRecord, dict[str, Any], dict[str, Any]]],
) -> tuple[tuple[Picture, ...], int]:
    """(newest picture of each setting's first seed, number of others). ``shown``: setting, run, row, result."""
    newest: dict[str, tuple[PointRecord, dict[str, Any], dict[str, Any]]] = {}
    total = 0
    for setting, record, row, result in shown:
        if not isinstance(row.get("picture"), str):
            continue
        total += 1
        if setting not in newest or record is newest[setting][0]:
            newest[setting] = (record, row, result)
    found, used = [], 0
    for setting, (record, row, result) in newest.items():
        png = _small(Path(str(result["directory"])) / Path(row["picture"]).name)
        if png is None or used + len(png) > BUDGET_BYTES:
            continue
        used += len(png)
        what = f"t-SNE of the features of {setting}, seed {record.point.seed}, step {count(number(row.get('step')))}"
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
