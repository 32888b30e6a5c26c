"""Whole runs: restarts, signals and dead ranks change nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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
    assert "start the same command again" in log.read_text()
    assert read_json(directory / "progress.json")["state"] == "stopped"
    run_ok(command)
    assert_same_run(directory, undisturbed)


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
