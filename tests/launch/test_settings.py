"""`bigbatch settings`: every setting is named with its type, its default and what it means."""

import subprocess
import sys
from pathlib import Path

import pytest

from eval.config import EVALUATIONS, evaluation_class
from launch.commands.settings import meaning_of, paths_of, reference, show_settings, type_of
from launch.plan.config import StudyConfig
from pretrain.config import PretrainConfig
from pretrain.configio import flatten, parse_yaml, validate
from pretrain.errors import ConfigError
from pretrain.schema import settings_of

ROOT = Path(__file__).resolve().parent.parent.parent
SCHEMAS = {"pretrain": PretrainConfig, "study": StudyConfig, **{task: evaluation_class(task) for task in EVALUATIONS}}


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_setting_says_what_it_means(name: str) -> None:
    kinds = ("name", "architecture")  # what names the kind of its section
    unsaid = {s.path for s in settings_of(SCHEMAS[name]) if s.name not in kinds and not meaning_of(s)}
    assert not unsaid, f"write a comment beside {sorted(unsaid)}"


def test_the_reference_is_what_the_schema_says_now() -> None:
    page = (ROOT / "docs/reference/settings.md").read_text()
    assert page == reference(), "python -m tests.launch.test_settings writes it again"


def test_every_key_of_a_full_configuration_is_listed() -> None:
    keys = set(flatten(PretrainConfig().model_dump(mode="json")))
    assert keys - set(paths_of("pretrain")) == {"augmentation.view_overrides"} - set(paths_of("pretrain"))


def test_a_part_a_whole_and_an_evaluation_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    show_settings("schedule", None, "text")
    text = capsys.readouterr().out
    assert "schedule.warmup_epochs = 10" in text
    assert "encoder" not in text
    show_settings("eval", "knn", "text")
    assert "neighbours.temperature = 0.07" in capsys.readouterr().out
    show_settings("target", None, "text")
    assert "target.ranks = 1" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="did you mean 'schedule'"):
        show_settings("schedul", None, "text")


def test_the_commented_file_is_a_valid_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    show_settings("pretrain", None, "yaml")
    text = capsys.readouterr().out
    assert validate(PretrainConfig, parse_yaml(text, "printed"), "printed") == PretrainConfig()
    assert "# " in text


def test_types_are_said_as_people_write_them() -> None:
    said = {s.path: type_of(s) for s in settings_of(PretrainConfig)}
    assert said["global_batch_size"] == "integer at least 2"
    assert said["data.images"] == "integer above 0 | null"
    assert said["augmentation.crop_area"] == "[low, high]"
    assert said["optimizer"].startswith("section: lars | sgd")


def test_it_is_instant() -> None:
    code = "import sys; sys.modules['torch'] = None; from launch.__main__ import main; main(['settings', 'objective'])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "objective.temperature" in done.stdout


if __name__ == "__main__":
    (ROOT / "docs/reference/settings.md").write_text(reference())
