"""From a study to its points: each run once, every problem at once, the manifest that the report reads."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from eval.study_manifest import read_manifest, write_manifest
from launch.plan.config import load_study
from launch.plan.graph import StudyGraph, build_graph
from launch.state import study_states
from launch.tasks import missing_tasks
from pretrain.configio import apply_overrides, override_text
from pretrain.errors import ConfigError
from tests.launch.conftest import STUDY, Workplace


def graph_of(path: Path, *overrides: str) -> StudyGraph:
    return build_graph(load_study(path, overrides), str(path))


def problems_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        graph_of(path, *overrides)
    return [str(problem) for problem in caught.value.problems]


def question(**changes: Any) -> dict[str, Any]:
    return {"name": "q", "title": "Q", "x": "epochs", "x_label": "E", "grid": {"epochs": [1, 2]}, **changes}


def test_a_run_that_two_questions_ask_for_is_one_point(workplace: Workplace) -> None:
    graph = graph_of(workplace.study)
    names = [point.entry.name for point in graph.points]
    assert names == [
        "global_batch_size=64,seed=0",
        "global_batch_size=256,seed=0",
        "negatives=8,seed=0",
        "random,seed=0",
    ]
    negatives = graph.manifest.questions[1].curves[0]
    assert negatives.points == ("negatives=8,seed=0", "global_batch_size=256,seed=0")
    assert negatives.x == (14.0, 510.0)


def test_x_is_what_the_question_asked_for_even_if_the_point_is_shared(workplace: Workplace) -> None:
    questions = [STUDY["questions"][0], {**STUDY["questions"][1], "x": "objective.negatives"}]
    graph = graph_of(workplace.write(questions=questions))
    assert graph.manifest.questions[1].curves[0].x == (8.0, 256.0)
    assert len(graph.points) == 4


def test_seeds_make_points_of_their_own(workplace: Workplace) -> None:
    graph = graph_of(workplace.study, "seeds=[0,5]")
    assert len(graph.points) == 8
    assert {point.config.seed for point in graph.points} == {0, 5}
    assert graph.manifest.questions[0].curves[0].x == (64.0, 64.0, 256.0, 256.0)


def test_a_baseline_has_its_own_seeds_and_repeats_a_point_on_other_ranks(workplace: Workplace) -> None:
    again = {"name": "again", "title": "On 2 ranks", "set": {"global_batch_size": 64}, "seeds": [3], "ranks": 2}
    path = workplace.write(seeds=[3, 4], baselines=[again])
    graph = graph_of(path)
    first, *_, last = graph.points
    assert [last.entry.name, last.entry.world_size, last.plan.batch_size_per_rank] == ["again,seed=3", 2, 32]
    assert [first.entry.fingerprint, first.entry.world_size] == [last.entry.fingerprint, 1]
    assert first.entry.directory != last.entry.directory
    (graph.directory / last.entry.directory).mkdir(parents=True)
    (graph.directory / first.entry.directory).mkdir()
    assert [p.entry.directory for p in graph_of(path).points] == [p.entry.directory for p in graph.points]
    task = next(t for t in missing_tasks(graph, study_states(graph.directory, graph.manifest)) if t.point == last)
    assert task.processes == 2
    assert "--nproc-per-node=2" in task.command
    assert len(graph_of(path, "target.ranks=2").points) == len(graph.points) - 1
    elsewhere = {"name": "slurm", "ranks_per_node": 1, "cpus_per_rank": 1}
    assert len(graph_of(workplace.write(seeds=[3, 4], baselines=[again], target=elsewhere)).points) == 6


def test_a_mapping_replaces_the_section(workplace: Workplace) -> None:
    supervised = {"name": "supervised", "title": "S", "set": {"objective": {"name": "supervised"}}}
    path = workplace.write(set={"objective.temperature": 0.3}, baselines=[supervised])
    point = graph_of(path).points[-1]
    assert point.config.objective.name == "supervised"
    assert point.entry.settings == {"objective.name": "supervised"}


def test_later_changes_win(workplace: Workplace) -> None:
    path = workplace.write(set={"epochs": 5}, questions=[question(set={"epochs": 7, "global_batch_size": 128})])
    assert [(p.config.epochs, p.config.global_batch_size) for p in graph_of(path).points[:2]] == [(1, 128), (2, 128)]
    assert graph_of(path).points[-1].config.epochs == 0


def test_grid_and_zip_combine_and_lines_make_curves(workplace: Workplace) -> None:
    asked = question(
        x="global_batch_size",
        lines="epochs",
        zip={"global_batch_size": [64, 128], "schedule.base_learning_rate": [0.1, 0.2]},
    )
    graph = graph_of(workplace.write(questions=[asked], baselines=[]))
    got = {(p.config.epochs, p.config.global_batch_size, p.config.schedule.base_learning_rate) for p in graph.points}
    assert got == {(1, 64, 0.1), (1, 128, 0.2), (2, 64, 0.1), (2, 128, 0.2)}
    assert [(curve.label, curve.x) for curve in graph.manifest.questions[0].curves] == [
        ("epochs = 1", (64.0, 128.0)),
        ("epochs = 2", (64.0, 128.0)),
    ]


def test_all_problems_of_all_points_at_once(workplace: Workplace) -> None:
    axes = {"global_batch_size": [64, 100, 10**6], "objective.temprature": [0.1]}
    path = workplace.write(
        questions=[question(grid={"global_batch_size": [64, 100, 10**6]}, x="epochz"), question(name="r", grid=axes)],
        probes=[{"task": "linaer"}],
    )
    text = "\n".join(problems_of(path, "target.ranks=8"))
    assert "objective.temprature (in questions.r): unknown key (did you mean 'temperature'?)" in text
    assert "global_batch_size (in questions.q at global_batch_size=100): got 100" in text
    assert "96 or 104" in text
    assert "more than the 60000 images" in text
    assert "questions.q.x: got 'epochz' (did you mean 'epochs'?)" in text
    assert "probes.0.task: got 'linaer'" in text
    assert len(problems_of(path, "target.ranks=8")) == 5


def test_a_problem_of_every_point_is_told_once(workplace: Workplace) -> None:
    assert problems_of(workplace.study, "set.optimizer.momentun=0.5", "seeds=[0,1]") == [
        "optimizer.momentun: unknown key (did you mean 'momentum'?); "
        "valid here: betas, momentum, name, trust_coefficient, weight_decay"
    ]


def test_unknown_number_of_images_names_the_command(workplace: Workplace) -> None:
    (problem,) = problems_of(workplace.study, "set.data.dataset=holiday_photos")
    assert f"bigbatch data write holiday_photos {workplace.path / 'data'}" in problem


def test_the_directory_of_another_data_set_is_refused(workplace: Workplace) -> None:
    (workplace.path / "data").mkdir()
    (workplace.path / "data/train.json").write_text("{}")
    (problem,) = problems_of(workplace.study)
    assert problem.startswith("data.directory: ")
    assert "train.json" in problem


def test_x_must_be_a_positive_number_at_every_point(workplace: Workplace) -> None:
    (problem,) = problems_of(workplace.write(questions=[question(x="objective.negatives")]))
    assert "'objective.negatives' is None at some point" in problem
    assert "negatives_per_anchor" in problem
    path = workplace.write(questions=[question(set={"schedule.warmup_epochs": 0}, x="warmup_steps")])
    assert "x_scale: linear" in problems_of(path)[0]


def test_points_are_found_under_whatever_name_they_were_started(workplace: Workplace) -> None:
    first = graph_of(workplace.study).points[0].entry
    moved = workplace.directory / f"points/another_name-{first.fingerprint}"
    moved.mkdir(parents=True)
    assert graph_of(workplace.study).points[0].entry.directory == f"points/another_name-{first.fingerprint}"


def test_ranks_do_not_make_another_point(workplace: Workplace) -> None:
    one, two = graph_of(workplace.study), graph_of(workplace.study, "target.ranks=2")
    assert [p.entry.directory for p in one.points] == [p.entry.directory for p in two.points]
    assert {p.entry.world_size for p in two.points} == {2}


def test_manifest_survives_its_file(workplace: Workplace) -> None:
    manifest = graph_of(workplace.study).manifest
    write_manifest(workplace.directory, manifest)
    assert read_manifest(workplace.directory).model_dump(mode="json") == manifest.model_dump(mode="json")
    assert manifest.questions[0].published
    assert manifest.baselines[0].points == ("random,seed=0",)
    assert manifest.points[0].command.startswith("python -m pretrain ")


def test_a_started_directory_says_how_to_go_on_wherever_it_is(workplace: Workplace) -> None:
    from launch.run import write_study
    from launch.snapshot import take_snapshot

    before = graph_of(workplace.study, "seeds=[4]")
    write_study(take_snapshot(before))
    there = workplace.path / "moved"
    shutil.move(workplace.directory, there)
    workplace.study.unlink()
    (workplace.path / "base.yaml").unlink()
    after = graph_of(there)
    assert [p.entry.fingerprint for p in after.points] == [p.entry.fingerprint for p in before.points]
    assert (after.directory, after.manifest.source) == (there, str(workplace.study))


def test_probe_overrides_read_back_as_they_were(workplace: Workplace) -> None:
    for value in (0.1, 1e-7, True, None, [1.0, 2.0], "word", "3", "true", {"a": 1}):
        assert apply_overrides({}, [f"key={override_text(value)}"]) == {"key": value}
    path = workplace.write(probes=[{"task": "linear", "set": {"seed": 3}}, {"task": "linear", "set": {"seed": 3}}])
    (probe,) = graph_of(path).manifest.probes
    assert probe.overrides == ("seed=3",)
