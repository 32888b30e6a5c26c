"""A run is a directory. Every file in it is written whole or not at all, and the finished run has a result.json.

config.yaml plan.json environment.json metrics.jsonl progress.json checkpoints/ eval/<task>-<fingerprint>/ result.json
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import IO, Any

from pretrain.config import PretrainConfig, run_fingerprint

PACKAGES = ("torch", "torchvision", "ffcv", "numba", "numpy", "pydantic", "wandb", "submitit")


@dataclass(frozen=True)
class RunDirectory:
    """Names of the files of one run (or of one evaluation of it)."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def plan(self) -> Path:
        return self.path / "plan.json"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def progress(self) -> Path:
        return self.path / "progress.json"

    @property
    def divergence(self) -> Path:
        """Where a run met numbers that are not finite; gone once it has finished."""
        return self.path / "divergence.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def result(self) -> Path:
        """Exists exactly when the run finished."""
        return self.path / "result.json"

    def evaluation(self, task: str, fingerprint: str) -> Path:
        """Directory of one evaluation; its result.json exists exactly when that finished."""
        return self.path / "eval" / f"{task}-{fingerprint}"

    def finished(self) -> bool:
        """True when the run has its result."""
        return self.result.is_file()


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file that becomes ``path`` when the block ends, and is removed when the block raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    temporary = Path(name)
    try:
        os.fchmod(descriptor, 0o666 & ~_umask())
        with os.fdopen(descriptor, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """``text`` as the whole content of ``path``."""
    with whole_file(path, "w") as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """``value`` as indented JSON; not a number and infinities are refused, since JSON has none."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Value of a JSON file. Raises FileNotFoundError, or ValueError naming the file where it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON's or the encoding's
        raise ValueError(f"{path} is damaged: {error}") from error


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Rows of a .jsonl file; a last line that a crash cut short is left out, a missing file has no rows."""
    if not path.is_file():
        return []
    rows = []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number == len(lines):  # no newline behind it: its writer was killed
                break
            raise ValueError(f"{path}, line {number} is damaged: {error}") from error
    return rows


def environment() -> dict[str, Any]:
    """Versions, git revision and command line that produced a run."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "command": [sys.executable, *sys.orig_argv[1:]],
        "packages": {name: version for name in PACKAGES if (version := _version(name)) is not None},
        "git_revision": git_revision(),
    }


def git_revision() -> str | None:
    """Revision of the checkout of this code, ``-dirty`` where tracked files were changed; None outside git."""
    here = Path(__file__).resolve().parent
    try:
        revision = _git(here, "rev-parse", "HEAD")
        changed = _git(here, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return revision + ("-dirty" if changed else "")


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True, timeout=10
    )
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def directory_of(config: PretrainConfig, source: Path) -> RunDirectory:
    """Where the run lives: the same for the same configuration, so that starting again resumes."""
    return RunDirectory(config.run.directory or config.run.root / f"{source.stem}-{run_fingerprint(config)}")
