"""Whatever happens to the files of a study: the report is built, shows no number that was not measured, and says so."""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path

import pytest

from eval.report.content import make_report
from eval.report.records import collect
from eval.report.render.html import render_html
from eval.report.render.markdown import render_markdown
from eval.report.sections.runs import results_csv
from eval.report.table import ReportData
from tests.eval.rich_studies import add_evaluations
from tests.eval.studies import Place, SyntheticStudy

DAMAGES = ("delete", "cut", "nan", "infinite", "null", "word", "foreign", "untrained", "empty folder")
FALSE_NUMBER = re.compile(r"\b(nan|inf|infinity|none|undefined|null)\b", re.IGNORECASE)


def damage(study: SyntheticStudy, name: str, how: str) -> None:
    """One point's files, as a crash, a bug or a person would leave them."""
    run, result = study.run_directory(name), study.probe_result(name)
    values = {"nan": math.nan, "infinite": math.inf, "null": None, "word": "83.1"}
    match how:
        case "delete":
            result.unlink()
        case "cut":
            result.write_text(result.read_text()[: len(result.read_text()) // 2])
        case "foreign":
            study.edit(run / "result.json", lambda value: value.update(fingerprint="ffffffffffff"))
        case "untrained":
            (run / "result.json").unlink()
            (run / "progress.json").write_text(json.dumps({"state": "training", "step": 3, "total_steps": 9}))
        case "empty folder":
            for path in sorted(run.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        case _:
            study.edit(result, lambda value: value.update(top1=values[how]))
            study.edit(run / "result.json", lambda value: value.update(images_per_second=values[how]))


@pytest.mark.parametrize("seed", range(8))
def test_random_damage(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    study = SyntheticStudy(tmp_path)
    truth = {b: [round(70 + b / 100 + chance.random(), 2) for _ in range(chance.randint(1, 3))] for b in (64, 128, 256)}
    places = [Place(b, {"global_batch_size": b}, list(values)) for b, values in truth.items()]
    study.question("batch_size", places, x_key="global_batch_size", published=True)
    study.question(
        "temperature", [Place(t, {"objective.temperature": t}, [60.0, 61.0]) for t in (0.1, 0.5)], x_scale="log"
    )
    names = [point.name for point in study.points]
    add_evaluations(study, chance.sample(names, 2))
    hurt = {name: chance.choice(DAMAGES) for name in names if chance.random() < 0.5}
    for name, how in hurt.items():
        damage(study, name, how)
    record = collect(study.write())
    report = make_report(record)

    analysis = ReportData((record,)).analyses[record.label][0]
    for condition in analysis.conditions:
        alive = [v for r, v in zip(condition.records, truth[int(condition.x)], strict=True) if r.name not in hurt]
        assert sorted(r.top1 for r in condition.measured if r.top1 is not None) == sorted(alive)
        assert (condition.mean is None) == (not alive)
        if alive and condition.mean:
            assert condition.mean.value == pytest.approx(sum(alive) / len(alive))
    page, markdown, table = render_html(report), render_markdown(report), results_csv(record)
    body = page[page.index("<body>") : page.index("<script>")]
    for text in (re.sub(r"data:image/png;base64,[^\"]*", "", body), markdown, table):
        assert not FALSE_NUMBER.search(text), FALSE_NUMBER.search(text)
    assert f"{len(names) - len(hurt)} of {len(names)} runs finished" in page if hurt else "all" in report.progress
    for name in hurt:
        assert record.points[name].detail in markdown
        assert record.points[name].point.command in page


def test_training_that_diverged_is_named(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    study.question("batch_size", [Place(64, {"global_batch_size": 64}, [70.0, 71.0])], x_key="global_batch_size")
    name = study.points[1].name
    (study.run_directory(name) / "result.json").unlink()
    progress = {"state": "diverged", "step": 12, "total_steps": 400}
    (study.run_directory(name) / "progress.json").write_text(json.dumps(progress))
    report = make_report(collect(study.write()))
    training = next(section for section in report.sections if section.anchor == "training")
    assert training.notes == (f"{name}: diverged, the loss was not a finite number at step 12 of 400.",)
