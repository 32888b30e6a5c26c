"""The command: watching a study that runs, and the copy on wandb."""

from __future__ import annotations

import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from eval.__main__ import main
from eval.report.build import build_report, watch
from eval.report.content import make_report
from eval.report.records import collect
from eval.report.render.wandb import wandb_mode
from tests.eval.studies import Place, SyntheticStudy, evaluation_result


class FakeWandb(types.ModuleType):
    """Takes what the report logs."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__("wandb")
        self.fails, self.started, self.logged, self.finished = fails, [], [], 0
        self.Settings = self.Html = lambda *given, **named: (given, named)
        self.Image = lambda path, caption: (Path(path).read_bytes()[:4], caption)
        self.Table = lambda columns, data: (columns, data)

    def init(self, **options: Any) -> FakeWandb:
        if self.fails:
            raise OSError("no network")
        self.started.append(options)
        return self

    def log(self, values: dict[str, Any]) -> None:
        self.logged.append(values)

    def finish(self, exit_code: int) -> None:
        self.finished += 1


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    module = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def study_of(directory: Path, **config: Any) -> SyntheticStudy:
    study = SyntheticStudy(directory)
    places = [Place(b, {"global_batch_size": b, **config}, [70.0, 70.5]) for b in (64, 256)]
    study.question("batch_size", places, x_key="global_batch_size")
    study.write()
    return study


def test_wandb_gets_table_page_and_images(tmp_path: Path, fake: FakeWandb) -> None:
    study = study_of(tmp_path, **{"log.wandb": "offline", "log.wandb_project": "mine"})
    page = build_report(study.directory, wandb=None)
    (options,), (logged,) = fake.started, fake.logged
    assert (options["mode"], options["project"], options["job_type"]) == ("offline", "mine", "report")
    assert options["dir"] == page.parent
    columns, rows = logged["runs"]
    assert columns[:4] == ["Study", "Run", "Seed", "Top-1 %"]
    assert [row[3] for row in rows] == ["70.00", "70.50", "70.00", "70.50"]
    assert all(row[-1].startswith("torchrun") for row in rows)
    assert logged["figures/batch_size"][0][0].startswith("<svg")
    assert "<!doctype html>" in logged["report"][0][0]
    assert fake.finished == 1
    build_report(study.directory, wandb=None)
    assert len(fake.started) == 1, "the same report is pushed once"
    study.edit(study.probe_result(study.points[0].name), lambda value: value.update(top1=71.0))
    build_report(study.directory, wandb=None)
    assert len(fake.started) == 2


def test_wandb_is_off_where_the_runs_have_it_off(tmp_path: Path, fake: FakeWandb) -> None:
    study = study_of(tmp_path, **{"log.wandb": "disabled"})
    build_report(study.directory, wandb=None)
    assert fake.started == []
    assert wandb_mode([collect(study.directory)]) == "disabled"
    build_report(study.directory, wandb="online")
    assert fake.started[0]["mode"] == "online"
    assert fake.started[0]["resume"] == "allow"


def test_a_failure_of_wandb_is_told_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", FakeWandb(fails=True))
    study = study_of(tmp_path)
    assert main(["report", str(study.directory), "--wandb", "online"]) == 0
    said = capsys.readouterr()
    assert "wandb has no copy of this report: no network" in said.err
    assert "report in" in said.out


def test_watch_follows_a_study_until_it_is_complete(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    later = [(point.fingerprint, point.plan["total_steps"]) for point in study.points[2:]]
    missing = [study.probe_result(point.name) for point in study.points[2:]]
    for path in missing:
        path.unlink()
    page = tmp_path / "report" / "report.html"
    seen: list[str] = []

    def sleep(seconds: float) -> None:
        """Time passes: the page is looked at, and one more evaluation finishes every other time."""
        assert seconds == 5
        seen.append(page.read_text())
        if len(seen) % 2 == 0:
            study._write(missing.pop(), evaluation_result(72.0, *later.pop()))

    watch([study.directory], None, 5, sleep=sleep)
    assert len(seen) == 4
    assert ["2 of 4 runs" in text for text in seen] == [True, True, False, False]
    assert ["3 of 4 runs" in text for text in seen] == [False, False, True, True]
    assert all('http-equiv="refresh" content="5"' in text for text in seen)
    assert not list(page.parent.glob("*.svg")), "figures as files wait for the end"
    final = build_report(study.directory)
    assert "http-equiv" not in final.read_text()
    assert (final.parent / "batch_size.svg").is_file()


def test_nothing_new_builds_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    study.probe_result(study.points[0].name).unlink()
    page = tmp_path / "out" / "report.html"
    ages: list[int] = []

    def sleep(seconds: float) -> None:
        ages.append(page.stat().st_mtime_ns)
        if len(ages) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch([study.directory], page.parent, 1, sleep=sleep)
    assert len(set(ages)) == 1


def test_wrong_arguments_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("0", "soon", "-3"):
        with pytest.raises(SystemExit):
            main(["report", str(tmp_path), "--watch", text])
        assert "expected a number of seconds" in capsys.readouterr().err
    assert main(["report", str(tmp_path), "--watch", "5"]) == 1


def test_report_of_a_study_is_torch_free(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    run = f"m.main(['report', {str(study.directory)!r}])"
    code = f"import sys, eval.__main__ as m; {run}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert make_report(collect(study.directory)).complete
