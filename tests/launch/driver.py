"""The launcher with stand-ins for what it starts. As a script: the same, with torch and its company out of reach."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

STUB = str(Path(__file__).with_name("stub.py"))
FORBIDDEN = ("torch", "torchvision", "numpy", "numba", "ffcv", "matplotlib", "scipy", "wandb", "submitit")


@contextmanager
def stubbed() -> Iterator[None]:
    """Every command of the launcher runs tests/launch/stub.py."""
    import launch.tasks
    from eval.config import evaluation_config, evaluation_fingerprint

    def train(directory: Path, target: object) -> tuple[str, ...]:
        return (sys.executable, STUB, "train", str(directory))

    def probe(directory: Path, task: str, overrides: Sequence[str], target: object) -> tuple[str, ...]:
        name = f"{task}-{evaluation_fingerprint(task, evaluation_config(task, overrides))}"
        return (sys.executable, STUB, task, str(directory), name)

    with (
        mock.patch.object(launch.tasks, "training_command", train),
        mock.patch.object(launch.tasks, "probe_command", probe),
        mock.patch.object(launch.tasks, "data_command", lambda d: (sys.executable, STUB, "data", str(d.directory))),
        mock.patch.object(launch.tasks, "report_command", lambda d: (sys.executable, STUB, "report", str(d))),
    ):
        yield


def main(arguments: Sequence[str]) -> int:
    allowed = os.environ.get("DRIVER_MAY_IMPORT", "").split(",")
    for name in set(FORBIDDEN) - set(allowed):
        sys.modules[name] = None  # type: ignore[assignment]
    from launch.__main__ import main as launch_main

    with stubbed():
        return launch_main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
