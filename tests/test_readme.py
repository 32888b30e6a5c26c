"""What the README tells people to type works as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch.config import load_study
from launch.graph import build_graph
from pretrain.__main__ import plan_of
from pretrain.config import PretrainConfig
from pretrain.configio import load

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.S)
COMMANDS = [
    line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")
]


def words_of(command: str) -> list[str]:
    return shlex.split(command)


def module_commands() -> list[list[str]]:
    found = [words_of(c) for c in COMMANDS if " -m pretrain" in c or " -m eval" in c or " -m launch" in c]
    assert len(found) >= 5
    return found


@pytest.mark.parametrize("words", module_commands(), ids=" ".join)
def test_commands_name_modules_with_help(words: list[str]) -> None:
    module = words[words.index("-m") + 1]
    arguments = words[words.index("-m") + 2 :]
    subcommand = arguments[:1] if module in ("eval", "launch") else []
    done = subprocess.run(
        [sys.executable, "-m", module, *subcommand, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_the_pretraining_command_is_a_valid_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = next(words for words in module_commands() if words[0] == "torchrun")
    ranks = int(words[words.index("--nproc-per-node") + 1])
    config, *overrides = words[words.index("pretrain") + 1 :]
    plan = plan_of(load(PretrainConfig, Path(config), overrides), ranks, config)
    assert plan.world_size == ranks


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words_of(command)[1] for command in COMMANDS if command.startswith("make ")]
    assert "study" in targets
    for target in {*targets, "setup"}:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("path", sorted((ROOT / "configs/study").glob("*.yaml")), ids=lambda p: p.name)
def test_every_study_plans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert build_graph(load_study(path, []), str(path)).manifest.points
