"""Tasks on this machine: the readable end of a log, whole trees of processes, shares of cores and GPUs."""

import signal
import sys
import time
from pathlib import Path

import pytest

from launch.local.process import RunningTask, StopRequest, readable_tail, stop_all
from launch.plan import command_lines as command
from launch.plan import targets
from launch.plan.targets import EvaluationResources, LocalTarget, SlurmTarget, overlaps, side_by_side
from launch.tasks import Task
from pretrain.lock import process_exists

TORCHRUN_END = """W1121 23:19:57.100000 8454 .venv/torch/distributed/elastic/multiprocessing/api.py:1028] Sending
Traceback (most recent call last):
ValueError: the cause
E1121 23:19:58.507000 8454 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 1
Traceback (most recent call last):
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_tail_shows_the_cause_and_not_what_torchrun_says_of_it(tmp_path: Path) -> None:
    log = tmp_path / "train.log"
    log.write_text("older\n" + TORCHRUN_END)
    assert readable_tail(log, start=6) == "Traceback (most recent call last):\nValueError: the cause"
    log.write_text(TORCHRUN_END.split("\n", 3)[3])
    assert "ChildFailedError" in readable_tail(log)  # where there is nothing else
    log.write_text("1 %\r50 %\r100 %\n" * 50)
    assert readable_tail(log, lines=3) == "100 %\n100 %\n100 %"


def test_what_does_not_stop_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    command = (sys.executable, "-c", STUBBORN)
    task = Task(key="k", kind="train", stage="train", label="stubborn", command=command, directory=tmp_path)
    running = RunningTask(task)
    while not (text := readable_tail(task.log).split("\n")[-1].strip()).isdigit():
        time.sleep(0.05)
    (outcome,) = stop_all([running], hurry=StopRequest(), grace_s=0.3)
    assert (outcome.state, outcome.exit_status) == ("stopped", -signal.SIGKILL)
    deadline = time.monotonic() + 10
    while process_exists(int(text)):
        assert time.monotonic() < deadline, "the grandchild survived"
        time.sleep(0.05)


def test_a_signal_only_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest().listening() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert (stop.count, stop.number) == (2, signal.SIGTERM)
    assert signal.getsignal(signal.SIGINT) is before


def test_shares_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "cores", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    second = command.job_environment(processes=2, side_by_side=2, first_gpu=2)
    assert (second["OMP_NUM_THREADS"], second["CUDA_VISIBLE_DEVICES"]) == ("2", "2,3")
    assert command.job_environment(processes=2, first_gpu=3)["CUDA_VISIBLE_DEVICES"] == "3,0"
    alone = command.job_environment(processes=16)
    assert alone["OMP_NUM_THREADS"] == "1"
    assert "CUDA_VISIBLE_DEVICES" not in alone


def test_a_probe_beside_training_has_a_gpu_of_its_own_or_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for gpus, ranks, expected in (("", 2, True), ("0,1,2", 2, True), ("0,1", 2, False), ("0,1,2,3", 2, True)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        assert overlaps(LocalTarget(ranks=ranks)) is expected, gpus
    assert overlaps(LocalTarget(ranks=4, overlap_probes=True))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert not overlaps(LocalTarget(ranks=2, evaluation_ranks=2)), "two more are expected, one is left"


def test_evaluations_that_several_ranks_can_share_get_them() -> None:
    run = Path("runs/x")
    local, slurm = (
        LocalTarget(ranks=4, evaluation_ranks=4),
        SlurmTarget(name="slurm", evaluation=EvaluationResources(ranks=4)),
    )
    alone = ("-m", "eval", "tsne", "runs/x", "images=100")
    assert command.probe_command(run, "tsne", ["images=100"], local)[1:] == alone
    together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", "-m", "eval", "finetune", "runs/x")
    assert command.probe_command(run, "finetune", [], local)[1:] == together
    assert command.probe_command(run, "finetune", [], slurm)[1:] == ("-m", "eval", "finetune", "runs/x"), (
        "srun starts 4"
    )
    assert [command.evaluation_ranks(slurm, task) for task in ("finetune", "export")] == [4, 1]


def test_training_command_starts_torchrun_only_for_several_ranks() -> None:
    one, two = (command.training_command(Path("runs/x"), LocalTarget(ranks=ranks))[1:] for ranks in (1, 2))
    assert one == ("-m", "pretrain", "runs/x/requested.yaml", "run.directory=runs/x")
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=2")
    assert two == (*torchrun, *one)


def test_as_many_runs_side_by_side_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "cores", lambda: 12)
    for gpus, ranks, expected in (("", 4, 3), ("", 16, 1), ("0,1,2,3,4,5,6,7", 2, 4), ("0,1", 4, 1)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
        assert side_by_side(LocalTarget(ranks=ranks, concurrent_runs="auto")) == expected
    assert side_by_side(LocalTarget(ranks=4, concurrent_runs=2)) == 2
