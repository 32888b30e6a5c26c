"""bigbatch eval TASK RUN_DIR [key=value ...] and bigbatch report STUDY_DIR [STUDY_DIR ...]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.config import EVALUATIONS, evaluation_class, evaluation_config
from eval.describe import describe
from eval.report.command import add_report_arguments, report_command
from eval.result import EvaluationError, Stopwatch, open_evaluation, previous_result
from eval.schema import parse_result
from pretrain.errors import ConfigError
from pretrain.format import command
from pretrain.preemption import end_with_torchrun, interruptible

EXAMPLES = """examples:
  bigbatch eval linear RUN_DIR
  bigbatch eval linear RUN_DIR train_images=10000 'l2=[0.1, 0.01, 0.001]'
  bigbatch eval linear RUN_DIR config=linear_wide
  bigbatch eval knn RUN_DIR neighbours.neighbours=20
  bigbatch eval finetune RUN_DIR 'label_fractions=[0.01, 0.1]' epochs=20
  bigbatch eval distill RUN_DIR label_fraction=0.1 'student={architecture: resnet18}'
  bigbatch eval transfer RUN_DIR 'directories=[data/cifar10, data/stl10]'
  bigbatch eval my_package.my_module:MyEvaluation RUN_DIR
  bigbatch report runs/quick
  bigbatch report runs/quick runs/longer          (side by side)
  bigbatch report runs/quick --watch 30           (while it runs)"""

REPORT = "accuracy against batch size and every other axis of a study: HTML, Markdown, CSV and figures"


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the result or the report is there, 1 when it cannot be had, 2 for a bad configuration."""
    task, *rest = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    if task in ("-h", "--help"):
        print(_overview())
        return 0
    end_with_torchrun()
    try:
        if task == "report":
            parser = _parser(task, REPORT)
            add_report_arguments(parser)
            return report_command(parser.parse_args(rest))
        parser = _parser(task, evaluation_class(task).help)
        parser.add_argument("run_directory", type=Path, metavar="RUN_DIR", help="directory that `pretrain` wrote")
        text = f"settings, see `bigbatch settings eval {task}`; config=FILE reads a file, or one of configs/eval/"
        parser.add_argument("overrides", nargs="*", metavar="key=value", help=text)
        given = parser.parse_intermixed_args(rest)
        return _evaluate(task, given.run_directory, given.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (EvaluationError, FileNotFoundError) as error:
        print(f"eval {task}: {error}", file=sys.stderr)
        return 1


def _overview() -> str:
    tasks = {**{task: settings.help for task, settings in EVALUATIONS.items()}, "report": REPORT}
    lines = [f"usage: {command('eval', 'eval')} TASK RUN_DIR [key=value ...]", "", *EXAMPLES.splitlines(), "", "tasks:"]
    return "\n".join([*lines, *(f"  {task:<10}{text}" for task, text in tasks.items())])


def _parser(task: str, text: str) -> argparse.ArgumentParser:
    """The command line of one task; options and settings may stand anywhere in it."""
    examples = [line for line in EXAMPLES.splitlines() if f" {task} " in line]
    return argparse.ArgumentParser(
        prog=f"{command('eval', 'eval')} {task}",
        description=text,
        epilog="\n".join(["examples:", *examples]) if examples else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _evaluate(task: str, run_directory: Path, overrides: Sequence[str]) -> int:
    stopwatch = Stopwatch()
    config = evaluation_config(task, overrides)
    evaluation = open_evaluation(task, run_directory, config)
    # The model card tells what has been measured so far: it is written again each time.
    result = None if task == "export" else previous_result(evaluation)
    if result is None:
        from eval.evaluate import evaluate  # imports torch, which neither --help nor a second call needs
        from pretrain.checkpoint import CheckpointError

        stopwatch.lap("import")
        try:
            measured = evaluate(evaluation, stopwatch)
        except CheckpointError as error:
            raise EvaluationError(str(error)) from error
        result = parse_result(measured) if measured is not None else None
    if result is not None:
        print(f"{task} evaluation in {evaluation.result_path}\n{describe(result)}")
    return 0


if __name__ == "__main__":
    sys.exit(interruptible(main))
