"""What a section is made of: sentences, figures, pictures and tables. `eval.report.render` turns them into text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from eval.report.figures.model import Figure
from eval.report.format import MINUS, plain

Item = TypeVar("Item")


@dataclass(frozen=True)
class Cell:
    """What a person reads, and what the column is sorted by (None sorts last)."""

    text: str
    sort: float | str | None = None
    shade: float | None = None  # 0 to 1: how strongly the cell is coloured


@dataclass(frozen=True)
class Table:
    """Rows below their headers; ``title`` stands above it, and on the page it opens with a click where ``folded``."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    folded: bool = False
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """A PNG image and what it shows."""

    name: str  # of its file
    title: str
    description: str  # for those who do not see it
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of the report with an anchor of its own."""

    anchor: str
    title: str
    findings: tuple[str, ...] = ()  # sentences, the main one first
    remark: str = ""  # how to read what follows
    figures: tuple[Figure, ...] = ()
    basis: str = ""  # below the figure: what its intervals rest on
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    headline: bool = False  # in the summary
    folded_figures: bool = False  # each with a heading of its own, to be opened


Column = Callable[[Item], Cell]


def cell(text: str, sort: float | str | None = None) -> Cell:
    """A cell that is sorted by its text where nothing else is given."""
    return Cell(text, text if sort is None and text else sort)


def num(value: float | None, form: Callable[[float | None], str] = plain) -> Cell:
    """A number as ``form`` writes it."""
    return Cell(form(value), value)


def tabulate(
    title: str, items: Iterable[Item], columns: Mapping[str, Column[Item]], *, folded: bool = False, note: str = ""
) -> Table:
    """A row for each item, a column for each header."""
    rows = tuple(tuple(make(item) for make in columns.values()) for item in items)
    return Table(title, tuple(columns), rows, folded, note)


def number_in(text: str) -> float | None:
    """The number that a text is: 1,234 or 83.1 % or −0.5 (best)."""
    plain = text.removesuffix(" %").removesuffix(" (best)").replace(",", "").replace(MINUS, "-")
    try:
        return float(plain) if plain.isascii() else None
    except ValueError:
        return None
