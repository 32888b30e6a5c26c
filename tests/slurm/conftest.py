"""Three clusters and three studies that go on at once; a test looks at one of them."""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.slurm import scenarios
from tests.slurm.cluster import Cluster, why_not


@dataclass
class Scenarios:
    """What happened, by scenario; ``result()`` raises what went wrong in it."""

    undisturbed: Future[scenarios.Study]
    signalled: Future[scenarios.Study]
    stopped: Future[scenarios.Study]


@pytest.fixture(scope="session")
def slurm_here() -> None:
    """Skips where no Slurm can be started; in continuous integration that is a failure."""
    reason = why_not()
    if reason is not None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"no Slurm here: {reason}")


@pytest.fixture(scope="session")
def happened(slurm_here: None) -> Iterator[Scenarios]:
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, ThreadPoolExecutor(3) as threads:
        home = Path(folder)
        home.chmod(0o755)
        with (
            Cluster(home / "a", nodes=2, first_job=1000) as steady,
            Cluster(home / "b", nodes=3, first_job=2000) as signalling,
            Cluster(home / "c", nodes=2, first_job=3000, user_signal=False) as terminating,
        ):
            undisturbed = threads.submit(scenarios.undisturbed, steady, home)
            yield Scenarios(
                undisturbed,
                threads.submit(scenarios.preempted_requeued_and_a_node_lost, signalling, home),
                threads.submit(scenarios.out_of_time_cancelled_and_terminated, terminating, home),
            )
