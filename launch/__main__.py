"""python -m launch: plan a study, run what is missing of it, see how far it is.

Each command imports what it needs, so that --help is instant.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

EXAMPLES = """examples:
  python -m launch plan configs/study/quick.yaml
  python -m launch study configs/study/quick.yaml target.ranks=1 target.concurrent_runs=2
  python -m launch study runs/quick                   (continues it)
  python -m launch study configs/study/quick.yaml target=configs/target/slurm.yaml --dry-run
  python -m launch status runs/quick --watch
  python -m launch logs runs/quick global_batch_size=256,seed=0
  python -m launch cancel runs/quick
  python -m launch retry runs/quick"""

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
    study.add_argument("--dry-run", action="store_true", help="print what would be submitted or run; start nothing")
    status = commands.add_parser("status", help="show how far every run of a study is")
    status.add_argument("directory", type=Path, metavar="STUDY_DIR")
    status.add_argument("--watch", nargs="?", type=float, const=5.0, metavar="SECONDS", help="until nothing runs")
    for name, text in (
        ("logs", "show the end of the logs of a study, or of one of its points"),
        ("cancel", "end the jobs of a study, or of one of its points"),
        ("retry", "forget the failures of a study, or of one of its points, and continue it"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory", type=Path, metavar="STUDY_DIR")
        command.add_argument("point", nargs="?", metavar="POINT", help="name of a point, or a part of several names")
        if name == "logs":
            command.add_argument("--lines", type=int, default=40, metavar="N", help="lines of each log (default 40)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: the request cannot be carried out as it is)."""
    options = build_parser().parse_args(arguments)
    from launch.slurm.queue import SchedulerSilent
    from launch.tables import make_console
    from pretrain.errors import ConfigError
    from pretrain.lock import DirectoryInUse

    console = make_console()
    try:
        match options.command:
            case "study":
                return _study(options.study, options.overrides, console, dry_run=options.dry_run)
            case "plan":
                return _plan(options.study, options.overrides, console)
            case _:
                return _of_directory(options, console)
    except DirectoryInUse as error:
        print(f"{error}\nwatch it: python -m launch status {error.source}", file=sys.stderr)
        return 2
    except (ConfigError, SchedulerSilent, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _study(path: Path, overrides: list[str], console: Console, *, dry_run: bool) -> int:
    if dry_run:
        from launch.commands import show_what_would_run
        from launch.plan.config import load_study
        from launch.preflight import look_at

        show_what_would_run(look_at(load_study(path, overrides), str(path)), console)
        return 0
    from launch.preflight import ready_to_start
    from launch.run import run_study

    return run_study(ready_to_start(path, overrides), console)


def _plan(path: Path, overrides: list[str], console: Console) -> int:
    from launch.forecast.tables import preflight_views
    from launch.plan.config import load_study
    from launch.preflight import look_at
    from launch.tables import failures, plan_summary, plan_table

    snapshot = look_at(load_study(path, overrides), str(path))
    console.print(plan_table(snapshot), soft_wrap=True)
    for view in preflight_views(snapshot.graph, list(snapshot.states)):
        console.print(view, soft_wrap=True)
    for line in (plan_summary(snapshot), *failures(snapshot.graph.directory, snapshot.states)):
        console.print(line, markup=False, soft_wrap=True)
    return 0


def _of_directory(options: argparse.Namespace, console: Console) -> int:
    from launch.commands import cancel, reset_failures, show_logs, show_status

    match options.command:
        case "status":
            show_status(options.directory, console, every_s=options.watch)
        case "logs":
            show_logs(options.directory, options.point, options.lines)
        case "cancel":
            return cancel(options.directory, options.point, console)
        case "retry":
            reset_failures(options.directory, options.point, console)
            return _study(options.directory, [], console, dry_run=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
