"""python -m launch: plan a study, run what is missing of it, see how far it is. A command imports what it needs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

EXAMPLES = """examples:
  python -m launch plan configs/study/quick.yaml
  python -m launch study configs/study/quick.yaml target.ranks=1 target.concurrent_runs=2
  python -m launch study runs/quick                   (goes on where it was)
  python -m launch status runs/quick
  python -m launch logs runs/quick global_batch_size=256,seed=0"""

OVERRIDES = """change a key of the study, e.g. seeds=[0] or target.ranks=4;
set.KEY=VALUE changes every point, e.g. set.epochs=1"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m launch", description="Run a study of pretraining runs.", epilog=EXAMPLES, formatter_class=raw
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    study = commands.add_parser("study", help="run what is missing of a study, then build its report")
    plan = commands.add_parser("plan", help="show every run of a study and its derived numbers; starts nothing")
    for command in (study, plan):
        command.add_argument("study", type=Path, metavar="CONFIG_OR_DIR", help="a study's YAML, or its directory")
        command.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    status = commands.add_parser("status", help="show how far every run of a study is")
    status.add_argument("directory", type=Path, metavar="STUDY_DIR")
    logs = commands.add_parser("logs", help="show the end of the logs of a study, or of one of its points")
    logs.add_argument("directory", type=Path, metavar="STUDY_DIR")
    logs.add_argument("point", nargs="?", metavar="POINT", help="name of a point, or a part of it")
    logs.add_argument("--lines", type=int, default=40, metavar="N", help="lines of each log (default 40)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: the request cannot be carried out as it is)."""
    options = build_parser().parse_args(arguments)
    from launch.lock import StudyLocked
    from pretrain.errors import ConfigError

    try:
        match options.command:
            case "study":
                return _study(options.study, options.overrides)
            case "plan":
                return _plan(options.study, options.overrides)
            case "status":
                return _status(options.directory)
            case _:
                return _logs(options.directory, options.point, options.lines)
    except (ConfigError, StudyLocked, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _study(path: Path, overrides: Sequence[str]) -> int:
    from launch.config import load_study
    from launch.graph import build_graph
    from launch.study import run_study
    from launch.tables import make_console

    return run_study(build_graph(load_study(path, overrides), str(path)), make_console())


def _plan(path: Path, overrides: Sequence[str]) -> int:
    from launch.config import load_study
    from launch.graph import build_graph
    from launch.tables import make_console, plan_summary, plan_table

    graph = build_graph(load_study(path, overrides), str(path))
    console = make_console()
    console.print(plan_table(graph))
    console.print(plan_summary(graph), markup=False, soft_wrap=True)
    return 0


def _status(directory: Path) -> int:
    from eval.manifest import read_manifest
    from launch.state import study_states
    from launch.tables import failures, make_console, status_summary, status_table

    manifest = read_manifest(directory)
    states = study_states(directory, manifest)
    console = make_console()
    console.print(status_table(states))
    console.print(status_summary(directory, manifest, states), markup=False, soft_wrap=True)
    for line in failures(directory, states):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _logs(directory: Path, point: str | None, lines: int) -> int:
    from launch.logs import show_logs

    show_logs(directory, point, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
