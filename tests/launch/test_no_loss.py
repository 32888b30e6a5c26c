"""What a launcher may not do: kill strangers, end with its terminal, replace a study, or ignore what it was told."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.local.process import StopRequest
from launch.local.progress import Progress
from launch.plan.config import load_study
from launch.plan.targets import visible_gpus
from launch.snapshot import take_snapshot
from launch.state import read_record, write_record
from launch.tables import make_console
from pretrain.config import PretrainConfig
from pretrain.configio import apply_overrides, override_text, parse_yaml, validate
from pretrain.errors import ConfigError
from tests.launch.conftest import STUDY, Workplace
from tests.launch.test_graph import graph_of


def test_cancel_does_not_kill_a_process_that_got_the_number_of_a_dead_job(
    launch: Callable[..., int], workplace: Workplace
) -> None:
    launch("study", workplace.study)
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    try:
        point = workplace.point("global_batch_size_64")
        record = read_record(point, "train")
        assert record is not None
        long_ago = {"state": "running", "pid": stranger.pid, "ended": None, "process_started": time.time() - 3600}
        write_record(point, record.model_copy(update=long_ago))
        (workplace.directory / "lock").write_text(f'{{"host": "{os.uname().nodename}", "pid": {stranger.pid}, '
                                                  f'"process_started": {time.time() - 3600}}}')  # fmt: skip
        assert launch("cancel", workplace.directory, "global_batch_size=64") == 0
        assert launch("cancel", workplace.directory) == 0
        assert stranger.poll() is None, "a process of the same number, started an hour later, is a stranger"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    """nohup starts its command with SIGHUP ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest().listening() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.05)
            assert stop.count == 0
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            assert stop.count == 1
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_display_that_cannot_read_does_not_end_the_work(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take_snapshot(graph_of(workplace.study))
    task = next(task for task in snapshot.missing if task.kind == "train")

    def stale(*arguments: object) -> None:
        raise OSError(116, "Stale file handle")

    with Progress(snapshot, make_console()) as progress:
        monkeypatch.setattr("launch.local.progress.point_state", stale)
        progress.started(task)
        progress.tick([task])


def test_another_study_does_not_replace_the_one_in_its_directory(
    launch: Callable[..., int], workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("study", workplace.study) == 0
    before = (workplace.directory / "study.json").read_text()
    capsys.readouterr()
    for other in ({"name": "other"}, {"seeds": [7]}):
        assert launch("study", workplace.write(**other)) == 2
        said = capsys.readouterr().err
        assert "--replace" in said
        assert (workplace.directory / "study.json").read_text() == before
    assert "4 finished runs" in said, "what would be lost"
    assert launch("study", workplace.directory, "set.epochs=2") == 2
    assert launch("study", workplace.directory, "set.epochs=2", "--replace") == 0
    assert launch("study", workplace.directory, "seeds=[0,1]") == 0, "more of the same study is no replacement"


def test_what_a_grid_sets_cannot_be_set_for_all(workplace: Workplace) -> None:
    with pytest.raises(ConfigError, match=r"questions\.negatives sets it itself"):
        load_study(workplace.study, ["set.objective.negatives=4"])


@pytest.mark.parametrize("directory", ["runs/exp #3", "runs/a: b", "runs/1e3", "~odd", "plain"])
def test_any_directory_reaches_the_run_as_it_is(directory: str) -> None:
    data = apply_overrides({}, [f"run.directory={override_text(directory)}"])
    assert data["run"]["directory"] == directory


def test_home_and_variables_are_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    config = validate(PretrainConfig, {"data": {"directory": "$SCRATCH/data"}, "run": {"root": "~/runs"}}, "x")
    assert config.data.directory == Path("/scratch/me/data")
    assert config.run.root == Path.home() / "runs"
    with pytest.raises(ConfigError, match=r"no variable \$NOWHERE"):
        validate(PretrainConfig, {"data": {"directory": "$NOWHERE/data"}}, "x")


def test_yaml_merge_keys_are_read() -> None:
    text = "base: &base {epochs: 1, seed: 3}\nrun: {<<: *base, seed: 4}"
    assert parse_yaml(text, "x")["run"] == {"epochs": 1, "seed": 4}


@pytest.mark.parametrize("text", ["&a [*a]", "{[1]: 2}", "a: &x {b: *x}"])
def test_odd_yaml_is_refused_and_no_traceback(text: str) -> None:
    with pytest.raises(ConfigError, match=r"x\.yaml"):
        parse_yaml(text, "x.yaml")


@pytest.mark.parametrize("override", ["set=abc", "set=[1]", "target=3", "questions=abc", "seeds={a: 1}"])
def test_odd_overrides_are_refused_and_no_traceback(workplace: Workplace, override: str) -> None:
    with pytest.raises(ConfigError):
        load_study(workplace.study, [override])


@pytest.mark.parametrize(("said", "seen"), [("-1", ()), ("", ()), ("0,1", ("0", "1")), ("2,-1,3", ("2",))])
def test_cuda_visible_devices_is_read_as_cuda_does(
    monkeypatch: pytest.MonkeyPatch, said: str, seen: tuple[str, ...]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", said)
    assert visible_gpus() == seen


def test_a_container_that_cannot_run_anything_is_refused(workplace: Workplace) -> None:
    target = {"name": "slurm", "container": "image.sif"}
    with pytest.raises(ConfigError, match="apptainer exec"):
        load_study(workplace.write(target=target))
    assert STUDY["target"]["name"] == "local"
