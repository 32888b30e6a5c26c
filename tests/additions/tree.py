"""A copy of the project to which a test makes one addition, counting the files that it had to touch.

An addition is what a person would write: the files inside the project that it creates or edits are its cost. What is
used afterwards (a run, a report) starts from the copy, so nothing here can lean on the project's own tree.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPIED = ("pretrain", "launch", "eval", "configs", "pyproject.toml")


class Addition:
    """A copied tree in ``folder``, and the files of it that were touched so far."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "project"
        self.touched: set[str] = set()
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(
                    source, self.tree / name, ignore=shutil.ignore_patterns("*.pyc")
                )  # compiled kernels come along
            else:
                shutil.copy(source, self.tree / name)

    def write(self, path: str, text: str) -> None:
        """A new file of the project."""
        target = self.tree / path
        assert not target.exists(), f"{path} is there already: edit it"
        target.write_text(text)
        self.touched.add(path)

    def edit(self, path: str, old: str, new: str) -> None:
        """Replace ``old``, which stands once in the file, by ``new``."""
        target = self.tree / path
        text = target.read_text()
        assert text.count(old) == 1, f"{path}: expected {old!r} once, found it {text.count(old)} times"
        target.write_text(text.replace(old, new))
        self.touched.add(path)

    def python(self, *arguments: str, timeout_s: float = 120) -> str:
        """Output of ``python ARGUMENTS`` in the copy; what is imported is the copy's."""
        environment = {**os.environ, "PYTHONPATH": str(self.tree), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
        return done.stdout
