"""Random studies with everything that can befall their files: no number on the page without a result of its own.

Every run of a study measures a number that no other run measures, so a number that stands on the page says whose result
it was taken from. What may stand there is known beforehand: single values and means of those runs whose result is
theirs, whole, finite and finished.
"""

from __future__ import annotations

import json
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest

from eval.report.content import Report, make_report
from eval.report.records import collect, collect_all
from eval.report.render.html import render_html
from eval.report.render.markdown import render_markdown
from eval.report.sections.runs import results_csv
from pretrain.errors import ConfigError
from tests.eval.studies import Place, SyntheticStudy, evaluation_result

BATCHES, RATES = (64, 256, 1024), (0.1, 0.4)
WEIRD = (None, True, -1, 1e999, math.nan, "", "83.1", [], {}, [None], {"a": 1}, 10**400, [[1]])


def random_study(directory: Path, chance: random.Random) -> tuple[SyntheticStudy, dict[str, float]]:
    """A study, and the accuracy of those of its runs that have a valid one."""
    study = SyntheticStudy(directory)
    places, number = [], 0
    for batch in BATCHES:
        for rate in RATES[: chance.randint(1, 2)]:
            seeds = chance.randint(1, 4)
            tops = [40 + 0.37 * (number + seed) + 0.01 * chance.randint(0, 30) for seed in range(seeds)]
            number += seeds
            settings = {"global_batch_size": batch, "schedule.base_learning_rate": rate}
            places.append(Place(batch, settings, [round(top, 2) for top in tops]))
    study.question("batch_size", places, x_key="global_batch_size", x_label="Batch size (images)")
    study.baseline("random", "Random encoder", [chance.choice([20.11, None]), 20.57], {"epochs": 0})
    study.write()
    truth = {}
    for point in study.points:
        if study.run_directory(point.name).is_dir():
            top = json.loads(study.probe_result(point.name).read_text())["top1"]
            if spoiled(study, point.name, chance):
                continue
            truth[point.name] = top
    return study, truth


def spoiled(study: SyntheticStudy, name: str, chance: random.Random) -> bool:
    """Something that happens to one run; whether its result counts no more."""
    run, result = study.run_directory(name), study.probe_result(name)
    other = study.probe_result(chance.choice([p.name for p in study.points if study.probe_result(p.name).is_file()]))
    match chance.choice(
        ["missing", "damaged", "foreign", "unfinished", "nan", "copied", "random", "step"] + 8 * ["ok"]
    ):
        case "missing":
            result.unlink()
        case "damaged":
            result.write_bytes(result.read_bytes()[: chance.randint(0, 300)])
        case "foreign":
            study.edit(result, lambda value: value["run"].update(fingerprint="ffffffffffff"))
        case "unfinished":
            study.edit(result, lambda value: value["run"].update(finished=False))
        case "nan":
            study.edit(result, lambda value: value.update(top1=chance.choice([math.nan, math.inf, None, "70.1", True])))
        case "copied" if other != result:
            result.write_bytes(other.read_bytes())
        case "random":
            study.edit(result, lambda value: value.update(settings={"initialisation": "random"}))
        case "step":
            study.edit(run / "result.json", lambda value: value.update(total_steps=value["total_steps"] + 1))
        case _:
            # Beside a good one: a result of the same task with other settings, and one of nobody's.
            for mark, fingerprint in (("cafecafecafe", "eeeeeeeeeeee"), ("beefbeefbeef", "")):
                path = result.parent.with_name(f"linear-{mark}") / "result.json"
                study._write(path, {**evaluation_result(99.99, fingerprint, 1), "fingerprint": mark})
            return False
    return True


def shown(report: Report) -> list[tuple[str, float]]:
    """(place, accuracy) of every mark of a question's figure, reference and cell of a table of accuracies."""
    found = []
    for section in report.sections:
        if section.anchor.startswith("question-"):
            for panel in (panel for figure in section.figures for panel in figure.panels):
                found += [("figure", mark.y) for s in panel.series for mark in (*s.marks, *s.singles)]
                found += [("reference", reference.y) for reference in panel.references]
    for row in report.runs:
        for cell in row.cells[2:3]:
            found += [(row.record.name, float(cell.text))] if re.fullmatch(r"[\d.]+", cell.text) else []
    return found


@pytest.mark.parametrize("seed", range(12))
def test_no_number_without_its_result(tmp_path: Path, seed: int) -> None:
    study, truth = random_study(tmp_path / "study", random.Random(seed))
    record = collect(study.directory)
    assert {name: point.top1 for name, point in record.points.items() if point.top1 is not None} == truth
    report = make_report(record)
    groups: dict[str, list[float]] = {}
    for name, top in truth.items():
        groups.setdefault(name.rpartition(",seed=")[0], []).append(top)
    allowed = [*truth.values(), *(sum(tops) / len(tops) for tops in groups.values())]
    for place, value in shown(report):
        if place in truth or place in record.points:
            assert value == pytest.approx(truth[place], abs=0.005), place
        assert any(math.isclose(value, known, abs_tol=0.005) for known in allowed), (place, value)
    page, markdown, table = render_html(report), render_markdown(report), results_csv(record)
    assert "99.99" not in page + markdown + table
    rejected = {p.name for p in study.points} - set(truth)
    for line in table.splitlines()[1:]:
        name = next(point.name for point in study.points if f",{point.fingerprint}," in line)
        assert (f",{truth[name]}," in line) if name in truth else name in rejected
    counted = f"{len(truth)} of {len(study.points)} runs finished"
    assert counted in page if rejected else f"all {len(truth)} runs finished" in page


def places_in(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inside = value.items() if isinstance(value, dict) else enumerate(value[:4]) if isinstance(value, list) else ()
    return [before, *(place for key, item in inside for place in places_in(item, (*before, key)))]


def mutated(content: bytes, json_text: bool, chance: random.Random) -> bytes:
    """One byte, the end, or one value of a JSON text."""
    kind = chance.random()
    if not json_text or kind < 0.2:
        position = chance.randrange(len(content))
        return content[:position] + bytes([chance.randrange(256)]) + content[position + 1 :]
    if kind < 0.3:
        return content[: chance.randrange(len(content))]
    value = json.loads(content)
    *way, last = chance.choice(places_in(value)[1:])
    node = value
    for key in way:
        node = node[key]
    if kind < 0.4:
        del node[last]
    else:
        node[last] = chance.choice(WEIRD)
    return json.dumps(value).encode()


@pytest.mark.parametrize("seed", range(4))
def test_a_mutation_ends_in_a_named_error_or_a_report(tmp_path: Path, seed: int) -> None:
    chance = random.Random(100 + seed)
    study = SyntheticStudy(tmp_path)
    places = [Place(b, {"global_batch_size": b}, [70.0 + b / 100, 71.0]) for b in (64, 256)]
    study.question("batch_size", places, x_key="global_batch_size")
    study.baseline("random", "Random encoder", [47.0, 47.2], {"epochs": 0})
    study.write()
    run = study.run_directory(study.points[0].name)
    names = ("result.json", "environment.json", "config.yaml", "metrics.jsonl")
    files = [study.directory / "study.json", study.probe_result(study.points[0].name), *(run / name for name in names)]
    for path in files * 5:
        content = path.read_bytes()
        path.write_bytes(mutated(content, path.suffix == ".json", chance))
        try:
            report = make_report(collect(study.directory))
            body = render_markdown(report)
        except ConfigError:
            assert path.name == "study.json", path
        else:
            assert path.name != "result.json" or not re.search(r"\b(nan|inf)\b", body, re.IGNORECASE)
        finally:
            path.write_bytes(content)


def test_a_damaged_study_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    study, _ = random_study(tmp_path, random.Random(1))
    for content in (b'{"name": "x', b"\xff\xfe", b"[]"):
        (study.directory / "study.json").write_bytes(content)
        with pytest.raises(ConfigError, match=r"study\.json"):
            collect(study.directory)


def test_a_damaged_line_costs_that_line(tmp_path: Path) -> None:
    study, _ = random_study(tmp_path, random.Random(3))
    path = study.run_directory(study.points[0].name) / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], '{"step": 4, "lo', *lines[3:]]) + "\n")
    record = collect_all([tmp_path])[0].points[study.points[0].name]
    assert len(record.curves) == len(lines) - 1
    assert any("metrics.jsonl has 1 damaged line, left out" in text for text in make_report(collect(tmp_path)).cautions)
