"""What a figure shows, independent of how it is drawn: `svg` draws it for the page, `png` for Markdown."""

from __future__ import annotations

from dataclasses import dataclass, field

from eval.report.scales import Axis


@dataclass(frozen=True)
class Mark:
    """A value with its interval; ``tip`` is what hovering tells, lines separated by newlines."""

    x: float
    y: float
    low: float | None = None
    high: float | None = None
    tip: str = ""
    best: bool = False  # ringed: the best of a grid that was run


@dataclass(frozen=True)
class Series:
    """Marks joined by a line, and the single measurements behind them. ``colour``: position in its palette."""

    label: str
    colour: int
    marks: tuple[Mark, ...]
    singles: tuple[Mark, ...] = ()
    palette: str = "category"  # or "ramp": an ordered quantity, pale to strong
    marked: bool = True  # draw the marks, not the line alone
    joined: bool = True
    gaps: tuple[float, ...] = ()  # places without a result: the line does not bridge them

    def pieces(self) -> list[tuple[Mark, ...]]:
        """Marks by increasing x, parted where a result is missing in between; alone where nothing joins them."""
        if not self.joined:
            return [(mark,) for mark in self.marks]
        ordered = sorted(self.marks, key=lambda mark: mark.x)
        pieces: list[list[Mark]] = []
        for previous, mark in zip([None, *ordered], ordered):
            if previous is None or any(previous.x < gap < mark.x for gap in self.gaps):
                pieces.append([])
            pieces[-1].append(mark)
        return [tuple(piece) for piece in pieces]


@dataclass(frozen=True)
class Reference:
    """A dashed horizontal line; at the edge of the panel with an arrow where it lies outside."""

    label: str
    y: float
    tip: str
    style: int


@dataclass(frozen=True)
class Missing:
    """A point that should be at ``x`` and is not: shown below the axis, never as a value."""

    x: float
    tip: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    x: Axis
    y: Axis
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    references: tuple[Reference, ...] = ()
    missing: tuple[Missing, ...] = ()
    footnote: str = ""
    dodge: bool = False  # move the series apart, so that their intervals do not cover each other


@dataclass(frozen=True)
class Figure:
    """Panels side by side. ``columns``: how many fit next to each other on a wide page."""

    name: str  # of its files
    description: str  # for those who do not see it
    panels: tuple[Panel, ...]
    columns: int = 1
    legend: tuple[tuple[str, int, str], ...] = field(default=())  # (label, colour, palette), shared by the panels
    per_panel_legend: bool = True  # each of several panels names its own series
    in_files: bool = True  # also a file beside the page
