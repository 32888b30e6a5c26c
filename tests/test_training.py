"""Whole runs: restarts, signals and dead ranks change nothing."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from pretrain.lock import hold_directory, process_exists
from pretrain.rundir import read_json
from tests.training import ROOT, final_weights, losses, rank_pids, run, run_ok, start, torchrun, wait_for_step, written

STEPS = 20
# A short whole run. A gentle learning rate: ReLUs that round to different sides of 0 would else be all there is to see.
SHORT = ("epochs=2", "global_batch_size=64", "data.images=640", "schedule.warmup_epochs=1")
SHORT += ("schedule.base_learning_rate=0.001",)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written("synthetic", tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def undisturbed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("runs") / "two_ranks"
    run_ok(torchrun(directory, data, 2, *SHORT))
    assert len(losses(directory)) == STEPS
    return directory


def assert_same_run(directory: Path, reference: Path) -> None:
    expected = final_weights(reference)
    found = final_weights(directory)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected), "weights differ from the undisturbed run"
    assert losses(directory) == losses(reference)


def test_a_killed_rank_changes_nothing(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    directory, log = tmp_path / "run", tmp_path / "log"
    command = torchrun(directory, data, 2, *SHORT, "checkpoint.every_steps=7")
    process = start(command, log)
    wait_for_step(process, directory, 12, log)
    os.kill(rank_pids(process.pid)[1], signal.SIGKILL)
    assert process.wait(60) != 0
    assert not (directory / "result.json").exists()
    run_ok(command)
    assert_same_run(directory, undisturbed)
    result = read_json(directory / "result.json")
    assert result["restarts"] == 1
    assert result["total_steps"] == STEPS
    share = result["loss_seconds_per_step"] * STEPS / result["train_seconds"]
    assert 0 < share < 1
    assert result["sync_batch_norm_seconds_per_step"] >= 0
    assert "is finished" in run_ok(command), "a third start finds nothing to do"


def test_torchrun_restarts_a_dead_rank_which_goes_on(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    directory, log = tmp_path / "run", tmp_path / "log"
    command = torchrun(directory, data, 2, *SHORT, "checkpoint.every_steps=1000", "checkpoint.every_s=0.001")
    command.insert(4, "--max-restarts=1")
    process = start(command, log)
    wait_for_step(process, directory, 12, log)
    os.kill(rank_pids(process.pid)[1], signal.SIGKILL)
    assert process.wait(120) == 0, log.read_text()[-3000:]
    assert_same_run(directory, undisturbed)
    assert read_json(directory / "result.json")["restarts"] == 1


def test_a_signal_saves_and_the_next_start_goes_on(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    directory, log = tmp_path / "run", tmp_path / "log"
    command = torchrun(directory, data, 2, *SHORT, "checkpoint.every_steps=1000")
    process = start(command, log)
    wait_for_step(process, directory, 3, log)
    os.kill(rank_pids(process.pid)[0], signal.SIGUSR2)  # one rank is told, all agree
    assert process.wait(60) != 0
    assert "rerun the same command" in log.read_text()
    assert read_json(directory / "progress.json")["state"] == "stopped"
    run_ok(command)
    assert_same_run(directory, undisturbed)


def test_the_first_ctrl_c_is_a_request(data: Path, tmp_path: Path) -> None:
    directory, log = tmp_path / "run", tmp_path / "log"
    process = start(torchrun(directory, data, 2, *SHORT, "epochs=100", "checkpoint.every_steps=1000"), log)
    wait_for_step(process, directory, 3, log)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does; torchrun's ranks are in groups of their own
    assert process.wait(60) != 0
    said = log.read_text()
    assert said.count("Ctrl-C: saving after this step") == said.count("Ctrl-C: saved; rerun the same command") == 1
    assert "KeyboardInterrupt" not in said
    assert read_json(directory / "progress.json")["state"] == "stopped"
    assert final_weights(directory)


@pytest.mark.parametrize("after_s", [0.0, 0.4, None], ids=["at the start", "in the imports", "in training"])
def test_ranks_end_with_torchrun_whenever_it_dies(data: Path, tmp_path: Path, after_s: float | None) -> None:
    process = start(torchrun(tmp_path / "run", data, 2, *SHORT, "epochs=1000"), tmp_path / "log")
    while not (ranks := rank_pids(process.pid)):
        assert process.poll() is None
        time.sleep(0.01)
    if after_s is None:
        wait_for_step(process, tmp_path / "run", 3, tmp_path / "log")
    time.sleep(after_s or 0)
    ranks = rank_pids(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 15
    while any(process_exists(pid) for pid in ranks):
        assert time.monotonic() < deadline, (tmp_path / "log").read_text()[-3000:]
        time.sleep(0.05)
    with hold_directory(tmp_path / "run", handover_s=5):  # until the last thread has gone
        pass


def test_another_number_of_ranks_goes_on_with_the_same_stream(data: Path, undisturbed: Path, tmp_path: Path) -> None:
    directory, log = tmp_path / "run", tmp_path / "log"
    process = start(torchrun(directory, data, 4, *SHORT, "checkpoint.every_steps=7"), log)
    wait_for_step(process, directory, 8, log)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run_ok(torchrun(directory, data, 1, *SHORT))
    torch.testing.assert_close(torch.tensor(losses(directory)), torch.tensor(losses(undisturbed)), rtol=1e-5, atol=0)


def test_a_bad_configuration_is_refused_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    command = torchrun(tmp_path / "run", data, 2, "global_batch_size=63", "objective.temprature=1")
    done = run([sys.executable, *command[6:]])
    assert done.returncode == 2
    assert "did you mean 'temperature'" in done.stderr
    done = run([sys.executable, *command[6:-1], "schedule.warmup_epochs=30"])
    assert done.returncode == 2
    assert "longer than the" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_directory_of_another_run_is_refused(data: Path, undisturbed: Path) -> None:
    command = torchrun(undisturbed, data, 2, *SHORT, "seed=5")
    (undisturbed / "result.json").rename(undisturbed / "kept.json")
    try:
        done = run([sys.executable, *command[6:]])
    finally:
        (undisturbed / "kept.json").rename(undisturbed / "result.json")
    assert done.returncode == 2
    assert "choose another" in done.stderr


def test_no_epochs_leaves_the_random_encoder(data: Path, tmp_path: Path) -> None:
    command = torchrun(tmp_path / "run", data, 1, *SHORT[1:3], "epochs=0", "schedule.warmup_epochs=0")
    done = subprocess.run([sys.executable, *command[6:]], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "run/result.json")["total_steps"] == 0
    assert final_weights(tmp_path / "run")
