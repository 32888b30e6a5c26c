"""All protocols in one table, probe curves, the feature space, speed: what is there, and nothing that is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.report.content import Report, make_report
from eval.report.records import collect
from eval.report.sections.base import Section, Table
from tests.eval.rich_studies import add_evaluations
from tests.eval.studies import Place, SyntheticStudy, quick_study


def section(report: Report, anchor: str) -> Section:
    return next(section for section in report.sections if section.anchor == anchor)


def column(table: Table, header: str) -> dict[str, str]:
    """First cell to the cell below ``header``."""
    index = table.headers.index(header)
    return {row[0].text: row[index].text for row in table.rows}


@pytest.fixture
def small(tmp_path: Path) -> SyntheticStudy:
    study = SyntheticStudy(tmp_path)
    places = [Place(b, {"global_batch_size": b}, [70.0, 70.4]) for b in (64, 256)]
    study.question("batch_size", places, x_key="global_batch_size")
    add_evaluations(study, [point.name for point in study.points[:3]])
    study.write()
    return study


def test_protocols_side_by_side(grid_report: Report) -> None:
    table, by_labels, distilled = section(grid_report, "protocols").tables
    assert table.headers == (
        "Setting",
        "Linear, L-BFGS",
        "Linear, SGD",
        "kNN",
        "kNN, plain vote",
        "Transfer to CIFAR-10",
        "Transfer to CIFAR-100",
    )
    assert {"Random encoder", "Supervised with labels"} <= {row[0].text for row in table.rows}
    assert by_labels.headers == ("Setting", "Method", "1 % of labels", "10 % of labels", "100 % of labels")
    assert [row[1].text for row in by_labels.rows[:4]] == ["random", "supervised", "linear", "fine-tuned"]
    assert distilled.headers[3:5] == ("Student %", "Teacher %")


def test_means_over_seeds_and_what_is_missing(small: SyntheticStudy) -> None:
    table, by_labels, _ = section(make_report(collect(small.directory)), "protocols").tables
    assert column(table, "Linear, L-BFGS") == {"batch 64": "70.20 ± 2.54", "batch 256": "70.20 ± 2.54"}
    transfer = column(table, "Transfer to CIFAR-10")
    assert transfer["batch 64"].startswith("61.50 ± ")
    assert transfer["batch 256"].startswith("63.00 ± ")
    assert transfer["batch 256"].endswith(" [1]")
    assert by_labels.rows[3][4].text.startswith("78.05 ± ")


def test_not_run_is_a_dash_and_nan_is_said(small: SyntheticStudy) -> None:
    first = small.run_directory(small.points[2].name) / "eval" / "transfer-aaaaaaaaaaaa" / "result.json"
    small.edit(first, lambda value: value["rows"][0].update(top1=float("nan")))
    table = section(make_report(collect(small.directory)), "protocols").tables[0]
    assert column(table, "Transfer to CIFAR-10")["batch 256"] == "without accuracy"
    first.unlink()
    table = section(make_report(collect(small.directory)), "protocols").tables[0]
    assert column(table, "Transfer to CIFAR-10")["batch 256"] == "–"


def test_results_of_other_runs_are_left_out(small: SyntheticStudy) -> None:
    for point, change in ((small.points[0], {"fingerprint": "ffffffffffff"}), (small.points[1], {"finished": False})):
        path = small.run_directory(point.name) / "eval" / "transfer-aaaaaaaaaaaa" / "result.json"
        small.edit(path, lambda value, change=change: value["run"].update(change))
    table = section(make_report(collect(small.directory)), "protocols").tables[0]
    assert column(table, "Transfer to CIFAR-10")["batch 64"] == "–"


def test_an_encoder_drawn_anew_is_never_the_runs_accuracy(tmp_path: Path) -> None:
    study = quick_study(tmp_path)
    path = study.probe_result(study.points[0].name)
    study.edit(path, lambda value: value.update(settings={"initialisation": "random"}))
    record = collect(study.write()).points[study.points[0].name]
    assert record.top1 is None
    assert record.status == "without accuracy"


def test_probe_curves(small: SyntheticStudy) -> None:
    found = section(make_report(collect(small.directory)), "probe-curves")
    assert [figure.name for figure in found.figures] == ["probe_top1", "probe_loss"]
    titles = [panel.title for panel in found.figures[0].panels]
    assert "batch 64: linear probe" in titles
    assert "batch 256: fine-tuned, 100 % of labels" in titles
    panel = found.figures[0].panels[0]
    assert [series.label for series in panel.series[:2]] == ["train, seed 0", "test, seed 0"]
    assert found.figures[0].legend == (("train", 0, "category"), ("test", 1, "category"))


def test_feature_space(small: SyntheticStudy) -> None:
    found = section(make_report(collect(small.directory)), "features")
    assert [panel.title for panel in found.figures[0].panels] == ["Alignment", "Uniformity", "RankMe", "Effective rank"]
    assert [picture.title for picture in found.pictures] == ["batch 64", "batch 256"]
    assert all(picture.png.startswith(b"\x89PNG") and len(picture.png) < 200_000 for picture in found.pictures)
    assert "step 100" in found.pictures[0].description
    assert found.notes[-1] == "7 more pictures beside the runs' results."


def test_a_picture_that_is_none_is_left_out(small: SyntheticStudy) -> None:
    folder = small.run_directory(small.points[0].name) / "eval" / "tsne-aaaaaaaaaaaa"
    (folder / "tsne_step_00000100.png").write_bytes(b"\x89PNG cut")
    outside = small.directory / "secret.png"
    outside.write_bytes((folder / "tsne_step_00000010.png").read_bytes())
    other = small.run_directory(small.points[2].name) / "eval" / "tsne-aaaaaaaaaaaa" / "result.json"
    small.edit(other, lambda value: value["rows"][-1].update(picture="../../../../secret.png"))
    assert section(make_report(collect(small.directory)), "features").pictures == ()


def test_speed_says_what_is_not_recorded(small: SyntheticStudy) -> None:
    found = section(make_report(collect(small.directory)), "efficiency")
    assert any("Not recorded by these runs: peak memory, the cost of synchronised" in text for text in found.findings)
    assert any("Weak-scaling efficiency: not known, every run used 2 ranks." in text for text in found.findings)
    for point in small.points:
        small.edit(
            small.run_directory(point.name) / "result.json",
            lambda value: value.update(peak_memory_bytes=3 * 2**30, sync_batch_norm_seconds_per_step=0.002),
        )
    found = section(make_report(collect(small.directory)), "efficiency")
    assert column(found.tables[0], "Peak memory") == {"batch 64": "3.0 GiB", "batch 256": "3.0 GiB"}
    assert column(found.tables[0], "Sync batch norm")["batch 64"].startswith("2.0 ms, ")
    assert any("Not recorded by these runs: the cost of the loss." in text for text in found.findings)


def test_time_to_accuracy_by_the_online_probe(small: SyntheticStudy) -> None:
    for number, point in enumerate(small.points):
        rate = 1000.0 if number < 2 else 2000.0
        rows = [
            {"step": s, "epoch": s / 10, "online_probe_top1": s / 100, "images_per_second": rate}
            for s in range(10, 70, 10)
        ]
        path = small.run_directory(point.name) / "metrics.jsonl"
        rows = [row | {"online_probe_top1": row["online_probe_top1"] + 0.05 * (number > 1)} for row in rows]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = section(make_report(collect(small.directory)), "efficiency")
    table = next(table for table in found.tables if table.title == "Images and time to accuracy")
    assert "online probe" in table.note
    assert column(table, "60 %") == {"batch 64": "3,840 images, 3.8 s", "batch 256": "15,360 images, 7.7 s"}
    assert column(table, "62 %") == {"batch 64": "not reached", "batch 256": "15,360 images, 7.7 s"}


def test_results_of_other_settings_are_marked(small: SyntheticStudy) -> None:
    """A probe that the study does not ask for (any more) has a column of its own, marked, after the study's."""
    path = small.probe_result(small.points[0].name)
    other = path.parent.with_name("linear-cafecafecafe") / "result.json"
    other.parent.mkdir()
    other.write_text(path.read_text())
    small.edit(path, lambda value: value.update(fingerprint="0123456789ab"))
    small.edit(other, lambda value: value.update(fingerprint="cafecafecafe", top1=55.0))
    table = section(make_report(collect(small.directory)), "protocols").tables[0]
    assert [h for h in table.headers if h.startswith("Linear, L-BFGS")] == ["Linear, L-BFGS", "Linear, L-BFGS (cafe)"]
    assert column(table, "Linear, L-BFGS (cafe)") == {"batch 64": "55.00", "batch 256": "–"}


def test_curves_of_other_settings_have_their_own_panels(small: SyntheticStudy) -> None:
    folder = small.run_directory(small.points[0].name) / "eval" / "linear-bbbbbbbbbbbb"
    other = folder.with_name("linear-cccccccccccc") / "result.json"
    other.parent.mkdir()
    other.write_text((folder / "result.json").read_text())
    small.edit(other, lambda value: value.update(fingerprint="cccccccccccc"))
    figure = section(make_report(collect(small.directory)), "probe-curves").figures[0]
    found = {panel.title: len(panel.series) for panel in figure.panels if panel.title.startswith("batch 64: linear")}
    assert found == {"batch 64: linear probe (bbbb)": 4, "batch 64: linear probe (cccc)": 2}
