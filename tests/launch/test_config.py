"""Reading studies: paths, overrides, targets, and refusals."""

from pathlib import Path

import pytest

from launch.plan.config import load_study
from pretrain.errors import ConfigError
from tests.launch.conftest import Workplace

ROOT = Path(__file__).resolve().parents[2]


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_study(path, overrides)
    return str(caught.value)


def test_paths_are_relative_to_the_study(workplace: Workplace) -> None:
    assert load_study(workplace.study).base == workplace.path / "base.yaml"


def test_target_may_be_a_file_and_changes_apply_to_it(workplace: Workplace) -> None:
    (workplace.path / "two.yaml").write_text("{name: local, ranks: 2, concurrent_runs: 3}")
    target = load_study(workplace.write(target="two.yaml"), ["target.ranks=4"]).target
    assert (target.ranks, target.concurrent_runs) == (4, 3)
    one = load_study(workplace.write(), [f"target={workplace.path / 'two.yaml'}"])
    assert one.target.concurrent_runs == 3


def test_set_overrides_are_dotted_keys_and_win(workplace: Workplace) -> None:
    path = workplace.write(set={"objective.temperature": 0.1, "epochs": 3})
    changes = load_study(path, ["set.objective.temperature=0.5", "set.device=cpu"]).set
    assert list(changes.items()) == [("epochs", 3), ("objective.temperature", 0.5), ("device", "cpu")]


def test_directory_defaults_to_runs(workplace: Workplace) -> None:
    assert load_study(workplace.study, ["directory=null"]).study_directory == Path("runs/small")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seeds=[0,0]", "expected different seeds"),
        ("seeds=[]", "at least 1"),
        ("target.rank=2", "did you mean 'ranks'"),
        ("targt.ranks=2", "did you mean 'target'"),
        ("questions=[]", ""),
        ("name=../x", "name"),
        ("set.=3", "expected set.section.key=value"),
        ("set.seed=3", "among the study's seeds"),
        ("seeds=5", "seeds=[5] for that one"),
    ],
)
def test_refusals_say_what_is_wanted(workplace: Workplace, override: str, expected: str) -> None:
    if not expected:
        override, expected = "questions=null", "questions"
    assert expected in refusal(workplace.study, override)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "got no axis, expected grid"),
        ({"grid": {"seed": [1]}}, "got seed, expected it among the study's seeds"),
        ({"grid": {"epochs": [1]}, "zip": {"epochs": [1]}}, "got epochs in grid and in zip"),
        ({"zip": {"epochs": [1, 2], "global_batch_size": [64]}}, "epochs has 2, global_batch_size has 1"),
    ],
)
def test_axes_of_a_question(workplace: Workplace, change: dict[str, object], expected: str) -> None:
    question = {"name": "q", "title": "Q", "x": "epochs", "x_label": "E", **change}
    assert expected in refusal(workplace.write(questions=[question]))


def test_names_are_used_once(workplace: Workplace) -> None:
    baseline = {"name": "negatives", "title": "N"}
    assert "got negatives twice" in refusal(workplace.write(baselines=[baseline]))


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ({"name": "slrum"}, "got 'slrum', expected one of local, torchrun, slurm (did you mean 'slurm'?)"),
        ({"name": "slurm", "node": 2}, "target.node: unknown key (did you mean 'nodes'?)"),
        (
            {"name": "slurm", "time_limit_min": 2},
            "a limit of at least 150 s: otherwise a run is asked to stop as it starts",
        ),
        ({"name": "slurm", "gpus_per_node": 4}, "got gpus_per_node 4, expected at least ranks_per_node (8)"),
        (
            {"name": "slurm", "evaluation": {"ranks": 4, "gpus": 2}},
            "got evaluation.gpus 2, expected at least evaluation.ranks",
        ),
        ({"ranks": 2, "evaluation_ranks": 4}, "got evaluation_ranks 4, expected at most ranks (2)"),
        ({"name": "slurm", "sbatch": {"--exclude": "n1"}}, "expected long option names without dashes"),
        ({"name": "torchrun"}, "target.master_address: is required"),
        ({"ranks": 2, "nodes": 2}, "target.nodes: unknown key"),
    ],
)
def test_targets_are_refused_with_what_is_wanted(
    workplace: Workplace, target: dict[str, object], expected: str
) -> None:
    assert expected in refusal(workplace.write(target=target))


def test_a_directory_that_is_no_study(tmp_path: Path) -> None:
    assert "is not a study" in refusal(tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "configs/study").glob("*.yaml")), ids=lambda path: path.name)
def test_every_study_plans_without_its_data(path: Path) -> None:
    from launch.plan.graph import build_graph

    graph = build_graph(load_study(path), str(path))
    assert graph.points


@pytest.mark.parametrize("path", sorted((ROOT / "configs/target").glob("*.yaml")), ids=lambda path: path.name)
def test_every_target_loads(path: Path, workplace: Workplace) -> None:
    assert load_study(workplace.study, [f"target={path}"]).target.name == path.stem
