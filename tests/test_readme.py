"""What the README and the pages of docs/ tell people to type works as written."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch.plan.config import load_study
from launch.plan.graph import build_graph
from pretrain.__main__ import plan_of
from pretrain.config import PretrainConfig
from pretrain.configio import load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.S)
COMMANDS = [
    line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line and not line.startswith("#")
]


def words_of(command: str) -> list[str]:
    return shlex.split(command)


def module_commands() -> list[list[str]]:
    found = [words_of(c) for c in COMMANDS if " -m pretrain" in c or " -m eval" in c or " -m launch" in c]
    assert len(found) >= 5
    return found


def named_modules() -> list[tuple[str, ...]]:
    """Every module that is named, with its subcommand where it has some."""
    found = set()
    for words in module_commands():
        module, *arguments = words[words.index("-m") + 1 :]
        found.add((module, *(arguments[:1] if module in ("eval", "launch") else [])))
    return sorted(found)


@pytest.mark.parametrize("named", named_modules(), ids=" ".join)
def test_commands_name_modules_with_help(named: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *named, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_configurations_that_are_named_exist() -> None:
    named = {word for words in map(words_of, COMMANDS) for word in words if word.endswith(".yaml") and "=" not in word}
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_the_pretraining_command_is_a_valid_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    words = next(words for words in module_commands() if words[0] == "torchrun" and "pretrain" in words)
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
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", sorted((ROOT / "configs/study").glob("*.yaml")), ids=lambda p: p.name)
def test_every_study_plans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert build_graph(load_study(path, []), str(path)).manifest.points
