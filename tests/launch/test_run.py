"""Running a study with stand-ins: what is missing is done, once; what fails is seen; what is stopped goes on."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest

from pretrain.lock import process_exists
from tests.launch.conftest import Workplace

ROOT = Path(__file__).resolve().parents[2]
Launch = Callable[..., int]


def kinds(started: list[str]) -> list[str]:
    return [line.split()[0] for line in started]


def start_in_background(place: Workplace, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.launch.driver", "study", str(place.study), *overrides]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(what: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def hanging_workers(place: Workplace) -> list[int]:
    return [int(text) for path in (place.directory / "points").glob("*/worker") if (text := path.read_text())]


def test_a_study_from_nothing(workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch("study", workplace.study) == 0
    started = workplace.started()
    assert kinds(started) == ["data", *["train", "linear"] * 4, "report"]
    assert started[1].startswith("train random")  # the cheapest first
    printed = capsys.readouterr().out
    assert "87.25" in printed
    assert "80.50" in printed
    assert f"report: {workplace.directory / 'report/report.html'}" in printed
    point = workplace.point("global_batch_size_64")
    assert (point / "requested.yaml").is_file()
    assert json.loads((point / "logs/train.json").read_text())["state"] == "finished"


def test_a_finished_study_starts_nothing(workplace: Workplace, launch: Launch) -> None:
    launch("study", workplace.study)
    workplace.started()
    before = {path: path.stat().st_mtime_ns for path in workplace.directory.rglob("*") if path.is_file()}
    assert launch("study", workplace.study) == 0
    assert launch("study", workplace.directory) == 0
    assert workplace.started() == []
    assert {path: path.stat().st_mtime_ns for path in workplace.directory.rglob("*") if path.is_file()} == before


def test_only_what_is_missing_is_done(workplace: Workplace, launch: Launch) -> None:
    launch("study", workplace.study)
    workplace.started()
    (next((workplace.point("negatives_8") / "eval").iterdir()) / "result.json").unlink()
    launch("study", workplace.study)
    assert kinds(workplace.started()) == ["linear", "report"]
    launch("study", workplace.study, "seeds=[0,1]")
    assert kinds(workplace.started()) == [*["train", "linear"] * 4, "report"]


def test_a_new_title_only_rebuilds_the_report(workplace: Workplace, launch: Launch) -> None:
    launch("study", workplace.study)
    workplace.started()
    launch("study", workplace.write(title="Another title"))
    assert kinds(workplace.started()) == ["report"]


def test_a_failed_point_is_seen_and_stops_no_other(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace.behave("fail:negatives_8")
    assert launch("study", workplace.study) == 1
    assert kinds(workplace.started()) == [
        "data",
        "train",
        "linear",
        "train",
        "linear",
        "train",
        "linear",
        "train",
        "report",
    ]
    printed = capsys.readouterr().out
    assert "the planted cause" in printed
    assert "not started, since train negatives=8,seed=0 failed" in printed
    assert f"train ended with exit status 3; see {workplace.point('negatives_8') / 'logs/train.log'}" in printed
    launch("status", workplace.directory)
    assert "1 failed" in capsys.readouterr().out
    workplace.behave("")
    assert launch("study", workplace.study) == 0
    assert kinds(workplace.started()) == ["train", "linear", "report"]


def test_a_run_without_a_result_has_failed(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace.behave("nothing:global_batch_size_64")
    assert launch("study", workplace.study) == 1
    assert "train ended without a result" in capsys.readouterr().out


def test_failed_data_starts_no_run(workplace: Workplace, launch: Launch) -> None:
    with mock.patch("launch.tasks.data_command", return_value=("false",)):
        assert launch("study", workplace.study) == 1
    assert workplace.started() == []


def test_a_result_of_another_run_is_refused(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("study", workplace.study)
    workplace.started()
    result = workplace.point("negatives_8") / "result.json"
    result.write_text('{"fingerprint": "000000000000"}')
    assert launch("study", workplace.study) == 2
    assert "is the result of run 000000000000" in capsys.readouterr().err
    assert workplace.started() == []


def test_runs_side_by_side(workplace: Workplace, launch: Launch) -> None:
    overrides = ("target.concurrent_runs=2", "target.overlap_probes=true")
    assert launch("study", workplace.study, *overrides) == 0
    started = workplace.started()
    assert sorted(kinds(started)) == sorted(["data", *["train", "linear"] * 4, "report"])
    assert kinds(started)[1:3] == ["train", "train"]


@pytest.mark.parametrize(("behaviour", "signals"), [("hang", 1), ("stubborn", 2)])
def test_signals_stop_every_process_and_the_study_goes_on(
    workplace: Workplace, launch: Launch, behaviour: str, signals: int
) -> None:
    workplace.behave(f"{behaviour}:global_batch_size_64")
    launcher = start_in_background(workplace)
    wait_for(lambda: bool(hanging_workers(workplace)))
    (worker,) = hanging_workers(workplace)
    for _ in range(signals):  # the second is for what does not listen to the first
        launcher.send_signal(signal.SIGTERM)
        time.sleep(0.5)
    printed, _ = launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGTERM, printed
    assert "start the study again" in printed
    record = json.loads((workplace.point("global_batch_size_64") / "logs/train.json").read_text())
    assert record["state"] == "stopped"
    wait_for(lambda: not process_exists(record["pid"]) and not process_exists(worker))
    workplace.behave("")
    assert launch("study", workplace.study) == 0


def test_one_launcher_at_a_time(workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.behave("hang")
    launcher = start_in_background(workplace)
    try:
        wait_for(lambda: bool(hanging_workers(workplace)))
        assert launch("study", workplace.study) == 2
        assert f"is in use by process {launcher.pid}" in capsys.readouterr().err
        launch("status", workplace.directory)
        printed = capsys.readouterr().out
        assert "1 training" in printed
        assert "1 / 4" in printed
        launcher.kill()
        launcher.wait()
        assert launch("study", workplace.study) == 2
        assert "is gone, but a job that it started still runs" in capsys.readouterr().err
    finally:
        launcher.kill()
        launcher.communicate()
        pids = [json.loads(p.read_text())["pid"] for p in (workplace.directory / "points").glob("*/logs/train.json")]
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
        for worker in hanging_workers(workplace):
            os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not any(map(process_exists, pids)))
    launch("status", workplace.directory)
    assert "1 stopped" in capsys.readouterr().out
    workplace.behave("")
    assert launch("study", workplace.study) == 0
    assert "ended without releasing its lock" in capsys.readouterr().out


def test_cancel_stops_the_launcher_and_all_that_it_started(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace.behave("hang:global_batch_size_64")
    launcher = start_in_background(workplace)
    wait_for(lambda: bool(hanging_workers(workplace)))
    (worker,) = hanging_workers(workplace)
    launch("status", workplace.directory)
    assert "1 training" in capsys.readouterr().out
    assert launch("cancel", workplace.directory) == 0
    launcher.communicate(timeout=30)
    assert launcher.returncode == 128 + signal.SIGTERM
    wait_for(lambda: not process_exists(worker))
    assert launch("cancel", workplace.directory) == 0, "there is nothing left to cancel"
    workplace.behave("")
    assert launch("retry", workplace.directory) == 0


def test_cancel_of_one_point_leaves_the_others(workplace: Workplace, launch: Launch) -> None:
    workplace.behave("hang:global_batch_size_64")
    launcher = start_in_background(workplace)
    wait_for(lambda: bool(hanging_workers(workplace)))
    assert launch("cancel", workplace.directory, "global_batch_size=64") == 0
    printed, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 1, printed
    assert "linear negatives=8,seed=0: done" in printed


def test_watching_ends_when_nothing_runs(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    workplace.behave("hang:global_batch_size_64")
    launcher = start_in_background(workplace)
    wait_for(lambda: bool(hanging_workers(workplace)))
    watcher = threading.Thread(target=launch, args=("status", workplace.directory, "--watch", "0.1"))
    watcher.start()
    time.sleep(0.5)
    assert watcher.is_alive()
    launcher.terminate()
    launcher.communicate(timeout=30)
    watcher.join(30)
    assert not watcher.is_alive()
    assert "1 training" in (printed := capsys.readouterr().out)
    assert "global_batch_size=64,seed=0" in printed


def test_logs(workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]) -> None:
    workplace.behave("fail:negatives_8")
    launch("study", workplace.study)
    capsys.readouterr()
    assert launch("logs", workplace.directory, "negatives=8") == 0
    assert "the planted cause" in capsys.readouterr().out
    assert launch("logs", workplace.directory, "negatves=8,seed=0") == 2
    assert "did you mean 'negatives=8,seed=0'" in capsys.readouterr().err
    assert launch("status", workplace.path) == 2
    assert "is not a study" in capsys.readouterr().err


def test_the_launcher_needs_no_torch(workplace: Workplace) -> None:
    for arguments in (["plan", workplace.study], ["study", workplace.study], ["status", workplace.directory]):
        command = [sys.executable, "-m", "tests.launch.driver", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "report" in kinds(workplace.started())


@pytest.mark.parametrize("arguments", [["--help"], ["study", "--help"], ["status", "--help"], ["logs", "--help"]])
def test_help_imports_next_to_nothing(arguments: list[str]) -> None:
    code = (
        "import sys\nfrom launch.__main__ import main\n"
        f"try: main({arguments!r})\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'numpy', 'matplotlib', 'pydantic', 'rich', 'yaml') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.strip().endswith("[]"), done.stdout + done.stderr
