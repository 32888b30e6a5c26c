"""`python -m eval report STUDY_DIR ...`: once, or again and again while a study runs."""

from __future__ import annotations

import argparse
from pathlib import Path


def report_command(given: argparse.Namespace) -> int:
    """Build the report, once or until the study is complete; returns the exit status.

    Raises FileNotFoundError or ConfigError where a directory is no study.
    """
    from eval.report.build import build_report, watch  # takes longer than --help should

    if given.watch is not None:
        try:
            watch(given.study_directories, given.into, given.watch, tell=_tell)
        except KeyboardInterrupt:
            print("stopped watching; building the report as it stands")
    _tell(build_report(*given.study_directories, folder=given.into, wandb=given.wandb))
    return 0


def _tell(page: Path) -> None:
    print(f"report in {page}", flush=True)


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
        raise argparse.ArgumentTypeError(f"got '{text}', expected a number of seconds from 1 to 86400")
    return value
