"""Synthetic studies with everything that a report can show: grids of several axes, trouble, every evaluation."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

from eval.study_manifest import Probe
from tests.eval.studies import Place, SyntheticStudy

RATES = (0.1, 0.3, 1.0)
SEEDS = 2


def accuracies(mean: float, salt: int, seeds: int = SEEDS) -> list[float | None]:
    """Accuracies that look like seeds: a fixed scatter of a few tenths of a point."""
    return [round(mean + 0.35 * math.sin(12.9898 * (salt + 1) + 78.233 * seed), 2) for seed in range(seeds)]


def grid_study(directory: Path) -> SyntheticStudy:
    """Batch sizes x epochs x base learning rates, negatives at one batch size, and ablations of single settings."""
    study = SyntheticStudy(directory)
    places = []
    for salt, (epochs, batch, rate) in enumerate(itertools.product((2, 4, 8), (64, 256, 1024), RATES)):
        mean = 70 + 2.2 * math.log2(epochs) + 1.5 * min(math.log2(batch / 64), 2.5)
        mean -= 1.2 * abs(math.log(rate / (0.1 * (batch / 64) ** 0.5)))
        settings = {"epochs": epochs, "global_batch_size": batch, "schedule.base_learning_rate": rate}
        places.append(Place(batch, settings, accuracies(mean, salt), f"epochs = {epochs}"))
    study.question(
        "batch_size",
        places,
        title="Effect of the batch size",
        x_key="global_batch_size",
        x_label="Batch size (images)",
        published=True,
    )
    add_ablations(study)
    study.baseline("random", "Random encoder", [47.0, 47.3], {"epochs": 0})
    study.baseline("supervised", "Supervised with labels", [78.1, 78.5], {"objective": {"name": "supervised"}})
    return study


def add_ablations(study: SyntheticStudy) -> None:
    """Temperature, LR rule, and depth and dropout of the head."""
    study.question(
        "temperature",
        [
            Place(t, {"objective.temperature": t}, accuracies(76 - 9 * abs(t - 0.2), i))
            for i, t in enumerate((0.1, 0.2, 0.5))
        ],
        title="Effect of the temperature",
        x_key="objective.temperature",
        x_label="Temperature",
        x_scale="log",
    )
    rules = [
        Place(
            batch,
            {"global_batch_size": batch, "epochs": 3, "schedule.rule": rule},
            accuracies(mean, salt),
            f"rule = {rule}",
        )
        for salt, (batch, rule, mean) in enumerate(
            (
                (64, "linear", 71),
                (256, "linear", 74),
                (1024, "linear", 74.4),
                (64, "sqrt", 73),
                (256, "sqrt", 74.6),
                (1024, "sqrt", 74),
            )
        )
    ]
    study.question(
        "lr_rule", rules, title="Effect of the LR rule", x_key="global_batch_size", x_label="Batch size (images)"
    )
    heads = [
        Place(
            layers,
            {"objective.projector.layers": layers, "objective.projector.dropout": drop},
            accuracies(72 + layers - 20 * drop**2, i),
        )
        for i, (layers, drop) in enumerate(itertools.product((1, 2, 3), (0.0, 0.1, 0.3)))
    ]
    study.question(
        "head",
        [Place(p.x, p.settings, p.accuracies, "") for p in heads],
        title="Effect of the head's depth",
        x_key="objective.projector.layers",
        x_label="Layers of the head",
        x_scale="linear",
    )


def add_trouble(study: SyntheticStudy) -> None:
    """One point diverged, one failed, one is not a number, one seed is missing."""
    names = [point.name for point in study.points]
    for name, state in ((names[0], "diverged"), (names[6], "failed")):
        folder = study.run_directory(name)
        (folder / "result.json").unlink()
        (folder / "progress.json").write_text(json.dumps({"state": state, "step": 12, "total_steps": 400}))
    study.edit(study.probe_result(names[3]), lambda value: value.update(top1=float("nan")))
    study.runs({"objective.temperature": 0.1}, [None, None, None])


def add_evaluations(study: SyntheticStudy, names: list[str]) -> None:
    """Fine-tuning, transfer, SimCLR's linear protocol, features at three checkpoints and distillation of ``names``."""
    for salt, name in enumerate(names):
        point = next(point for point in study.points if point.name == name)
        fingerprint, step = point.fingerprint, point.plan["total_steps"]
        for task, result in every_result(salt).items():
            kind, _, mark = task.partition("-")
            folder = study.run_directory(name) / "eval" / f"{kind}-{mark or 'aaaaaaaaaaaa'}"
            folder.mkdir(parents=True)
            identity = {"task": kind, "fingerprint": mark or "aaaaaaaaaaaa"}
            run = {"fingerprint": fingerprint, "step": step, "checkpoint": f"step_{step:08d}.pt", "finished": True}
            (folder / "result.json").write_text(json.dumps({**identity, **result, "run": run}))
            if kind == "tsne":
                for row in result["rows"]:
                    picture(folder / row["picture"], salt)


def every_result(salt: int) -> dict[str, dict[str, Any]]:
    """What each task would have written, by task and mark of its settings."""
    epochs = list(range(1, 11))
    curves = {
        "epoch": epochs,
        "train_loss": [2.0 * math.exp(-e / 5) + 0.5 for e in epochs],
        "test_loss": [2.0 * math.exp(-e / 5) + 0.6 for e in epochs],
        "train_top1": [80 - 30 * math.exp(-e / 3) for e in epochs],
        "test_top1": [78 - 30 * math.exp(-e / 3) for e in epochs],
    }
    rows = []
    for method, start, label in (
        ("linear", "random", "random"),
        ("finetune", "random", "supervised"),
        ("linear", "pretrained", "linear"),
        ("finetune", "pretrained", "fine-tuned"),
    ):
        for fraction in (0.01, 0.1, 1.0):
            top1 = {"random": 40, "supervised": 50, "linear": 66, "fine-tuned": 68}[label] + 5 * math.log10(
                100 * fraction
            )
            row = {
                "name": label,
                "method": method,
                "initialisation": start,
                "label_fraction": fraction,
                "top1": top1 + salt / 10,
            }
            rows.append({**row, **({"curves": curves} if method == "finetune" and fraction == 1.0 else {})})
    features = [
        {
            "step": step,
            "epoch": step / 50,
            "alignment": 1.5 / (1 + step / 40),
            "uniformity": -1 - step / 60,
            "rankme": 10 + step / 4,
            "effective_rank": 8 + step / 4,
            "picture": f"tsne_step_{step:08d}.png",
        }
        for step in (10, 50, 100)
    ]
    return {
        "finetune": {"rows": rows},
        "transfer": {"rows": [{"name": "cifar10", "top1": 61.0 + salt}, {"name": "cifar100", "top1": 33.0}]},
        "tsne": {"rows": features},
        "linear-bbbbbbbbbbbb": {"protocol": "sgd", "top1": 77.7 + salt / 10, "curves": curves},
        "distill": {
            "student": {"top1": 75.0, "architecture": "resnet18", "width": 0.5},
            "teacher": {"top1": 79.0},
            "labels_only": {"top1": 70.0},
            "agreement": 91.2,
            "curves": curves,
        },
    }


def picture(path: Path, salt: int) -> None:
    """A PNG that could be a t-SNE picture."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (900, 900), "white")
    draw = ImageDraw.Draw(image)
    for i in range(2000):
        kind = i % 10
        angle, radius = 0.628 * kind + salt, 250 + 60 * math.sin(i * 12.9898)
        x, y = (
            450 + radius * math.cos(angle) + 40 * math.sin(i * 78.2),
            450 + radius * math.sin(angle) + 40 * math.cos(i * 3.1),
        )
        colour = (
            "#1f5fbf",
            "#c8541b",
            "#17805a",
            "#8a3fa0",
            "#a07800",
            "#0f7f96",
            "#b82f6b",
            "#555a61",
            "#90c0ff",
            "#ffb070",
        )[kind]
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), fill=colour)
    image.save(path)


FINETUNE = Probe(task="finetune", fingerprint="aaaaaaaaaaaa")
