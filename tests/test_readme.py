"""What README, docs/ and the project's other pages tell people to type works as written; every link leads somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from eval.config import evaluation_config
from launch.__main__ import COMMANDS, DATA, Elsewhere, main, parser_of
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from pretrain.__main__ import plan_of
from pretrain.config import PretrainConfig
from pretrain.configio import find_config, load

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.S)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines()]
COMMANDS_SAID = [shlex.split(line) for line in LINES if line and not line.startswith("#")]
OURS = sorted({tuple(words[1:]) for words in COMMANDS_SAID if words[0] == "bigbatch"})
# What a reader has and a fresh clone has not.
PLACES = ("RUN_DIR", "STUDY_DIR", "runs/", "mine.yaml", "birds.yaml", "my_package", "data/mine")


def test_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().split()) < 900


def test_every_command_is_shown_somewhere() -> None:
    shown = {words[0] for words in OURS}
    assert not set(COMMANDS) - shown - {"completion"}


@pytest.mark.parametrize("words", OURS, ids=" ".join)
def test_commands_of_the_pages_are_understood(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    name, *rest = words
    if name == "data":
        name, rest = f"data {rest[0]}", rest[1:]
        assert name.removeprefix("data ") in DATA
        return
    command = COMMANDS[name]
    imagined = any(place in word for word in words for place in PLACES)
    if isinstance(command, Elsewhere):
        _understood_elsewhere(name, rest, imagined)
        return
    given = parser_of(name, command).parse_intermixed_args(rest)
    if name in ("study", "plan") and not imagined:
        assert main(["plan", str(given.study), *given.overrides]) == 0, capsys.readouterr().err
    if name == "settings":
        assert main(list(words)) == 0


def _understood_elsewhere(name: str, rest: list[str], imagined: bool) -> None:
    if name == "eval" and ":" not in rest[0]:
        evaluation_config(rest[0], [word for word in rest[2:] if "=" in word])
    if name == "pretrain" and not imagined:
        ranks = int(rest[rest.index("--ranks") + 1]) if "--ranks" in rest else 1
        source = find_config("pretrain", Path(rest[0]))
        plan = plan_of(load(PretrainConfig, source, [word for word in rest if "=" in word]), ranks, rest[0])
        assert plan.world_size == ranks


def module_commands() -> list[list[str]]:
    return [words for words in COMMANDS_SAID if "-m" in words and "venv" not in words and "pip" not in words]


@pytest.mark.parametrize("module", sorted({words[words.index("-m") + 1] for words in module_commands()}))
def test_modules_that_are_named_have_help(module: str) -> None:
    done = subprocess.run([sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


def test_configurations_that_are_named_exist() -> None:
    named = {word for words in COMMANDS_SAID for word in words if word.startswith("configs/")}
    assert named
    assert not [name for name in named if not (ROOT / name).is_file()]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = [words[1] for words in COMMANDS_SAID if words[0] == "make"]
    assert "study" in targets
    for target in {*targets, "setup"}:
        assert re.search(rf"^{target}:", makefile, flags=re.M), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_settings_that_the_pages_name_exist() -> None:
    from launch.commands.settings import paths_of

    known = {*paths_of("pretrain"), *paths_of("study")}
    sections = {path.split(".")[0] for path in known if "." in path}
    named = set(re.findall(r"`([a-z_]+\.[a-z_.]+?)(?:=[^`]*)?`", TEXT))
    wrong = [k for k in named if k.split(".")[0] in sections and k not in known and not k.endswith(".py")]
    assert not [key for key in wrong if not any(path.startswith(f"{key}.") for path in known)]


def test_the_readmes_python_runs() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.S)
    assert code.count("\n") <= 14
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def command_line_page() -> str:
    """docs/reference/command_line.md: every command's own help."""
    parts = ["# Command line", "", "Printed by `--help`; options and settings may stand in any order.", ""]
    for name, command in COMMANDS.items():
        parts += [f"## bigbatch {name}", ""]
        if isinstance(command, Elsewhere):
            module = f" (`python -m {command.module.removesuffix('.__main__')}`)" if command.module else ""
            parts += [f"{command.help[0].upper()}{command.help[1:]}{module}.", ""]
            continue
        lines = [line.rstrip() for line in parser_of(name, command).format_help().splitlines()]
        parts += ["```", *lines, "```", ""]
    return "\n".join(parts)


def test_the_command_line_page_is_what_help_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    page = (ROOT / "docs/reference/command_line.md").read_text()
    assert page == command_line_page(), "COLUMNS=100 python -m tests.test_readme writes it again"


@pytest.mark.parametrize("path", sorted((ROOT / "configs/study").glob("*.yaml")), ids=lambda p: p.name)
def test_every_study_plans(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert build_graph(load_study(path, []), str(path)).manifest.points


if __name__ == "__main__":
    (ROOT / "docs/reference/command_line.md").write_text(command_line_page())
