"""A command looks at a study once: no file of a point is read twice, however many points there are."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.snapshot import Snapshot, take_snapshot
from tests.launch.conftest import Workplace

Launch = Callable[..., int]


@pytest.fixture
def opened(workplace: Workplace, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each file below points/ of a finished study was read since the counter was cleared."""
    assert launch("study", workplace.study) == 0
    counter: Counter[Path] = Counter()
    read_text = Path.read_text

    def counted(path: Path, *arguments: str, **options: str) -> str:
        if "points" in path.parts:
            counter[path] += 1
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", counted)
    return counter


def look(place: Workplace, *overrides: str) -> Snapshot:
    return take_snapshot(build_graph(load_study(place.study, overrides), str(place.study)))


@pytest.mark.parametrize("command", ["status", "plan", "study", "study again", "dry run"])
def test_a_command_reads_each_file_once(
    workplace: Workplace, launch: Launch, opened: Counter[Path], command: str
) -> None:
    arguments = {
        "status": ("status", workplace.directory),
        "plan": ("plan", workplace.study),
        "study": ("study", workplace.study),
        "study again": ("study", workplace.directory),
        "dry run": ("study", workplace.study, "--dry-run"),
    }
    assert launch(*arguments[command]) == 0
    results = [path for path in opened if path.name == "result.json"]
    assert len(results) == 8, "a run and an evaluation for each of four points"
    assert set(opened.values()) == {1}


def test_work_is_surrounded_by_one_look_each(workplace: Workplace, launch: Launch, opened: Counter[Path]) -> None:
    (next((workplace.point("negatives_8") / "eval").iterdir()) / "result.json").unlink()
    assert launch("study", workplace.study) == 0
    untouched = workplace.point("random")
    assert opened[untouched / "result.json"] == 3, "before, when the lock is held, and afterwards"


def test_what_a_snapshot_says(workplace: Workplace, launch: Launch) -> None:
    empty = look(workplace)
    assert (empty.up_to_date, empty.report_is_old, empty.manifest_is_old) == (False, False, True)
    assert [task.kind for task in empty.missing] == ["data", *["train", "probe"] * 4]
    launch("study", workplace.study)
    assert look(workplace).up_to_date
    assert look(workplace, "title=Another").report_is_old
    result = workplace.point("negatives_8") / "result.json"
    future = (workplace.directory / "report/report.html").stat().st_mtime + 5
    os.utime(result, (future, future))
    assert (look(workplace).missing, look(workplace).report_is_old) == ((), True)
    result.write_text("{")
    damaged = look(workplace)
    assert (damaged.missing, damaged.up_to_date) == ((), False)
    assert [problem.where for problem in damaged.problems] == ["negatives=8,seed=0"]


def test_damage_is_shown_before_anything_is_printed_or_planned(
    workplace: Workplace, launch: Launch, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("study", workplace.study)
    result = workplace.point("negatives_8") / "result.json"
    result.write_text("{")
    capsys.readouterr()
    assert launch("study", workplace.study, "--dry-run") == 2
    assert f"{result} is damaged" in capsys.readouterr().err
    assert launch("plan", workplace.study) == 0
    assert f"{result} is damaged" in capsys.readouterr().out
