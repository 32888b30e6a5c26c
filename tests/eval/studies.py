"""Synthetic studies: the files that launcher, training and evaluation would leave, with made-up numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from eval.study_manifest import Baseline, Curve, Point, Probe, Question, StudyManifest, write_manifest

PROBE = Probe(task="linear", fingerprint="0123456789ab")
ENVIRONMENT = {
    "python": "3.11.9",
    "platform": "Linux-6.1-x86_64",
    "host": "node",
    "command": ["python", "-m", "pretrain", "configs/pretrain/fashion_mnist.yaml"],
    "packages": {"torch": "2.15.0", "numpy": "2.4.6"},
    "git_revision": "c5615f6aa1bb2cc3dd4ee5ff60718293a4b5c6d7",
}
CONFIG = {
    "epochs": 2,
    "data": {"dataset": "fashion_mnist"},
    "encoder": {"architecture": "resnet18", "width": 0.25, "stem": "imagenet"},
    "objective": {"name": "simclr"},
}


@dataclass
class Place:
    """A condition: settings, x, seeds with their accuracy (NaN allowed, None: no result yet)."""

    x: float
    settings: dict[str, Any]
    accuracies: list[float | None]
    curve: str = ""


@dataclass
class SyntheticStudy:
    """Builds a study directory; every file can be changed afterwards."""

    directory: Path
    points: list[Point] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)
    baselines: list[Baseline] = field(default_factory=list)
    probes: tuple[Probe, ...] = (PROBE,)
    ranks: int = 2

    def question(self, name: str, places: list[Place], **values: Any) -> None:
        """Add a question over ``places``."""
        curves: dict[str, list[tuple[float, str]]] = {}
        for place in places:
            names = self.runs(place.settings, place.accuracies)
            curves.setdefault(place.curve, []).extend((place.x, point) for point in names)
        defaults = {"title": f"Effect of {name}", "x_key": name, "x_label": name.replace("_", " ").capitalize()}
        self.questions.append(
            Question(
                name=name,
                curves=tuple(
                    Curve(label=label, x=tuple(x for x, _ in pairs), points=tuple(p for _, p in pairs))
                    for label, pairs in curves.items()
                ),
                **{**defaults, **values},
            )
        )

    def baseline(self, name: str, title: str, accuracies: list[float | None], settings: dict[str, Any]) -> None:
        """Add a baseline."""
        self.baselines.append(Baseline(name=name, title=title, points=tuple(self.runs(settings, accuracies))))

    def runs(self, settings: dict[str, Any], accuracies: list[float | None]) -> list[str]:
        """Add one run per seed; returns their names."""
        names = []
        for seed, accuracy in enumerate(accuracies):
            what = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in settings.items()) or "base"
            name = f"{what},seed={seed}"
            if name not in {point.name for point in self.points}:
                self._run(name, seed, settings, accuracy)
            names.append(name)
        return names

    def write(self, **values: Any) -> Path:
        """Write study.json; returns the study's directory."""
        defaults: dict[str, Any] = {"name": "synthetic", "title": "Batch size and negatives on Fashion-MNIST"}
        manifest = StudyManifest(
            source="configs/study/quick.yaml",
            base="configs/pretrain/fashion_mnist.yaml",
            git_revision=None,
            probes=self.probes,
            questions=tuple(self.questions),
            baselines=tuple(self.baselines),
            points=tuple(self.points),
            **{**defaults, **values},
        )
        write_manifest(self.directory, manifest)
        return self.directory

    def run_directory(self, name: str) -> Path:
        """Directory of the point ``name``."""
        return self.directory / next(point.directory for point in self.points if point.name == name)

    def probe_result(self, name: str) -> Path:
        """File of the evaluation of the point ``name``."""
        return self.run_directory(name) / "eval" / f"{PROBE.task}-{PROBE.fingerprint}" / "result.json"

    def edit(self, path: Path, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a JSON file; NaN is written as such."""
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))

    def _run(self, name: str, seed: int, settings: dict[str, Any], accuracy: float | None) -> None:
        number = len(self.points)
        fingerprint = f"{number:012x}"
        batch = int(settings.get("global_batch_size", 256))
        epochs = int(settings.get("epochs", 2))
        total = epochs * 60000 // batch
        negatives = 2 * int(settings.get("objective.negatives", batch)) - 2
        self.points.append(
            Point(
                name=name,
                directory=f"points/{fingerprint}",
                fingerprint=fingerprint,
                seed=seed,
                world_size=self.ranks,
                settings=settings,
                plan={
                    "total_steps": total,
                    "global_batch_size": batch,
                    "negatives_per_anchor": negatives,
                    "loss_bytes_per_rank": 12000 * batch,
                },
                command=f"torchrun --nproc-per-node 2 -m pretrain configs/pretrain/fashion_mnist.yaml seed={seed}",
            )
        )
        if accuracy is None:
            return
        directory = self.directory / "points" / fingerprint
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(yaml.safe_dump(config_of(settings, seed)))
        (directory / "environment.json").write_text(json.dumps({"sessions": [ENVIRONMENT]}))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(total, batch, seed)))
        self._write(directory / "result.json", training_result(fingerprint, total, batch, seed, self.ranks))
        self._write(self.probe_result(name), evaluation_result(accuracy, fingerprint, total))

    @staticmethod
    def _write(path: Path, value: dict[str, Any]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))


def rows(total: int, batch: int, seed: int) -> list[dict[str, Any]]:
    """Rows of metrics.jsonl: a falling loss, a rising accuracy."""
    found = []
    for step in range(1, total + 1, max(1, total // 300)):
        done = step / total
        wobble = 0.08 * math.sin(step * 1.7 + seed * 2.1) * (1 - 0.6 * done)
        found.append(
            {
                "step": step,
                "epoch": 2 * done,
                "loss": math.log(2 * batch) * (0.45 + 0.55 * math.exp(-5 * done)) + wobble,
                "contrastive_top1": min(1.0, max(0.0, 0.7 * (1 - math.exp(-4 * done)) + wobble / 4)),
                "learning_rate": 0.1,
                "images_per_second": 3000.0,
            }
        )
    return found


def config_of(settings: dict[str, Any], seed: int, base: dict[str, Any] = CONFIG) -> dict[str, Any]:
    """Configuration of a run: the base's, with ``settings`` in dotted keys."""
    config = json.loads(json.dumps({**base, "seed": seed}))
    for key, value in settings.items():
        node = config
        for part in key.split(".")[:-1]:
            node = node.setdefault(part, {})
        node[key.rpartition(".")[2]] = value
    return dict(config)


def training_result(fingerprint: str, total: int, batch: int, seed: int, ranks: int = 2) -> dict[str, Any]:
    """result.json of a finished run."""
    seconds = (20.0 + seed + 2000 / batch) * max(total * batch, 1) / 120000 / (0.45 * ranks + 0.1)
    return {
        "fingerprint": fingerprint,
        "total_steps": total,
        "epochs": 2,
        "images_seen": total * batch,
        "train_seconds": seconds,
        "images_per_second": total * batch / seconds,
        "world_size": ranks,
        "final": {"loss": 3.2},
        "restarts": 0,
    }


def evaluation_result(accuracy: float, fingerprint: str, step: int) -> dict[str, Any]:
    """result.json of a finished linear evaluation."""
    return {
        "task": "linear",
        "fingerprint": PROBE.fingerprint,
        "run": {"fingerprint": fingerprint, "step": step, "checkpoint": f"step_{step:08d}.pt", "finished": True},
        "top1": accuracy,
        "top1_interval": [accuracy - 0.75, accuracy + 0.75],
        "top5": min(99.9, accuracy + 15),
        "per_class_mean": accuracy,
        **by_class(accuracy),
        "knn_top1": accuracy - 1.5,
        "knn_plain_top1": accuracy - 1.7,
        "l2": 0.001,
        "seconds": {"total": 6.5},
    }


def by_class(accuracy: float) -> dict[str, Any]:
    """Four classes of 1000 images: the first is told apart worst, and taken for the second."""
    offsets = (-12, 4, 3, 5)
    right = [round(10 * max(0.0, min(100.0, accuracy + offset))) for offset in offsets]
    confusion = [[0] * 4 for _ in offsets]
    for label, count in enumerate(right):
        confusion[label][label] = count
        confusion[label][(label + 1) % 4] = 1000 - count
    names = ["shirt", "coat", "bag", "<boot>"]
    return {"per_class": [n / 10 for n in right], "confusion": confusion, "data": {"class_names": names}}


def quick_study(directory: Path) -> SyntheticStudy:
    """A complete study in the shape of configs/study/quick.yaml, three seeds."""
    study = SyntheticStudy(directory)
    study.question(
        "batch_size",
        [
            Place(64, {"global_batch_size": 64}, [82.91, 83.12, 82.80]),
            Place(256, {"global_batch_size": 256}, [83.35, 83.20, 83.61]),
            Place(1024, {"global_batch_size": 1024}, [81.52, 81.93, 81.60]),
        ],
        title="Effect of the batch size, at equal epochs",
        x_key="global_batch_size",
        x_label="Batch size (images)",
        published=True,
    )
    study.question(
        "negatives",
        [
            Place(2, {"objective.negatives": 2}, [81.95, 82.10, 81.72]),
            Place(14, {"objective.negatives": 8}, [82.60, 82.41, 82.39]),
            Place(62, {"objective.negatives": 32}, [82.95, 83.10, 82.70]),
            Place(510, {"global_batch_size": 256}, [83.35, 83.20, 83.61]),
        ],
        title="Effect of the number of negatives, at one batch size",
        x_key="negatives_per_anchor",
        x_label="Negatives per anchor",
    )
    study.baseline("random", "Random encoder", [76.8, 77.4, 77.1], {"epochs": 0})
    study.baseline("supervised", "Supervised with labels", [91.2, 91.0, 91.4], {"objective": {"name": "supervised"}})
    return study
