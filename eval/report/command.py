"""`python -m eval report STUDY_DIR ...`: once, or again and again while a study runs."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eval.report.build import page_of, read_studies, write_report
from eval.report.content import make_report
from eval.report.records import StudyRecord
from eval.report.render.wandb import Mode, push
from eval.study_manifest import FILE_NAME, read_manifest

Signature = tuple[tuple[str, int, int], ...]


def report_command(given: argparse.Namespace) -> int:
    """Build the report, once or until the study is complete; returns the exit status.

    Raises FileNotFoundError or ConfigError where a directory is no study.
    """
    directories, folder, mode = given.study_directories, given.into, given.wandb
    if given.watch is not None:
        try:
            watch(directories, folder, given.watch, tell=lambda page: print(f"report in {page}", flush=True))
        except KeyboardInterrupt:
            print("stopped watching; building the report as it stands")
    page = finish(directories, folder, mode)
    print(f"report in {page}")
    return 0


def finish(directories: Sequence[Path], folder: Path | None, mode: Mode | None) -> Path:
    """Build everything as it stands and push it; returns the page."""
    studies = read_studies(directories)
    report, page = make_report(*studies), page_of(directories, studies, folder)
    write_report(report, page)
    push(report, page, mode)
    return page


def watch(
    directories: Sequence[Path],
    folder: Path | None,
    seconds: float,
    *,
    tell: Callable[[Path], None] = lambda page: None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the page again whenever a file of the studies is new, until every run has finished. Its own files wait."""
    last: Signature | None = None
    while True:
        now = signature(directories)
        if now != last:
            studies: Sequence[StudyRecord] = read_studies(directories)
            report, page = make_report(*studies), page_of(directories, studies, folder)
            if report.complete:
                return
            write_report(report, page, refresh_s=seconds, files=False)
            if last is None:
                tell(page)
            last = now
        sleep(seconds)


def signature(directories: Sequence[Path]) -> Signature:
    """Age and size of every file that a report reads. Raises FileNotFoundError or ConfigError as `read_manifest`."""
    found = []
    for directory in directories:
        paths = [directory / FILE_NAME]
        for point in read_manifest(directory).points:
            run = directory / point.directory
            paths += [run / name for name in ("result.json", "metrics.jsonl", "progress.json", "config.yaml")]
            paths += sorted((*run.glob("eval/*/result.json"), *run.glob("logs/*.json")))
        for path in paths:
            try:
                state = path.stat()
            except FileNotFoundError:
                continue
            found.append((str(path), state.st_mtime_ns, state.st_size))
    return tuple(found)


# Options of `python -m eval report`; apart from the report itself, whose imports take longer than --help should.


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
