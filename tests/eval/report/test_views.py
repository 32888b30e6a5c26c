"""Every axis of a grid gets a figure; points that differ in more than the seed never share a mean."""

from __future__ import annotations

import itertools
from pathlib import Path

from eval.report.content import Report, make_report
from eval.report.factors import View, views
from eval.report.records import StudyRecord, collect
from eval.report.statistics import QuestionAnalysis, analyse_view
from eval.report.table import settings_label
from tests.eval.studies import Place, SyntheticStudy


def all_views(study: StudyRecord) -> dict[str, View]:
    return {view.name: view for question in study.manifest.questions for view in views(study, question)}


def one_question(directory: Path, places: list[Place], **values: str) -> StudyRecord:
    study = SyntheticStudy(directory)
    study.question("question", places, **{"x_key": "global_batch_size", **values})
    return collect(study.write())


def test_every_axis_of_a_grid_has_a_figure(grid: StudyRecord, grid_report: Report) -> None:
    names = set(all_views(grid))
    assert names == {
        "batch_size",
        "batch_size-epochs",
        "batch_size-base_learning_rate",
        "temperature",
        "lr_rule",
        "lr_rule-rule",
        "head",
        "head-dropout",
    }
    assert names <= {figure.name for figure in grid_report.figures}
    for section in grid_report.sections:
        if section.anchor.startswith("question-"):
            assert [table.title for table in section.tables][-1] == "Numbers"


def test_epochs_and_batch_sizes_change_places(grid: StudyRecord) -> None:
    found = all_views(grid)
    assert found["batch_size"].curves == ("epochs = 2", "epochs = 4", "epochs = 8")
    assert found["batch_size-epochs"].curves == ("batch size = 64", "batch size = 256", "batch size = 1,024")
    assert {place.x for place in found["batch_size-epochs"].places} == {2, 4, 8}
    assert found["batch_size-base_learning_rate"].panels == ("epochs = 2", "epochs = 4", "epochs = 8")


def test_settings_without_numbers_have_places_with_names(grid: StudyRecord) -> None:
    view = all_views(grid)["lr_rule-rule"]
    assert view.x_scale == "category"
    assert view.categories == ("linear", "sqrt")
    assert view.curves == ("batch size = 64", "batch size = 256", "batch size = 1,024")
    analysis = analyse_view(grid, view)
    assert analysis.slopes == ()
    assert {condition.x_text for condition in analysis.conditions} == {"linear", "sqrt"}


def test_no_mean_mixes_settings(grid: StudyRecord) -> None:
    for view in all_views(grid).values():
        for condition in analyse_view(grid, view).conditions:
            settings = {repr(record.point.settings) for record in condition.records}
            assert len(settings) == 1, (view.name, condition.line, condition.x)


def test_a_third_axis_makes_panels_not_means(tmp_path: Path) -> None:
    places = [
        Place(
            batch,
            {"global_batch_size": batch, "objective.temperature": t, "encoder.width": width},
            [70.0 + width, 70.2 + width],
            f"temperature = {t}",
        )
        for batch, t, width in itertools.product((64, 256), (0.1, 0.5), (0.25, 1.0))
    ]
    study = one_question(tmp_path, places)
    main = views(study, study.manifest.questions[0])[0]
    assert main.panels == ("encoder width = 0.25", "encoder width = 1")
    analysis = analyse_view(study, main)
    assert len(analysis.conditions) == 8
    assert {round(c.mean.value, 6) for c in analysis.conditions if c.mean} == {70.35, 71.1}


def test_best_learning_rate_is_shown_and_said(grid: StudyRecord, grid_report: Report) -> None:
    found = all_views(grid)
    main = analyse_view(grid, found["batch_size"])
    best = {(*c.line, c.x): c for c in main.conditions if c.mean}
    against = analyse_view(grid, found["batch_size-base_learning_rate"])
    for (panel, curve), ringed in against.best_of_lines.items():
        batch = float(curve.rpartition(" ")[2].replace(",", ""))
        shown = best["", panel, batch]
        assert {r.name for r in shown.records} == {r.name for r in ringed.records}
    (remark,) = main.view.remarks
    assert "best base LR of 0.1, 0.3, 1" in remark
    assert "36 other points" in remark
    section = next(s for s in grid_report.sections if s.anchor == "question-batch_size-base_learning_rate")
    assert any("lie at the edge of the grid" in text for text in section.findings)
    marks = [m for panel in section.figures[0].panels for series in panel.series for m in series.marks]
    assert sum(mark.best for mark in marks) == 9


def test_what_changes_together_is_said(tmp_path: Path) -> None:
    places = [Place(b, {"global_batch_size": b, "epochs": b // 32}, [70.0, 71.0]) for b in (64, 256)]
    study = one_question(tmp_path, places)
    (view,) = views(study, study.manifest.questions[0])
    assert view.remarks == ("Changes together with question: epochs (2 at 64, 8 at 256).",)


def test_a_base_value_counts_as_a_level(tmp_path: Path) -> None:
    """The base's own value is in no point's settings; a point that has not started still has a level."""
    places = [
        Place(64, {"global_batch_size": 64}, [70.0, None], "default"),
        Place(64, {"global_batch_size": 64, "encoder.stem": "cifar"}, [72.0, None], "other"),
    ]
    study = one_question(tmp_path, places)
    found = views(study, study.manifest.questions[0])
    assert len(found) == 1, "a batch size that stands still is no axis"
    assert found[0].categories == ("default", "other")
    analysis: QuestionAnalysis = analyse_view(study, found[0])
    assert [c.mean.value if c.mean else None for c in analysis.conditions] == [70.0, 72.0]


def test_another_question_over_the_same_points_is_not_repeated(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    for name, key, other in (("batch", "global_batch_size", "epochs"), ("length", "epochs", "global_batch_size")):
        places = [
            Place(settings[key], settings, [70.0], f"{other} = {settings[other]}")
            for settings in ({"global_batch_size": b, "epochs": e} for b, e in itertools.product((64, 256), (2, 4)))
        ]
        study.question(name, places, x_key=key)
    assert set(all_views(collect(study.write()))) == {"batch", "length"}


def test_an_objective_is_called_by_its_name_and_its_own_settings_are_not_told(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    width = "objective.projector.output_width"
    settings = [{}, {"objective.name": "byol", width: 64}, {"objective.name": "wmse", width: 32}]
    places = [Place(i, found, [70.0 + i, 71.0 + i]) for i, found in enumerate(settings)]
    study.question(
        "objective", places, x_key="objective.name", x_scale="category", categories=("simclr", "byol", "wmse")
    )
    record = collect(study.write())
    labels = {settings_label(point, record) for point in record.points.values()}
    assert {"objective BYOL", "objective W-MSE"} <= labels
    assert not any("width" in label for label in labels)
    (view,) = views(record, record.manifest.questions[0])
    assert view.remarks == ("Each objective comes with settings of its own, as the runs' commands tell.",)


def test_a_learning_rate_is_picked_by_held_out_accuracy(tmp_path: Path) -> None:
    """The rate that looks best on the test images is not shown where held-out images speak for another."""
    study = SyntheticStudy(tmp_path)
    key = "schedule.base_learning_rate"
    tops = {(64, 0.1): 70.0, (64, 0.3): 72.0, (256, 0.1): 75.0, (256, 0.3): 71.0}
    places = [Place(b, {"global_batch_size": b, key: rate}, [top]) for (b, rate), top in tops.items()]
    study.question("q", places, x_key="global_batch_size")
    for point in study.points:
        grid = [{"l2": l2, "held_out": 80.0 - point.settings[key] - l2} for l2 in (0.1, 0.2)]
        study.edit(study.probe_result(point.name), lambda value, grid=grid: value.update(grid=grid))
    record = collect(study.write())
    main, against = views(record, record.manifest.questions[0])
    shown = {c.x: c.mean.value for c in analyse_view(record, main).conditions if c.mean}
    assert shown == {64: 70.0, 256: 75.0}
    assert "picked by held-out accuracy" in main.remarks[0]
    best = analyse_view(record, against).best_of_lines.values()
    assert [condition.x for condition in best] == [0.1, 0.1]
    found = next(s for s in make_report(record).sections if s.anchor == "question-q-base_learning_rate")
    assert any("by held-out accuracy" in text for text in found.findings)


def test_a_label_holds_what_a_grid_varies_at_the_bases_value_too(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    places = [
        Place(t, ({} if b == 256 else {"global_batch_size": b}) | {"objective.temperature": t}, [70.0])
        for b, t in itertools.product((64, 256), (0.1, 0.5))
    ]
    study.question("temperature", places, x_key="objective.temperature", x_scale="log")
    study.question("width", [Place(1, {"encoder.width": 0.5}, [70.0])], x_key="encoder.width")
    study.write()
    (study.directory / "base.yaml").write_text("global_batch_size: 256\n")
    record = collect(study.directory)
    labels = [settings_label(point, record) for point in record.points.values()]
    assert labels == [
        "batch 64, temperature 0.1",
        "batch 64, temperature 0.5",
        "batch 256, temperature 0.1",
        "batch 256, temperature 0.5",
        "width 0.5",
    ]
