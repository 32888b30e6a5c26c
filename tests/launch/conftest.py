"""A small study on disk, and the launcher with stand-ins for what it starts."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.__main__ import main
from tests.launch.driver import stubbed
from tests.launch.stub import BEHAVIOUR, COUNTER

BASE = {
    "global_batch_size": 256,
    "epochs": 1,
    "data": {"dataset": "fashion_mnist"},
    "objective": {"name": "simclr"},
    "augmentation": {"crop_size_px": 28},
    "schedule": {"rule": "sqrt", "base_learning_rate": 0.075, "warmup_epochs": 0.1},
}
STUDY: dict[str, Any] = {
    "name": "small",
    "title": "A small study",
    "base": "base.yaml",
    "target": {"name": "local", "ranks": 1, "overlap_probes": False},
    "seeds": [0],
    "questions": [
        {
            "name": "batch_size",
            "title": "Batch size",
            "x": "global_batch_size",
            "x_label": "Batch size",
            "grid": {"global_batch_size": [64, 256]},
            "published": True,
        },
        {
            "name": "negatives",
            "title": "Negatives",
            "x": "negatives_per_anchor",
            "x_label": "Negatives",
            "grid": {"objective.negatives": [8, 256]},
        },
    ],
    "baselines": [{"name": "random", "title": "Random", "set": {"epochs": 0, "schedule.warmup_epochs": 0}}],
    "probes": [{"task": "linear"}],
}


@dataclass
class Workplace:
    """Where a test's study lives."""

    path: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def study(self) -> Path:
        return self.path / "study.yaml"

    @property
    def directory(self) -> Path:
        return self.path / "out"

    def write(self, **changes: Any) -> Path:
        """The study with ``changes`` to its top-level keys."""
        directories = {"directory": str(self.directory), "set": {"data.directory": str(self.path / "data")}}
        self.study.write_text(yaml.safe_dump({**STUDY, **directories, **changes}))
        (self.path / "base.yaml").write_text(yaml.safe_dump(BASE))
        return self.study

    def behave(self, text: str) -> None:
        """What the stand-ins do from now on."""
        self.monkeypatch.setenv(BEHAVIOUR, text)

    def started(self) -> list[str]:
        """Jobs that were started since the last call, as ``kind directory``."""
        counter = self.path / "counter"
        lines = counter.read_text().splitlines() if counter.is_file() else []
        counter.unlink(missing_ok=True)
        return [line.rpartition(" ")[0] for line in lines]

    def point(self, start: str) -> Path:
        """Directory of the point whose name starts so."""
        (found,) = (self.directory / "points").glob(f"{start}*")
        return found


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.setenv(COUNTER, str(tmp_path / "counter"))
    monkeypatch.delenv(BEHAVIOUR, raising=False)
    place = Workplace(tmp_path, monkeypatch)
    place.write()
    return place


@pytest.fixture
def launch() -> Iterator[Callable[..., int]]:
    """Run one command of the launcher on stand-ins; returns its exit status."""
    with stubbed():
        yield lambda *arguments: main([str(argument) for argument in arguments])
