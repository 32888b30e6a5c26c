"""A new evaluation: two files of the project, or none of it and one of one's own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.additions.tree import Addition

SETTINGS = '''class NormConfig(ProbeConfig):
    """How long the features are."""

    help: ClassVar[str] = "the mean length of the features"
    label: ClassVar[str] = "Mean length"
    runs: ClassVar[str] = "eval.tasks.norm:evaluate_norm"
    power: Annotated[float, Field(gt=0)] = 2.0


# A new evaluation is its settings above, a line here, and the file that `runs` names.
EVALUATIONS: dict[str, type[FeatureConfig]] = {
    "norm": NormConfig,
'''
TASK = '''"""The mean length of the features."""

from __future__ import annotations

from typing import Any

from eval.config import NormConfig
from eval.subject import Subject


def evaluate_norm(subject: Subject, config: NormConfig) -> dict[str, Any]:
    _, test, _ = subject.features()
    return subject.write({"length": float(test.x_ND.norm(config.power, dim=1).mean())}, data={})
'''
OWN = """from typing import ClassVar

from eval.config import ProbeConfig


class Norm(ProbeConfig):
    help: ClassVar[str] = "the mean length of the features"
    power: float = 2.0

    def evaluate(self, subject):
        _, test, _ = subject.features()
        return subject.write({"length": float(test.x_ND.norm(self.power, dim=1).mean())}, data={})
"""
RUN = """
import sys
from pathlib import Path
sys.path.append({root!r})
from tests.eval.runs import write_data, write_run
write_run(Path("run"), write_data(Path("data"), train=36, test=12).absolute())
from eval.__main__ import main
assert main([{task!r}, "run", "power=1.0"]) == 0
assert main([{task!r}, "run", "powr=1.0"]) == 2
from eval.config import evaluation_config
from eval.study_manifest import Probe
"""


def measured(tree: Path) -> dict[str, object]:
    (path,) = tree.glob("run/eval/*orm-*/result.json")
    return dict(json.loads(path.read_text()))


@pytest.fixture
def addition(tmp_path: Path) -> Addition:
    return Addition(tmp_path)


def test_an_evaluation_of_the_project(addition: Addition) -> None:
    last = "# A new evaluation is its settings above, a line here, and the file that `runs` names.\n"
    registry = "EVALUATIONS: dict[str, type[FeatureConfig]] = {\n"
    addition.edit("eval/config.py", last + registry, SETTINGS)
    addition.write("eval/tasks/norm.py", TASK)
    root = str(Path(__file__).resolve().parents[2])
    out = addition.python("-c", RUN.format(root=root, task="norm"))
    assert len(addition.touched) <= 2
    assert "length" in out
    assert measured(addition.tree)["task"] == "norm"
    assert "the mean length of the features" in addition.python("-m", "eval", "--help")


def test_an_evaluation_of_ones_own(addition: Addition) -> None:
    (addition.tree / "mine.py").write_text(OWN)
    root = str(Path(__file__).resolve().parents[2])
    out = addition.python("-c", RUN.format(root=root, task="mine:Norm"))
    assert not addition.touched
    assert "length" in out
    assert measured(addition.tree)["task"] == "mine:Norm"
    study = addition.tree / "study.yaml"
    quick = (addition.tree / "configs/study/quick.yaml").read_text().replace("../", "configs/")
    study.write_text(quick + "  - task: mine:Norm\n    set: {power: 3.0}\n")
    plan = addition.python("-m", "launch", "plan", str(study), "set.data.dataset=synthetic", "set.data.images=1024")
    assert plan
