"""End to end against lightly 1.6: the same network, rates and seeds; samples per CPU second, and the accuracy reached.

    pip install --no-deps --target DIR lightly==1.6.0 lightly_utils pytorch_lightning lightning_utilities torchmetrics \
        hydra-core omegaconf aenum
    PYTHONPATH=DIR python -m tests.bench.head_to_head DATA [--output docs/results/head_to_head.md]

DATA is what `python -m pretrain.data.write_beton fashion_mnist DATA` wrote. lightly's side is its transform, loss and
LARS with torch's DataLoader in a plain loop; ours is `python -m pretrain`. Each side takes the rate that is best for
its first seed on held-out training images. A process has one thread; its imports are not counted.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pretrain.__main__ import main as pretrain
from pretrain.__main__ import plan_of
from pretrain.checkpoint import write_checkpoint
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import dump_yaml, load
from pretrain.data.sampler import subset
from pretrain.data.sources.registry import open_images
from pretrain.models.encoder import build_encoder
from pretrain.models.heads import build_projector
from pretrain.optim.build import parameter_groups
from pretrain.rundir import RunDirectory, read_json, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/pretrain/fashion_mnist.yaml"
TRUST = 0.02
PROBE = ("train_images=20000", "l2=[1.0e-2,1.0e-3,3.0e-4,1.0e-4,3.0e-5,1.0e-5]", "tolerance=1e-5", "knn=false")


def train_lightly(config: PretrainConfig, run: RunDirectory) -> None:
    """One run of lightly's parts, left as a run directory that `python -m eval` reads."""
    transforms, losses = importlib.import_module("lightly.transforms"), importlib.import_module("lightly.loss")
    lars = importlib.import_module("lightly.utils.lars").LARS
    torch.manual_seed(config.seed)
    views = config.augmentation
    transform = transforms.SimCLRTransform(
        input_size=views.crop_size_px,
        cj_prob=views.jitter_probability,
        cj_bright=views.brightness,
        cj_contrast=views.contrast,
        cj_sat=views.saturation,
        cj_hue=views.hue,
        min_scale=views.crop_area[0],
        random_gray_scale=views.grayscale_probability,
        gaussian_blur=views.blur_probability,
        hf_prob=views.flip_probability,
        normalize=None,
    )
    images = open_images("fashion_mnist", "train")
    index_n = subset(len(images.labels), config.data.images)
    pictures = [to_pil(images.pixels(int(index))) for index in index_n]
    batches = torch.utils.data.DataLoader(
        Views(pictures, transform), config.global_batch_size, shuffle=True, drop_last=True
    )
    encoder = build_encoder(config.encoder)
    head = build_projector(config.objective.projector, feature_width=encoder.feature_width)  # type: ignore[attr-defined]
    network = nn.Sequential(encoder, head).to(memory_format=torch.channels_last).train()
    loss_of = losses.NTXentLoss(temperature=config.objective.temperature)  # type: ignore[attr-defined]
    groups = [
        {"params": group["params"], "weight_decay": group["weight_decay"]}  # without decay it does not adapt
        for group in parameter_groups(network, config.optimizer.weight_decay)
    ]
    optimizer = lars(groups, lr=1.0, momentum=0.9, trust_coefficient=TRUST)
    plan = plan_of(config, 1, str(CONFIG))
    for epoch in range(config.epochs):
        for batch, (a, b) in enumerate(batches):
            step = epoch * plan.steps_per_epoch + batch
            for group in optimizer.param_groups:
                group["lr"] = plan.learning_rate_at(step)
            z = network(torch.cat((a, b)).contiguous(memory_format=torch.channels_last))
            loss = loss_of(*z.chunk(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    write_text(run.config, dump_yaml(config))
    fingerprint = run_fingerprint(config)
    content = {
        "step": plan.total_steps,
        "fingerprint": fingerprint,
        "config": config.model_dump(mode="json"),
    }
    weights = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    write_checkpoint(run.checkpoints, {**content, "model": weights}, keep=1)
    write_json(run.result, {"fingerprint": fingerprint, "total_steps": plan.total_steps})


class Views(torch.utils.data.Dataset[Any]):
    """Two views of each picture."""

    def __init__(self, pictures: Sequence[Any], transform: Callable[[Any], Any]) -> None:
        self.pictures, self.transform = pictures, transform

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> Any:
        return self.transform(self.pictures[index])


def to_pil(pixels: Any) -> Any:
    return importlib.import_module("PIL.Image").fromarray(pixels)


def train(side: str, run: Path, overrides: Sequence[str]) -> None:
    """One run in this process, whose CPU seconds go to ``run``/cpu.json."""
    torch.set_num_threads(1)
    importlib.import_module("pretrain.train")
    if side == "lightly":
        importlib.import_module("lightly.transforms")
        importlib.import_module("lightly.loss")
    cpu, wall = time.process_time(), time.perf_counter()
    if side == "ours":
        assert pretrain([str(CONFIG), f"run.directory={run}", *overrides]) == 0
    else:
        train_lightly(load(PretrainConfig, CONFIG, [f"run.directory={run}", *overrides]), RunDirectory(run))
    write_json(run / "cpu.json", {"cpu": time.process_time() - cpu, "wall": time.perf_counter() - wall})


def measured(side: str, folder: Path, *, rate: float, seed: int, epochs: int, fixed: Sequence[str]) -> dict[str, float]:
    """One run and its linear evaluation, in processes of their own; nothing is done twice."""
    run = folder / f"{side}-{rate:g}-{seed}-{epochs}"
    if not (run / "done.json").is_file():
        overrides = [f"seed={seed}", f"epochs={epochs}", f"schedule.base_learning_rate={rate}", *fixed]
        me = [sys.executable, "-m", "tests.bench.head_to_head"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        for command in (
            [*me, "--side", side, "--run", str(run), *overrides],
            [sys.executable, "-m", "eval", "linear", str(run), *PROBE],
        ):
            subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
        (path,) = run.glob("eval/linear-*/result.json")
        result = read_json(path)
        best = max(row["held_out"] for row in result["grid"])
        numbers = {**read_json(run / "cpu.json"), "top1": result["top1"], "held_out": best}
        write_json(run / "done.json", numbers)
        print(f"{side} rate {rate:g} seed {seed} epochs {epochs}: {json.dumps(numbers)}", flush=True)
    return dict(read_json(run / "done.json"))


def compare(folder: Path, *, images: int, rates: Sequence[float], seeds: Sequence[int], data: Path) -> str:
    """The table, as Markdown."""
    fixed = (
        f"data.directory={data.resolve()}",
        f"data.images={images}",
        "schedule.rule=constant",
        "log.wandb=disabled",
    )
    rows, ratio = [], 1
    speed: dict[str, float] = {}
    for side, epochs in (("lightly", 1), ("ours", 1), ("ours", 0)):
        if epochs == 0:  # as many as fit into lightly's time
            epochs = ratio = max(2, int(speed["ours"] / speed["lightly"]))
        first = [measured(side, folder, rate=rate, seed=seeds[0], epochs=1, fixed=fixed) for rate in rates]
        rate = rates[max(range(len(rates)), key=lambda number: first[number]["held_out"])]
        runs = [measured(side, folder, rate=rate, seed=seed, epochs=epochs, fixed=fixed) for seed in seeds]
        rate_per_cpu = epochs * images * len(runs) / sum(run["cpu"] for run in runs)
        speed.setdefault(side, rate_per_cpu)
        top1 = [run["top1"] for run in runs]
        spread = f"{statistics.mean(top1):.2f} ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else f"{top1[0]:.2f}"
        name = "lightly 1.6, plain loop" if side == "lightly" else "bigbatch"
        seconds = statistics.mean(run["cpu"] for run in runs)
        rows.append(f"| {name} | {epochs} | {rate:g} | {rate_per_cpu:,.0f} | {seconds:.1f} | {spread} |")
    head = "| | epochs | learning rate | samples per CPU second | CPU seconds a run | linear top-1 (%) |"
    return "\n".join(
        [
            "# One core, end to end",
            "",
            f"Fashion-MNIST, {images:,} images, batch 256, the network of configs/pretrain/fashion_mnist.yaml, "
            f"{len(seeds)} seeds (mean ± standard deviation), rates {', '.join(f'{rate:g}' for rate in rates)}, one "
            "thread; `python -m tests.bench.head_to_head` made this table.",
            "",
            head,
            "|---|---|---|---|---|---|",
            *rows,
            "",
            f"{speed['ours'] / speed['lightly']:.1f} times the samples per CPU second; the last row is what {ratio} "
            "epochs reach, which take no more processor time than one of lightly's.",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", type=Path, default=ROOT / "data/fashion_mnist")
    parser.add_argument("--images", type=int, default=30_000)
    parser.add_argument("--rates", type=float, nargs="+", default=[0.2, 0.4, 0.8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folder", type=Path, help="where runs are kept; a temporary one by default")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        table = compare(folder, images=given.images, rates=given.rates, seeds=given.seeds, data=given.data)
    print(table)
    if given.output is not None:
        write_text(given.output, table)


if __name__ == "__main__":
    if "--side" in sys.argv:
        train(sys.argv[2], Path(sys.argv[4]), sys.argv[5:])
    else:
        main()
