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
        ("cancel", "end what runs and waits of a study, or of one of its points"),
        ("retry", "forget the failures of a study, or of one of its points, and go on"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("directory", type=Path, metavar="STUDY_DIR")
        command.add_argument("point", nargs="?", metavar="POINT", help="name of a point, or a part of it")
        if name == "logs":
            command.add_argument("--lines", type=int, default=40, metavar="N", help="lines of each log (default 40)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: the request cannot be carried out as it is)."""
    options = build_parser().parse_args(arguments)
    from launch.lock import StudyLocked
    from launch.slurm.queue import SchedulerSilent
    from pretrain.errors import ConfigError

    try:
        match options.command:
            case "study":
                return _study(options.study, options.overrides, dry_run=options.dry_run)
            case "plan":
                return _plan(options.study, options.overrides)
            case "status":
                return _status(options.directory, options.watch)
            case "cancel":
                return _cancel(options.directory, options.point)
            case "retry":
                return _retry(options.directory, options.point)
            case _:
                return _logs(options.directory, options.point, options.lines)
    except (ConfigError, StudyLocked, SchedulerSilent, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _study(path: Path, overrides: list[str], *, dry_run: bool) -> int:
    from launch.tables import make_console

    if dry_run:
        from launch.commands import show_what_would_run
        from launch.plan.config import load_study
        from launch.plan.graph import build_graph

        show_what_would_run(build_graph(load_study(path, overrides), str(path)), make_console())
        return 0
    from launch.preflight import startable_graph
    from launch.run import run_study

    return run_study(startable_graph(path, overrides), make_console())


def _plan(path: Path, overrides: Sequence[str]) -> int:
    from launch.forecast.tables import preflight_views
    from launch.plan.config import load_study
    from launch.plan.graph import build_graph
    from launch.state import study_states
    from launch.tables import make_console, plan_summary, plan_table

    graph = build_graph(load_study(path, overrides), str(path))
    states = study_states(graph.directory, graph.manifest)
    console = make_console()
    console.print(plan_table(graph, states), soft_wrap=True)
    for view in preflight_views(graph, states):
        console.print(view, soft_wrap=True)
    console.print(plan_summary(graph), markup=False, soft_wrap=True)
    return 0


def _status(directory: Path, watch_s: float | None) -> int:
    from launch.commands import show_status
    from launch.tables import make_console

    show_status(directory, make_console(), every_s=watch_s)
    return 0


def _cancel(directory: Path, point: str | None) -> int:
    from launch.commands import cancel
    from launch.tables import make_console

    return cancel(directory, point, make_console())


def _retry(directory: Path, point: str | None) -> int:
    from launch.commands import reset_failures
    from launch.preflight import startable_graph
    from launch.run import run_study
    from launch.tables import make_console

    console = make_console()
    reset_failures(directory, point, console)
    return run_study(startable_graph(directory, []), console)


def _logs(directory: Path, point: str | None, lines: int) -> int:
    from launch.commands import show_logs

    show_logs(directory, point, lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
