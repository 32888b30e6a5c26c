"""One rule for results: what is not of this run, its last step, finished, and the trained encoder is never shown."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.describe import describe
from eval.report.content import Report, make_report
from eval.report.records import collect
from eval.report.render.markdown import render_markdown
from eval.schema import EvaluationResult, LinearResult, OtherResult, Refused, RunResult, parse_result, read_evaluation
from tests.eval.rich_studies import add_evaluations
from tests.eval.studies import Place, SyntheticStudy

RUN = RunResult(fingerprint="abcdefabcdef", total_steps=20)
SOUND: dict[str, Any] = {
    "task": "linear",
    "fingerprint": "0123456789ab",
    "run": {"fingerprint": "abcdefabcdef", "step": 20, "finished": True},
    "top1": 83.0,
}


def read(folder: Path, content: Any, **asked: Any) -> EvaluationResult | Refused | None:
    path = folder / "result.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return read_evaluation(path, RUN, **asked)


def of_run(**changes: Any) -> dict[str, Any]:
    return {**SOUND, "run": {**SOUND["run"], **changes}}


def test_a_sound_result_is_typed(tmp_path: Path) -> None:
    result = read(tmp_path, SOUND)
    assert isinstance(result, LinearResult)
    assert (result.top1, result.top5, result.run.step, result.directory) == (83.0, None, 20, tmp_path)
    assert read_evaluation(tmp_path / "none" / "result.json", RUN) is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (of_run(fingerprint="ffffffffffff"), "measured run ffffffffffff, expected abcdefabcdef"),
        (of_run(step=10), "measured step 10, the last is 20"),
        (of_run(finished=False), "before its run had finished"),
        ({**SOUND, "run": None}, "does not say which run"),
        ({**SOUND, "fingerprint": 3}, "is damaged: fingerprint"),
        ("[1, 2]", "expected a mapping, got list"),
        ('{"top1": 83', "is damaged"),
    ],
)
def test_what_is_refused_says_why(tmp_path: Path, content: Any, why: str) -> None:
    refused = read(tmp_path, content)
    assert isinstance(refused, Refused)
    assert why in refused.why
    assert str(refused).startswith(f"{tmp_path}/result.json ")


def test_an_earlier_step_counts_where_it_is_asked_for(tmp_path: Path) -> None:
    assert isinstance(read(tmp_path, of_run(step=10, finished=False), step=10), LinearResult)
    assert isinstance(read(tmp_path, SOUND, step=10), Refused)


def test_numbers_that_are_none(tmp_path: Path) -> None:
    odd = {"top1": float("nan"), "top5": float("inf"), "test_loss": "0.3", "top1_interval": [80.0, None], "l2": True}
    result = read(tmp_path, {**SOUND, **odd})
    assert isinstance(result, LinearResult)
    assert {getattr(result, name) for name in odd} == {None}


def test_somebodys_own_result_keeps_its_numbers() -> None:
    result = parse_result({**SOUND, "task": "mine.module:Sharpness", "sharpness": 0.25})
    assert isinstance(result, OtherResult)
    assert result.own == {"sharpness": 0.25}
    assert "sharpness           0.25" in describe(result)


# The study: two seeds at two batch sizes; what each change does to the first of them.


@pytest.fixture
def study(tmp_path: Path) -> SyntheticStudy:
    study = SyntheticStudy(tmp_path)
    places = [Place(b, {"global_batch_size": b}, [60.0 + b / 100, 70.4]) for b in (64, 256)]
    study.question("batch_size", places, x_key="global_batch_size")
    study.write()
    return study


def report_of(study: SyntheticStudy) -> Report:
    return make_report(collect(study.directory))


def foreign(value: dict[str, Any]) -> None:
    value["run"].update(fingerprint="ffffffffffff", finished=False)


def unfinished(value: dict[str, Any]) -> None:
    value["run"].update(finished=False)


def earlier(value: dict[str, Any]) -> None:
    value["run"].update(step=3)


@pytest.mark.parametrize("change", [foreign, unfinished, earlier])
def test_a_result_of_another_run_is_not_the_points_accuracy(
    study: SyntheticStudy, change: Callable[[dict[str, Any]], None]
) -> None:
    first = study.points[0]
    study.edit(study.probe_result(first.name), change)
    record = collect(study.directory).points[first.name]
    assert record.top1 is None
    assert record.status == "not evaluated"
    text = render_markdown(report_of(study))
    assert "60.64" not in text
    assert "evaluate again" in text


def test_the_launcher_measures_again_what_does_not_count(study: SyntheticStudy) -> None:
    from launch.state import point_state

    point, probe = study.points[0], study.probes[0]
    before = point_state(study.directory, point, study.probes)
    assert (before.stage, before.top1, before.missing_probes) == ("finished", 60.64, ())
    study.edit(study.probe_result(point.name), foreign)
    state = point_state(study.directory, point, study.probes)
    assert (state.stage, state.top1, state.missing_probes) == ("trained", None, (probe,))


def test_a_random_encoder_is_not_the_trained_one(study: SyntheticStudy) -> None:
    from launch.state import point_state

    add_evaluations(study, [study.points[0].name])
    folder = study.run_directory(study.points[0].name) / "eval"

    def drawn_again(value: dict[str, Any]) -> None:
        value["settings"] = {"initialisation": "random"}

    trained = report_of(study)
    assert trained.pictures
    assert any(section.anchor == "features" for section in trained.sections)
    for path in folder.glob("*/result.json"):
        study.edit(path, drawn_again)
    random = report_of(study)
    assert not random.pictures
    assert not any(section.anchor in ("features", "probe-curves") for section in random.sections)
    assert random.studies[0].points[study.points[0].name].top1 is None
    assert point_state(study.directory, study.points[0], study.probes).top1 is None
    protocols = next(section for section in random.sections if section.anchor == "protocols")
    assert "Random encoder, linear" in protocols.tables[0].headers, "under its own name it may be shown"


def test_a_checkpoint_of_another_run_is_not_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Same encoder section, another temperature: another run."""
    from eval.__main__ import main
    from pretrain.checkpoint import checkpoint_path
    from tests.eval.runs import write_data, write_run

    run = write_run(tmp_path / "run", write_data(tmp_path / "data", train=12, test=6))
    other = tmp_path / "other"
    config = run.config.read_text().replace("temperature: 0.1", "temperature: 0.7")
    assert config != run.config.read_text()
    other.mkdir()
    (other / "config.yaml").write_text(config)
    (other / "result.json").write_text(json.dumps({"fingerprint": "0" * 12, "total_steps": 3}))
    (other / "checkpoints").mkdir()
    there = checkpoint_path(run.checkpoints, 3)
    (other / "checkpoints" / there.name).write_bytes(there.read_bytes())
    assert main(["linear", str(other)]) == 1
    assert "is of run" in capsys.readouterr().err
    assert not list(other.glob("eval/*/result.json"))


def test_the_model_card_knows_the_trained_encoder_alone(tmp_path: Path) -> None:
    from eval.__main__ import main
    from tests.eval.runs import write_data, write_run

    run = write_run(tmp_path / "run", write_data(tmp_path / "data", train=36, test=12))
    random = ["knn", str(run.path), "neighbours.neighbours=3", "initialisation=random"]
    assert main(random) == 0
    assert main(["export", str(run.path)]) == 0
    (card,) = run.path.glob("eval/export-*/README.md")
    assert "None yet" in card.read_text()
    assert main(random[:3]) == 0
    assert main(["export", str(run.path)]) == 0
    assert card.read_text().count("nearest neighbours") == 1


def test_an_earlier_checkpoint_is_not_the_finished_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from eval.__main__ import main
    from tests.eval.runs import write_data, write_run

    run = write_run(tmp_path / "run", write_data(tmp_path / "data", train=12, test=6), steps=(3, 5))
    (run.checkpoints / "step_00000005.pt").unlink()
    assert main(["knn", str(run.path)]) == 1
    assert "of step 3, but the run finished at step 5" in capsys.readouterr().err
