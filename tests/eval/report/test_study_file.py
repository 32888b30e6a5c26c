"""From a study's YAML to its figures: a grid over anything, numbers or not, needs no code."""

from __future__ import annotations

from pathlib import Path

import yaml

from eval.report.content import make_report
from eval.report.factors import views
from eval.report.records import collect
from eval.study_manifest import write_manifest
from launch.plan.config import load_study
from launch.plan.graph import build_graph

STUDY = Path(__file__).parents[3] / "configs/study/ablations.yaml"


def test_every_key_of_the_ablations_gets_a_figure(tmp_path: Path) -> None:
    graph = build_graph(load_study(STUDY, [f"directory={tmp_path}"]), str(STUDY))
    write_manifest(tmp_path, graph.manifest)
    unknown = collect(tmp_path)
    texts = [view.remarks for question in unknown.manifest.questions for view in views(unknown, question)]
    assert any("as in the base at sqrt" in text for remarks in texts for text in remarks), "a value is never made up"
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(graph.base))
    study = collect(tmp_path)
    found = {view.name: view for question in study.manifest.questions for view in views(study, question)}
    assert set(found) == {
        "positives",
        "positives-grayscale_probability",
        "dropout",
        "head",
        "head-output_width",
        "temperature",
        "lr_rule",
        "lr_rule-global_batch_size",
    }
    rule = found["lr_rule"]
    assert (rule.x_scale, rule.categories) == ("category", ("linear", "sqrt", "none"))
    assert rule.curves == ("batch size = 64", "batch size = 256", "batch size = 1024")
    assert rule.remarks == (
        "Changes together with learning-rate rule: base LR (0.4 at linear, 0.025 at sqrt, 0.4 at none).",
    )
    assert found["lr_rule-global_batch_size"].curves == ("LR rule = linear", "LR rule = sqrt", "LR rule = none")
    assert [place.x for place in rule.places[:6]] == [0, 0, 1, 1, 2, 2]
    report = make_report(study)
    assert report.progress.startswith("0 of")
    assert all("Nothing has been measured yet." in s.findings for s in report.sections if s.headline)
