"""Names break no table and no page; watching draws again only what has changed; many runs become bands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from eval.report.build import watch
from eval.report.content import make_report
from eval.report.figures import svg
from eval.report.records import collect
from eval.report.render.html import render_html
from eval.report.render.markdown import code, escape, render_markdown
from eval.report.sections.curves import POINTS_PER_PAGE
from tests.eval.studies import Place, SyntheticStudy, evaluation_result, quick_study

NAMES = {
    "a|b": r"a\|b",
    "`rm`": r"\`rm\`",
    "<b>x</b>": r"\<b>x\</b>",
    "_x_ and a_b_c": r"\_x\_ and a_b_c",
    "*x* ~~y~~": r"\*x\* \~\~y\~\~",
    "two\nlines\r\n": "two lines",
    r"back\slash|": r"back\\slash\|",
    "[x](javascript:y)": r"\[x\](javascript:y)",
    "# x": r"\# x",
    "1. x": r"1\. x",
    "- x": r"\- x",
    "&lt;": r"\&lt;",
    "83.10 % (−0.5) [2], points/x_y=1.json": "83.10 % (−0.5) [2], points/x_y=1.json",
}


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    assert escape(name) == NAMES[name]
    assert escape(escape(name)) == NAMES[name], "once"


def test_code_stays_in_its_block() -> None:
    assert code("echo ```x```") == "````\necho ```x```\n````"


def test_hostile_titles_break_neither_table_nor_page(tmp_path: Path) -> None:
    study = quick_study(tmp_path)
    hostile = "a|b `c` <img src=x onerror=alert(1)> _d_\n| e |"
    study.baselines = [b.model_copy(update={"title": hostile}) for b in study.baselines]
    report = make_report(collect(study.write(title=hostile)))
    markdown, page = render_markdown(report), render_html(report)
    for block in re.findall(r"(?:^\|.*\n)+", markdown, re.M):
        bars = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(bars) == 1, block
    assert "<img src=x" not in page
    assert not re.search(r"(?<!\\)<img", markdown)


def study_with_gaps(directory: Path) -> SyntheticStudy:
    study = SyntheticStudy(directory)
    for name, key in (("batch_size", "global_batch_size"), ("epochs", "epochs")):
        places = [Place(x, {key: x}, [70.0 + x / 100, 70.5]) for x in (64, 256)]
        study.question(name, places, x_key=key)
    study.write()
    return study


def test_watching_draws_again_only_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with_gaps(tmp_path)
    first, never = (study.points[i] for i in (0, -1))
    for point in (first, never):
        study.probe_result(point.name).unlink()
    drawn: list[str] = []
    steps: list[list[str]] = []
    draws = svg.shapes

    def counted(panel: object, frame: object) -> object:
        drawn.append(panel.title)  # type: ignore[attr-defined]
        return draws(panel, frame)  # type: ignore[arg-type]

    monkeypatch.setattr(svg, "shapes", counted)
    svg.draw.cache_clear()

    def sleep(seconds: float) -> None:
        """Everything, nothing new, something new that shows nowhere, one new result: four looks at what was drawn."""
        steps.append(sorted(set(drawn)))
        drawn.clear()
        if len(steps) == 2:
            (study.run_directory(never.name) / "progress.json").write_text("{}")
        if len(steps) == 3:
            result = evaluation_result(71.0, first.fingerprint, first.plan["total_steps"])
            study._write(study.probe_result(first.name), result)
        if len(steps) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        watch([study.directory], None, 1, sleep=sleep)
    assert {"Effect of batch_size", "Effect of epochs", "Throughput"} <= set(steps[0])
    assert steps[1] == steps[2] == []
    assert "Effect of batch_size" in steps[3]
    assert not {"Effect of epochs", "Throughput"} & set(steps[3])
    assert not any("seed" in title or title.startswith("batch") for title in steps[3]), "curves have not changed"


def test_many_runs_become_a_mean_and_a_band(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    sizes = (64, 128, 256, 512, 1024, 2048, 4096)
    places = [Place(b, {"global_batch_size": b}, [70.0, 70.4, 70.2, 70.1]) for b in sizes]
    study.question("batch_size", places, x_key="global_batch_size", title="Batch size")
    study.baseline("supervised", "Supervised", [90.0, 90.1], {"objective": {"name": "supervised"}})
    report = make_report(collect(study.write()))
    (training,) = (section for section in report.sections if section.anchor == "training")
    loss = next(figure for figure in training.figures if figure.name == "training_loss")
    assert [panel.title for panel in loss.panels] == ["Batch size", "For comparison"]
    assert [series.label for series in loss.panels[0].series] == ["64", "128", "256", "512", "1,024", "2,048", "4,096"]
    (band,) = loss.panels[1].series
    for mark in band.marks:
        assert mark.low is not None
        assert mark.high is not None
        assert mark.low <= mark.y <= mark.high
    assert any(mark.low < mark.high for mark in band.marks if mark.low is not None and mark.high is not None)
    every = [s for figure in training.figures for panel in figure.panels for s in panel.series]
    assert sum(len(series.marks) for series in every) <= POINTS_PER_PAGE
    assert "band from the lowest to the highest" in training.remark
