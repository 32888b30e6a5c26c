"""bigbatch (python -m launch): every command of the project behind one name.

Each command imports what it needs, so that --help is instant; what another package does is handed on to it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pretrain.preemption import interruptible

if TYPE_CHECKING:
    from rich.console import Console

PROGRAM = "bigbatch"
OVERRIDES = "a setting, e.g. target.ranks=4 or seeds=[0]; set.KEY=VALUE changes every run, e.g. set.epochs=2"


@dataclass(frozen=True)
class Command:
    """One command: its line in the overview, examples for its own help, its options, and what it does."""

    help: str
    examples: tuple[str, ...]
    options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Console], int]


@dataclass(frozen=True)
class Elsewhere:
    """A command of another module, which reads its own command line; ``several``: --ranks N starts N processes."""

    help: str
    module: str
    several: bool = False
    first: tuple[str, ...] = ()  # what comes ahead of the arguments
    check: str = ""  # an option that refuses what several processes would each refuse, before they start


def _study_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", type=Path, metavar="STUDY", help="a study's YAML, its directory, or a shipped name")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=OVERRIDES)
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="only these questions or points")


def _run_options(parser: argparse.ArgumentParser) -> None:
    _study_options(parser)
    parser.add_argument("--replace", action="store_true", help="take the place of another study in its directory")
    parser.add_argument("--dry-run", action="store_true", help="print what would be run or submitted; start nothing")


def _plan_options(parser: argparse.ArgumentParser) -> None:
    _study_options(parser)
    parser.add_argument("--json", action="store_true", help="the derived numbers as JSON")


def _directory_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="STUDY_DIR")
    parser.add_argument("point", nargs="?", metavar="POINT", help="name of a point, or a part of several names")


def _logs_options(parser: argparse.ArgumentParser) -> None:
    _directory_options(parser)
    parser.add_argument("--lines", type=int, default=40, metavar="N", help="lines of each log (default 40)")


def _status_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--watch", nargs="?", type=float, const=5.0, metavar="SECONDS", help="until nothing runs")
    parser.add_argument("--json", action="store_true", help="the state of every point as JSON")


def _settings_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("section", nargs="?", help="pretrain, study, eval TASK, or a part, e.g. objective or schedule")
    parser.add_argument("task", nargs="?", help="of eval: linear, knn, finetune, ...")
    parser.add_argument("--format", choices=("text", "markdown", "yaml", "keys"), default="text")


def _new_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", help="of the study; NAME.yaml is written")
    parser.add_argument("--data", type=Path, metavar="DIR", help="a directory that `data write` made")
    parser.add_argument("--into", type=Path, default=Path(), metavar="DIR", help="where the files go")


def _clean_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="a study or a run")
    parser.add_argument("--features", action="store_true", help="remove cached features, which are computed anew")
    parser.add_argument("--checkpoints", action="store_true", help="remove all but a finished run's last checkpoint")


def _completion_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh"), nargs="?", default="bash")


def _study(given: argparse.Namespace, console: Console) -> int:
    overrides = _with_only(given)
    if given.dry_run:
        from launch.commands.study_dir import show_what_would_run
        from launch.plan.config import load_study
        from launch.preflight import look_at

        show_what_would_run(look_at(load_study(given.study, overrides), str(given.study)), console)
        return 0
    from launch.preflight import ready_to_start
    from launch.run import run_study

    return run_study(ready_to_start(given.study, overrides, replace=given.replace), console)


def _plan(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.plan import show_plan

    show_plan(given.study, _with_only(given), console, as_json=given.json)
    return 0


def _with_only(given: argparse.Namespace) -> list[str]:
    return [*given.overrides, *([f"only=[{', '.join(map(repr, given.only))}]"] if given.only else [])]


def _status(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.study_dir import show_status

    show_status(given.directory, console, every_s=given.watch, as_json=given.json)
    return 0


def _logs(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.study_dir import show_logs

    show_logs(given.directory, given.point, given.lines)
    return 0


def _cancel(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.study_dir import cancel

    return cancel(given.directory, given.point, console)


def _retry(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.study_dir import reset_failures
    from launch.preflight import ready_to_start
    from launch.run import run_study

    reset_failures(given.directory, given.point, console)
    return run_study(ready_to_start(given.directory, []), console)


def _settings(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.settings import show_settings

    show_settings(given.section, given.task, given.format)
    return 0


def _new(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.new import write_new_study

    return write_new_study(given.name, given.data, given.into)


def _clean(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.study_dir import clean

    clean(given.directory, features=given.features, checkpoints=given.checkpoints)
    return 0


def _completion(given: argparse.Namespace, console: Console) -> int:
    from launch.commands.settings import completion_script

    print(completion_script(given.shell, {name: _words_of(name) for name in COMMANDS}))
    return 0


COMMANDS: dict[str, Command | Elsewhere] = {
    "study": Command(
        "run what is missing of a study, then build its report",
        ("study quick", "study quick set.epochs=20 directory=runs/longer", "study runs/quick --only negatives",
         "study imagenet_batch_size target=slurm --dry-run"),
        _run_options, _study,
    ),
    "plan": Command(
        "show every derived number of a study, or of one run; start nothing",
        ("plan quick", "plan cifar10 objective.temperature=0.2 target.ranks=8", "plan quick --json"),
        _plan_options, _plan,
    ),
    "status": Command("show a study's progress", ("status runs/quick --watch",), _status_options, _status),
    "logs": Command(
        "show the end of a study's logs, or of one point's",
        ("logs runs/quick", "logs runs/quick global_batch_size=256,seed=0 --lines 100"), _logs_options, _logs,
    ),
    "cancel": Command("end a study's jobs, or one point's", ("cancel runs/quick",), _directory_options, _cancel),
    "retry": Command(
        "forget failures of a study, or of one point, and continue it",
        ("retry runs/quick", "retry runs/quick negatives=8,seed=1"), _directory_options, _retry,
    ),
    "report": Elsewhere("build the report of studies", "eval.__main__", first=("report",)),
    "new": Command(
        "write a commented study file for your own data", ("new birds --data data/birds",), _new_options, _new,
    ),
    "clean": Command(
        "show what a study takes on disk, and remove what can be computed anew",
        ("clean runs/quick", "clean runs/quick --features"), _clean_options, _clean,
    ),
    "pretrain": Elsewhere(
        "pretrain one encoder; --ranks N starts torchrun", "pretrain.__main__", several=True, check="--plan",
    ),
    "eval": Elsewhere("measure a run's encoder: linear, knn, finetune, ...", "eval.__main__", several=True),
    "data": Elsewhere("write, check and look at data sets", ""),
    "certify": Elsewhere("check on this machine that W ranks are one rank", "pretrain.certify.__main__", several=True),
    "settings": Command(
        "print every setting with its type, default and meaning",
        ("settings objective", "settings schedule", "settings eval linear", "settings study",
         "settings pretrain --format yaml"),
        _settings_options, _settings,
    ),
    "completion": Command(
        "print a shell's completion script", ('completion bash > ~/.bigbatch-completion; source it',),
        _completion_options, _completion,
    ),
}  # fmt: skip

DATA = {
    "write": Elsewhere("images into the one file that training reads", "pretrain.data.write_beton"),
    "check": Elsewhere("what is odd about a folder of images", "pretrain.data.check"),
    "preview": Elsewhere("a picture of originals, views and drawn parameters", "pretrain.data.preview"),
}

GROUPS = {
    "studies": ("study", "plan", "status", "logs", "cancel", "retry", "report", "new", "clean"),
    "single runs": ("pretrain", "eval", "certify"),
    "data and settings": ("data", "settings", "completion"),
}
EXAMPLES = """examples:
  bigbatch study quick                                   the ten-minute study: train, measure, report
  bigbatch plan quick                                    what it would do
  bigbatch data write fashion_mnist data/fashion_mnist   images into one file
  bigbatch pretrain fashion_mnist epochs=5 --ranks 2     one run on two processes
  bigbatch eval linear RUN_DIR                           the accuracy of its encoder
  bigbatch settings objective                            what can be set, and what it means"""


def overview() -> str:
    """The help of the program as a whole."""
    lines = [f"usage: {PROGRAM} COMMAND ...", "", "Self-supervised pretraining at large batch sizes.", "", EXAMPLES]
    for title, names in GROUPS.items():
        lines += ["", f"{title}:", *(f"  {name:<12}{COMMANDS[name].help}" for name in names)]
    return "\n".join([*lines, "", f"{PROGRAM} COMMAND --help has examples and options of a command."])


def parser_of(name: str, command: Command) -> argparse.ArgumentParser:
    """The command line of one command; options may stand anywhere in it."""
    parser = argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=command.help[0].upper() + command.help[1:] + ".",
        epilog="\n".join(["examples:", *(f"  {PROGRAM} {example}" for example in command.examples)]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.options(parser)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status (2: the request cannot be carried out as it is)."""
    name, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if name in ("-h", "--help", "help"):
        print(overview())
        return 0
    command = COMMANDS.get(name)
    if command is None:
        return _unknown(name, COMMANDS)
    if name == "data":
        if not rest or rest[0] in ("-h", "--help"):
            print("\n".join(["usage: bigbatch data COMMAND ...", "", *(f"  {n:<10}{c.help}" for n, c in DATA.items())]))
            return 0
        command, name, rest = DATA.get(rest[0]), f"data {rest[0]}", rest[1:]
        if command is None:
            return _unknown(name.removeprefix("data "), DATA)
    if isinstance(command, Elsewhere):
        return _hand_on(command, rest)
    return _run(command, parser_of(name, command).parse_intermixed_args(rest))


def _unknown(name: str, known: Sequence[str] | dict[str, Elsewhere] | dict[str, Command | Elsewhere]) -> int:
    from pretrain.errors import did_you_mean

    print(f"unknown command '{name}'{did_you_mean(name, known)}; expected one of {', '.join(known)}", file=sys.stderr)
    return 2


def _run(command: Command, given: argparse.Namespace) -> int:
    from launch.slurm.queue import SchedulerSilent
    from launch.tables import make_console
    from pretrain.errors import ConfigError
    from pretrain.lock import DirectoryInUse

    try:
        return command.run(given, make_console())
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except DirectoryInUse as error:
        print(f"{error}\nwatch it: {PROGRAM} status {error.source}", file=sys.stderr)
        return 2
    except (ConfigError, SchedulerSilent, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2


def _hand_on(command: Elsewhere, arguments: list[str]) -> int:
    """Let the module that has the command do it, in ``--ranks`` processes where that is given."""
    if command.several:
        options = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        options.add_argument("--ranks", type=int, default=1)
        given, arguments = options.parse_known_args(arguments)
        if given.ranks > 1 and (status := _checked(command, arguments, given.ranks)):
            return status
        if given.ranks > 1:
            module = command.module.removesuffix(".__main__")
            torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={given.ranks}", "-m", module]
            os.execv(sys.executable, [sys.executable, *torchrun, *arguments])
    return _main_of(command, [*command.first, *arguments])


def _main_of(command: Elsewhere, arguments: list[str]) -> int:
    status: int = importlib.import_module(command.module).main(arguments)
    return status


def _checked(command: Elsewhere, arguments: list[str], ranks: int) -> int:
    """Exit status of the command's check: torchrun's ranks would refuse the same, after seconds of imports."""
    if not command.check:
        return 0
    os.environ["WORLD_SIZE"] = str(ranks)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return _main_of(command, [*arguments, command.check])
    finally:
        del os.environ["WORLD_SIZE"]


def _words_of(name: str) -> list[str]:
    """Options of a command, for completion."""
    command = COMMANDS[name]
    if name == "data":
        return list(DATA)
    if isinstance(command, Elsewhere):
        return ["--ranks"] if command.several else []
    return [option for action in parser_of(name, command)._actions for option in action.option_strings]


if __name__ == "__main__":
    sys.exit(interruptible(main))
