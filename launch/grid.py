"""A plain table of aligned columns. rich's own takes seconds for hundreds of rows. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, ConsoleOptions, RenderResult
from rich.text import Text

Cell = str | tuple[str, str]  # text, or (text, style)

GAP = "   "
NARROWEST_NAME = 16


class Grid:
    """Rows under a header; the first column is text and is folded where the terminal is narrow, numbers go right.

    left: names of further columns that hold text.
    """

    def __init__(self, *columns: str, left: Sequence[str] = ()) -> None:
        self._columns = columns
        self._right = [index > 0 and name not in left for index, name in enumerate(columns)]
        self._rows: list[tuple[Cell, ...]] = []

    def add_row(self, *cells: Cell) -> None:
        """Add one row; as many cells as there are columns."""
        assert len(cells) == len(self._columns), f"got {len(cells)} cells for {len(self._columns)} columns"
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        plain = [self._columns, *([_text(cell) for cell in row] for row in self._rows)]
        widths = [max(map(len, column)) for column in zip(*plain, strict=True)]
        others = sum(widths[1:]) + len(GAP) * len(widths[1:])
        if console.is_terminal:
            widths[0] = max(NARROWEST_NAME, min(widths[0], options.max_width - others))
        lines = [Text(), *self._lines(self._columns, widths), Text("─" * (widths[0] + others))]
        for row in self._rows:
            lines += self._lines(row, widths)
        yield Text("\n", no_wrap=True, overflow="ignore", end="\n\n").join(lines)

    def _lines(self, cells: Sequence[Cell], widths: Sequence[int]) -> list[Text]:
        name = _text(cells[0])
        parts = [name[start : start + widths[0]] for start in range(0, len(name), widths[0])] or [""]
        first = Text(parts[0].ljust(widths[0]))
        for cell, width, right in zip(cells[1:], widths[1:], self._right[1:], strict=True):
            text = _text(cell)
            first.append(GAP + (text.rjust(width) if right else text.ljust(width)), None if cell is text else cell[1])
        return [first, *(Text(part) for part in parts[1:])]


def _text(cell: Cell) -> str:
    return cell if isinstance(cell, str) else cell[0]
