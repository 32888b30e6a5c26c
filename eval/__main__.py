"""python -m eval TASK RUN_DIR [key=value ...] and python -m eval report STUDY_DIR [STUDY_DIR ...]"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from eval.config import EVALUATIONS, evaluation_class, evaluation_config
from eval.describe import describe
from eval.report.command import add_report_arguments
from eval.result import EvaluationError, Stopwatch, open_evaluation, previous_result
from eval.schema import parse_result
from pretrain.errors import ConfigError

EXAMPLES = """examples:
  python -m eval linear runs/quick/points/0a1b2c3d4e5f
  python -m eval linear RUN_DIR train_images=10000 'l2=[0.1, 0.01, 0.001]'
  python -m eval linear RUN_DIR config=configs/eval/linear_wide.yaml
  python -m eval knn RUN_DIR neighbours.neighbours=20
  python -m eval finetune RUN_DIR 'label_fractions=[0.01, 0.1]' epochs=20
  python -m eval distill RUN_DIR label_fraction=0.1 'student={architecture: resnet18}'
  python -m eval transfer RUN_DIR 'directories=[data/cifar10, data/stl10]'
  python -m eval my_package.my_module:MyEvaluation RUN_DIR
  python -m eval report runs/quick
  python -m eval report runs/quick runs/longer          (side by side)
  python -m eval report runs/quick --watch 30           (while it runs)"""


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the result or the report is there, 1 when it cannot be had, 2 for a bad configuration."""
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        given = _parser(arguments).parse_args(arguments)
        if given.task == "report":
            from eval.report.command import report_command

            return report_command(given)
        return _evaluate(given.task, given.run_directory, given.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except (EvaluationError, FileNotFoundError) as error:
        print(f"eval {given.task}: {error}", file=sys.stderr)
        return 1


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m eval",
        description="Evaluate the frozen encoder of a run, or build the report of a study.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    own = [arguments[0]] if arguments and ":" in arguments[0] else []
    for task in [*EVALUATIONS, *own]:
        text = evaluation_class(task).help
        probe = tasks.add_parser(task, help=text, description=text)
        probe.add_argument("run_directory", type=Path, metavar="RUN_DIR", help="directory that `pretrain` wrote")
        probe.add_argument(
            "overrides", nargs="*", metavar="key=value", help="settings, see configs/eval/; config=FILE reads a file"
        )
    text = "accuracy against batch size and every other axis of a study: HTML, Markdown, CSV and figures"
    add_report_arguments(tasks.add_parser("report", help=text, description=text))
    return parser


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
    sys.exit(main())
