from pathlib import Path

import pytest

from pretrain.config import AugmentationConfig, PretrainConfig, run_fingerprint
from pretrain.configio import apply_overrides, dump_yaml, find_config, load, parse_yaml, read_yaml, validate
from pretrain.errors import ConfigError
from pretrain.objectives.config import SimCLRConfig

ROOT = Path(__file__).resolve().parent.parent


def problems(data: dict[str, object]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        validate(PretrainConfig, data, "x.yaml")
    assert str(caught.value).startswith("x.yaml: ")
    return {problem.where: problem.message for problem in caught.value.problems}


def test_all_errors_at_once_with_path_value_and_suggestion() -> None:
    found = problems(
        {
            "global_batch_size": "25x",
            "objective": {"name": "simclr", "temprature": 1},
            "optimizer": {"name": "larz"},
            "schedul": {},
            "encoder": {"width": -1},
            "augmentation": {"crop_area": [2, 1], "view_overrides": {1: {"hue": 3}}},
        }
    )
    assert "'25x'" in found["global_batch_size"]
    assert "did you mean 'temperature'?" in found["objective.temprature"]
    assert "negatives" in found["objective.temprature"], "lists what is valid"
    assert "did you mean 'lars'?" in found["optimizer.name"]
    assert "did you mean 'schedule'?" in found["schedul"]
    assert "-1" in found["encoder.width"]
    assert "low <= high" in found["augmentation.crop_area"]
    assert "view 1: hue" in found["augmentation.view_overrides"]
    assert len(found) == 7


def test_unknown_objective_lists_the_known_ones() -> None:
    assert "did you mean 'simclr'?" in problems({"objective": {"name": "simcl"}})["objective.name"]


def test_a_section_without_its_kind_says_so() -> None:
    assert "is required" in problems({"objective": {"temperature": 0.2}})["objective.name"]


def test_yaml_reads_numbers_as_people_write_them_and_refuses_a_key_twice() -> None:
    value = parse_yaml("{a: 3e-1, b: 1e5, c: 3, d: .5, e: '3', f: -2.}", "x")
    assert value == {"a": 0.3, "b": 1e5, "c": 3, "d": 0.5, "e": "3", "f": -2.0}
    assert isinstance(value["c"], int)
    with pytest.raises(ConfigError, match="given twice"):
        parse_yaml("a: 1\na: 2", "x.yaml")


def test_overrides_set_sections_and_report_every_bad_one() -> None:
    data = {"objective": {"name": "simclr", "temperature": 0.1}, "epochs": 3}
    changed = apply_overrides(data, ["objective.temperature=0.2", "data.workers=2", "objective.negatives=null"])
    assert changed == {
        "objective": {"name": "simclr", "temperature": 0.2, "negatives": None},
        "epochs": 3,
        "data": {"workers": 2},
    }
    assert data["objective"] == {"name": "simclr", "temperature": 0.1}, "the given mapping is not changed"
    with pytest.raises(ConfigError) as caught:
        apply_overrides(data, ["epochs", "epochs.x=1", "=3"])
    assert len(caught.value.problems) == 3


def test_words_are_words_and_only_true_and_false_are_booleans() -> None:
    values = parse_yaml("[off, on, yes, no, true, False, 3, 3e-1, null]", "x")
    assert values == ["off", "on", "yes", "no", True, False, 3, 0.3, None]
    config = load(
        PretrainConfig, ROOT / "configs/pretrain/cifar10.yaml", ["precision.autocast=off", "sync_batch_norm=off"]
    )
    assert (config.precision.autocast, config.sync_batch_norm) == ("off", "off")


def test_a_written_configuration_reads_back_equal() -> None:
    augmentation = AugmentationConfig(view_overrides={1: {"blur_probability": 0.1}})
    config = PretrainConfig(augmentation=augmentation, objective=SimCLRConfig(negatives=8))
    assert validate(PretrainConfig, parse_yaml(dump_yaml(config), "written"), "written") == config


def test_view_overrides_change_one_view() -> None:
    config = AugmentationConfig(blur_probability=1.0, view_overrides={1: {"blur_probability": 0.1}})
    assert config.for_view(0).blur_probability == 1.0
    assert config.for_view(1).blur_probability == 0.1
    assert config.for_view(1).hue == config.hue


def test_fingerprint_covers_what_changes_the_result_and_nothing_else() -> None:
    base = PretrainConfig().model_dump()
    reference = run_fingerprint(PretrainConfig())
    assert reference == "cdb0db2a0f91", "runs of earlier versions would be strangers"

    def changed(*overrides: str) -> str:
        return run_fingerprint(validate(PretrainConfig, apply_overrides(base, overrides), "x"))

    same = ["run.root=elsewhere", "data.workers=4", "data.loader=beton", "log.every_steps=1", "checkpoint.keep=9"]
    same += ["device=cpu", "data.directory=other", "objective.negatives=256"]
    for override in same:
        assert changed(override) == reference, override
    different = ["seed=1", "global_batch_size=512", "objective.temperature=0.2", "objective.negatives=128"]
    different += ["encoder.width=2.0", "optimizer.trust_coefficient=0.02", "epochs=1", "data.images=9"]
    different += ["precision.float32=tf32", "precision.deterministic=true", "precision.compile=true"]
    assert len({reference, *map(changed, different)}) == len(different) + 1


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml.*\n.*no such file"):
        read_yaml(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_yaml(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1")
    with pytest.raises(ConfigError, match="not valid YAML"):
        read_yaml(tmp_path / "broken.yaml")


@pytest.mark.parametrize("path", sorted((ROOT / "configs/pretrain").glob("*.yaml")), ids=lambda p: p.name)
def test_every_pretraining_configuration_loads(path: Path) -> None:
    load(PretrainConfig, path)


def load_with(tmp_path: Path, text: str, *overrides: str) -> PretrainConfig:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return load(PretrainConfig, path, overrides)


@pytest.mark.parametrize(
    ("brought", "here"),
    [
        ("lr=3e-3", "schedule.base_learning_rate"),
        ("learning_rate=3e-3", "schedule.base_learning_rate"),
        ("embedding_dim=64", "objective.projector.output_width"),
        ("batch_size=64", "global_batch_size"),
        ("backbone=resnet18", "encoder.architecture"),
        ("num_workers=4", "data.workers"),
        ("objective.tau=0.5", "objective.temperature"),
        ("optimizer.wd=1e-4", "optimizer.weight_decay"),
        ("gpus=8", "--nproc-per-node"),
        ("run.name=mine", "run.directory"),
        ("temperature=0.5", "did you mean 'objective.temperature'"),
        ("warmup_epochs=1", "did you mean 'schedule.warmup_epochs'"),
    ],
)
def test_names_people_bring_are_answered_with_ours(tmp_path: Path, brought: str, here: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_with(tmp_path, "objective: {name: simclr}", brought)
    (problem,) = caught.value.problems
    assert here in problem.message


def test_a_problem_says_which_override_it_comes_from(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_with(tmp_path, "epochs: -2", "global_batch_size=1", "objective={name: simclr, temperature: -1}")
    said = {problem.where: problem.message for problem in caught.value.problems}
    assert "[command line: global_batch_size=1]" in said["global_batch_size"]
    assert "[command line: objective={name" in said["objective.temperature"]
    assert "command line" not in said["epochs"]


def test_another_kind_of_a_section_drops_what_only_the_old_kind_had(tmp_path: Path) -> None:
    text = "objective: {name: simclr, temperature: 0.2, negatives: 8, projector: {output_width: 64}}"
    said: list[str] = []
    path = tmp_path / "run.yaml"
    path.write_text(text)
    config = load(PretrainConfig, path, ["objective.name=byol", "objective.momentum=0.9"], tell=said.append)
    assert config.objective.name == "byol"
    assert config.objective.heads[0].output_width == 256, "the projector was meant for SimCLR"
    assert "objective.temperature, objective.negatives, objective.projector" in said[0]
    kept = load(PretrainConfig, path, ["objective.name=dcl"])
    assert kept.objective.heads[0].output_width == 64, "what means the same stays"
    with pytest.raises(ConfigError, match="objective\\.temperature: unknown key"):
        load(PretrainConfig, path, ["objective.name=byol", "objective.temperature=0.3"])


def test_adam_three_thousandths_and_sixty_four_dimensions(tmp_path: Path) -> None:
    config = load_with(
        tmp_path,
        "{objective: {name: simclr}, optimizer: {name: lars, trust_coefficient: 0.02}}",
        "optimizer.name=adam",
        "schedule.base_learning_rate=3e-3",
        "objective.projector.output_width=64",
    )
    assert (config.optimizer.name, config.schedule.base_learning_rate) == ("adam", 0.003)


def test_shipped_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_config("study", Path("quick")) == ROOT / "configs/study/quick.yaml"
    with pytest.raises(ConfigError, match="did you mean 'quick'"):
        find_config("study", Path("quik"))
    with pytest.raises(ConfigError, match="there is a pretrain configuration of that name"):
        find_config("study", Path("cifar10"))
    Path("quick").mkdir()
    assert find_config("study", Path("quick")) == Path("quick"), "what is there comes first"
