"""Several studies side by side: one colour each, never pooled, differences with both studies' uncertainty."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.__main__ import main
from eval.report.content import make_report
from eval.report.records import collect_all
from pretrain.errors import ConfigError
from tests.eval.studies import Place, SyntheticStudy

A = {64: [70.0, 70.6, 70.3], 256: [73.0, 73.4, 73.1]}
B = {64: [71.0, 71.2], 256: [72.0, 72.9], 1024: [75.0, 75.5]}


def study(directory: Path, seeds: dict[int, list[float]], **settings: object) -> SyntheticStudy:
    made = SyntheticStudy(directory)
    places = [Place(b, {"global_batch_size": b, **settings}, list(values)) for b, values in seeds.items()]
    made.question("batch_size", places, x_key="global_batch_size", x_label="Batch size (images)", title="Batch size")
    return made


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    first = study(tmp_path / "one", A)
    first.ranks = 2
    second = study(tmp_path / "two", B, **{"objective.temperature": 0.5})
    return first.write(name="cold"), second.write(name="warm")


def test_one_series_for_each_study(pair: tuple[Path, Path]) -> None:
    report = make_report(*collect_all(pair))
    figure = next(figure for figure in report.figures if figure.name == "batch_size")
    (panel,) = figure.panels
    assert [(series.label, series.colour) for series in panel.series] == [("cold", 0), ("warm", 1)]
    assert figure.legend == (("cold", 0, "category"), ("warm", 1, "category"))
    means = [[round(mark.y, 4) for mark in series.marks] for series in panel.series]
    assert means == [[round(float(np.mean(v)), 4) for v in seeds.values()] for seeds in (A, B)]
    assert "cold\nbatch size = 64" in panel.series[0].marks[0].tip


def test_differences_are_paired_by_seed_and_hold_together(pair: tuple[Path, Path]) -> None:
    report = make_report(*collect_all(pair))
    table = report.sections[0].tables[0]
    assert table.headers == ("Batch size (images)", "cold", "warm", "warm − cold")
    assert [row[3].text.split(" ")[0] for row in table.rows] == ["+0.80", "−0.75", "–"]
    gaps = np.array([[b - a for a, b in zip(A[size], B[size])] for size in A])
    within, seeds = float(gaps.var(axis=1).sum() * 2), float(2 * gaps.mean(0).var() * 2)
    freedom = within**2 / (seeds**2 + (within - seeds) ** 2)
    half = stats.t.ppf(1 - 0.025 / 2, freedom) * np.sqrt(within / 2 / 2)
    assert table.rows[0][3].text == f"+0.80 ({0.8 - half:+.2f} to {0.8 + half:+.2f})".replace("-", "−")
    assert any("allowing for the choice among 2 places" in text for text in report.sections[0].findings)


def test_the_same_name_over_another_axis_is_another_question(tmp_path: Path) -> None:
    paths = []
    for name, key in (("one", "epochs"), ("two", "objective.temperature")):
        made = SyntheticStudy(tmp_path / name)
        made.question("ours", [Place(x, {key: x}, [70.0 + x, 71.0]) for x in (1, 2)], x_key=key)
        paths.append(made.write(name=name))
    report = make_report(*collect_all(paths))
    assert [figure.name for figure in report.figures][:2] == ["ours-one", "ours-two"]
    assert [section.anchor for section in report.sections][:2] == ["question-ours-one", "question-ours-two"]


def test_what_differs_is_said(pair: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *map(str, pair)]) == 0
    page = Path(capsys.readouterr().out.strip().removeprefix("report in "))
    assert page == pair[0].parent / "report-cold-warm" / "report.html"
    text = page.read_text()
    assert "What differs between the studies" in text
    assert "Temperature</td>" in text
    markdown = (page.parent / "report.md").read_text()
    assert "| cold | batch 64 | 0 |" in markdown
    assert (page.parent / "results.csv").read_text().splitlines()[0].startswith("study,point,")
    assert not (pair[0] / "report").exists()


def test_studies_of_one_name_are_told_apart(tmp_path: Path) -> None:
    paths = [study(tmp_path / name, A).write() for name in ("a", "b")]
    assert [record.label for record in collect_all(paths)] == ["a", "b"]
    report = make_report(*collect_all(paths))
    assert any("are the same configuration and seed" in text for text in report.sections[0].findings)
    with pytest.raises(ConfigError, match="given twice"):
        collect_all([paths[0], paths[0] / ".." / "a"])


def test_missing_points_of_one_study_stay_its_own(tmp_path: Path) -> None:
    first = study(tmp_path / "one", A).write(name="one")
    second = study(tmp_path / "two", {64: [71.0, 71.4], 256: [None, None]}).write(name="two")  # type: ignore[list-item]
    report = make_report(*collect_all([first, second]))
    (panel,) = next(f for f in report.figures if f.name == "batch_size").panels
    assert [len(series.marks) for series in panel.series] == [2, 1]
    assert all(cross.tip.startswith("two\n") for cross in panel.missing)
    assert len(panel.missing) == 2
    assert report.sections[0].tables[0].rows[1][2].text == "not started"
    assert report.sections[0].tables[0].rows[1][3].text == "–"


def test_questions_of_one_study_alone_are_shown_as_such(tmp_path: Path) -> None:
    first = study(tmp_path / "one", A)
    places = [Place(t, {"objective.temperature": t}, [70.0, 70.5]) for t in (0.1, 0.5)]
    first.question("temperature", places, x_key="objective.temperature", x_scale="log")
    report = make_report(*collect_all([first.write(name="one"), study(tmp_path / "two", B).write(name="two")]))
    section = next(s for s in report.sections if s.anchor == "question-temperature")
    assert "Only in one." in section.findings
    assert section.remark.startswith("Not part of two.")


def test_weak_scaling_across_studies(tmp_path: Path) -> None:
    """8 ranks at 512 images against 2 ranks at 128: the same batch per rank."""
    paths = []
    for ranks, batch, rate in ((2, 128, 2000.0), (8, 512, 6000.0)):
        made = SyntheticStudy(tmp_path / f"r{ranks}", ranks=ranks)
        made.question("b", [Place(batch, {"global_batch_size": batch}, [70.0, 71.0])], x_key="global_batch_size")
        for point in made.points:
            made.edit(made.run_directory(point.name) / "result.json", lambda v, r=rate: v.update(images_per_second=r))
        paths.append(made.write(name=f"r{ranks}"))
    report = make_report(*collect_all(paths))
    speed = next(section for section in report.sections if section.anchor == "efficiency")
    table = next(table for table in speed.tables if table.title == "Weak scaling")
    assert [row[-1].text for row in table.rows] == ["100 %", "75 %"]
    assert not any("not known" in text for text in speed.findings)
