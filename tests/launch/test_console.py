"""`bigbatch`: one name in front of every command, fast to refuse, the same from a wheel."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from launch.__main__ import COMMANDS, DATA, GROUPS, Elsewhere, main
from launch.commands.settings import completion_script
from tests.launch.conftest import Workplace

ROOT = Path(__file__).resolve().parent.parent.parent
WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from launch.__main__ import main; sys.exit(main())"


def without_torch(*arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", WITHOUT_TORCH, *arguments], cwd=cwd, capture_output=True, text=True)


def test_the_overview_has_every_command_and_its_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert text.index("examples:") < text.index("studies:"), "examples first"
    assert {name for names in GROUPS.values() for name in names} == set(COMMANDS)
    for name in COMMANDS:
        assert f"  {name} " in text


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not isinstance(command, Elsewhere)])
def test_every_command_has_help_without_torch(name: str) -> None:
    done = without_torch(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"bigbatch {name}" in done.stdout
    assert "examples:" in done.stdout


@pytest.mark.parametrize("command", [*COMMANDS.values(), *DATA.values()])
def test_modules_that_commands_are_handed_on_to_exist(command: object) -> None:
    if isinstance(command, Elsewhere) and command.module:
        path = ROOT / (command.module.replace(".", "/") + ".py")
        assert "def main(" in path.read_text(), path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("stduy", "quick"), "did you mean 'study'"),
        (("data", "wrte"), "did you mean 'write'"),
        (("study", "quik"), "did you mean 'quick'"),
        (("study", "cifar10"), "there is a pretrain configuration of that name"),
        (("study", "configs/pretrain/cifar10.yaml"), "bigbatch pretrain"),
        (("pretrain", "configs/study/quick.yaml"), "bigbatch study"),
        (("study", "quick", "epochs=3"), "set.epochs"),
        (("study", "quick", "seeds=5"), "seeds=[5]"),
        (("pretrain", "fashion_mnist", "objective.temprature=1"), "did you mean 'temperature'"),
        (("eval", "linear", "nowhere", "l2=0"), "l2"),
        (("plan", "quick", "--only", "negatvies"), "did you mean 'negatives'"),
    ],
)
def test_a_command_line_is_refused_before_torch_is_imported(arguments: tuple[str, ...], said: str) -> None:
    done = without_torch(*arguments)
    assert done.returncode == 2, done.stderr
    assert said in done.stderr


def test_options_and_settings_stand_in_any_order(launch: Callable[..., int], workplace: Workplace) -> None:
    assert launch("study", workplace.study, "--dry-run", "seeds=[3]") == 0
    assert launch("study", "--dry-run", workplace.study, "seeds=[3]") == 0
    assert launch("study", workplace.study, "seeds=[3]", "--dry-run") == 0
    assert workplace.started() == []


def test_only_some_points_are_run(launch: Callable[..., int], workplace: Workplace) -> None:
    assert launch("study", workplace.study, "--only", "global_batch_size=64") == 0
    assert sum(line.startswith("train") for line in workplace.started()) == 1
    assert launch("study", workplace.study, "--only", "negatives") == 0
    assert sum(line.startswith("train") for line in workplace.started()) == 2, "both of its points"
    written = yaml.safe_load((workplace.directory / "study.yaml").read_text())
    assert "only" not in written, "it is no part of what the study is"
    assert launch("study", workplace.study) == 0
    assert sum(line.startswith("train") for line in workplace.started()) == 1, "the random encoder was left"


def test_a_study_need_not_say_what_follows(launch: Callable[..., int], workplace: Workplace) -> None:
    questions = [{"name": "q", "grid": {"objective.temperature": [0.1, 0.5]}}]
    path = workplace.write(title="", questions=questions, baselines=[{"name": "plain", "set": {"epochs": 2}}])
    assert launch("study", path) == 0
    manifest = json.loads((workplace.directory / "study.json").read_text())
    assert manifest["questions"][0]["title"] == "Effect of objective: temperature"
    assert manifest["questions"][0]["x_key"] == "objective.temperature"
    assert manifest["baselines"][0]["title"] == "plain"


def test_one_run_is_planned_like_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "fashion_mnist", "objective.name=byol", "target.hardware.gpu_memory_gb=24"]) == 0
    text = capsys.readouterr().out
    assert "peak learning rate" in text
    assert "of 24 GB" in text
    assert main(["plan", "fashion_mnist", "--json", "target.ranks=2"]) == 0
    (plan,) = json.loads(capsys.readouterr().out).values()
    assert plan["batch_size_per_rank"] == 128


def test_the_status_as_json(
    launch: Callable[..., int], workplace: Workplace, capsys: pytest.CaptureFixture[str]
) -> None:
    launch("study", workplace.study)
    capsys.readouterr()
    assert launch("status", workplace.directory, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["stage"] for row in rows} == {"finished"}
    assert len(rows) == 4


def test_cleaning_tells_what_it_takes_and_keeps_the_newest_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "points/a"
    for name in ("plan.json", "result.json", "checkpoints/step_00000001.pt", "checkpoints/step_00000002.pt"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(b"x" * 1000)
    features = run / "eval/features-0123/features.npy"
    features.parent.mkdir(parents=True)
    features.write_bytes(b"x" * 200_000)
    assert main(["clean", str(tmp_path)]) == 0
    assert "cached features              0.2 MB" in capsys.readouterr().out
    assert features.is_file()
    assert main(["clean", str(tmp_path), "--features", "--checkpoints"]) == 0
    assert not features.exists()
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step_00000002.pt"]
    assert main(["clean", str(tmp_path / "nothing")]) == 2


def test_a_new_study_for_ones_own_data_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "write", "synthetic", "data/mine"]) == 0
    assert main(["new", "mine", "--data", "data/mine"]) == 0
    assert main(["plan", "mine.yaml"]) == 0
    assert "negatives" in capsys.readouterr().out
    assert main(["new", "mine"]) == 2, "what is there is not overwritten"


def test_the_completion_is_a_script_that_bash_reads() -> None:
    text = completion_script("bash", {"study": ["--only"], "pretrain": ["--ranks"]})
    assert "objective.temperature=" in text
    assert " quick" in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0


def test_help_and_refusals_are_quick() -> None:
    """In processor time of a whole process, which other work on the machine does not change much."""
    for arguments, limit_s in ((["--help"], 0.5), (["pretrain", "fashion_mnist", "lr=1"], 1.5)):
        before = time.process_time()
        usage = subprocess.run(
            [sys.executable, "-c", f"import resource, subprocess, sys; subprocess.run([sys.executable, '-m', 'launch', "
             f"*{arguments!r}], capture_output=True); u = resource.getrusage(resource.RUSAGE_CHILDREN); "
             "print(u.ru_utime + u.ru_stime)"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert float(usage.stdout) < limit_s, arguments
        assert time.process_time() - before < limit_s


def test_a_wheel_in_an_empty_environment_plans_a_shipped_study(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    sources = tmp_path / "sources"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{ROOT}", str(sources)], check=True)
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(sources)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    place, empty = tmp_path / "site", tmp_path / "empty"
    empty.mkdir()
    subprocess.run([*pip, "install", "--no-deps", "--target", str(place), str(wheel)], check=True)
    done = subprocess.run(
        [sys.executable, str(place / "bin/bigbatch"), "plan", "quick"],
        cwd=empty, capture_output=True, text=True, env={"PYTHONPATH": str(place), "PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "global_batch_size=" in done.stdout
