"""Options of `python -m eval report`; apart from the report itself, whose imports take longer than --help should."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the report command."""
    parser.add_argument(
        "study_directories",
        type=Path,
        nargs="+",
        metavar="STUDY_DIR",
        help="holds study.json; several are shown side by side",
    )
    parser.add_argument("--into", type=Path, metavar="DIR", help="where the report goes (default: STUDY_DIR/report)")
    parser.add_argument(
        "--watch",
        type=_seconds,
        metavar="SECONDS",
        help="build again whenever something is new, until all runs have finished; the open page follows by itself",
    )
    parser.add_argument(
        "--wandb", choices=("disabled", "offline", "online"), help="push the report to wandb (default: as the runs)"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 1 <= value < 86400:
        raise argparse.ArgumentTypeError(f"got '{text}', wanted a number of seconds from 1 to 86400")
    return value
