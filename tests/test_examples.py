"""The programs in examples/ run as their first lines say."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.eval.runs import write_data, write_run

ROOT = Path(__file__).resolve().parent.parent


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.mark.slow
def test_the_plain_loop_learns_the_same_on_one_and_two_ranks() -> None:
    one = run("examples/plain_loop.py")
    two = run("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "examples/plain_loop.py")
    assert one.splitlines() == two.splitlines()
    first, *_, last = (float(line.split()[-1]) for line in one.splitlines())
    assert last < first


def test_an_encoder_in_torchvision_and_timm(tmp_path: Path) -> None:
    write_run(
        tmp_path / "run", write_data(tmp_path / "data", train=24, test=12), architecture="resnet18", stem="imagenet"
    )
    assert run("examples/encoder_elsewhere.py", str(tmp_path / "run"), "--timm").split() == [
        "torchvision:", "True", "timm:", "True"
    ]  # fmt: skip


def test_results_in_pandas(tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.mkdir()
    rows = ["point,seed,global_batch_size,top1", "a,0,64,80.0", "b,1,64,82.0", "c,0,256,85.0"]
    (report / "results.csv").write_text("\n".join(rows))
    assert "81.0" in run("examples/results_in_pandas.py", str(tmp_path))
