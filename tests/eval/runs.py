"""Small runs on small written data sets, to evaluate from the command line's entry on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pretrain.checkpoint import write_checkpoint
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.configio import dump_yaml
from pretrain.data.sources.images import Images, Pixels
from pretrain.data.write_beton import Storage, write_split
from pretrain.models.encoder import build_encoder
from pretrain.rundir import RunDirectory, write_json, write_text

CLASSES = 6
SIDE = 16


def coloured(images: int, *, seed: int, shift: int = 0) -> Images:
    """Images whose colour tells the class, with noise; ``shift`` gives every label's images to another class."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % CLASSES
    noise = random.integers(0, 90, (images, SIDE, SIDE, 3), dtype=np.int64)

    def pixels(index: int) -> Pixels:
        bits = np.array([(labels[index] + 1) >> bit & 1 for bit in range(3)])
        return np.ascontiguousarray((noise[index] + 150 * bits).astype(np.uint8))

    return Images((labels + shift) % CLASSES, tuple(f"class {k}" for k in range(CLASSES)), pixels)


def write_data(directory: Path, *, train: int = 240, test: int = 60, shift_test: int = 0) -> Path:
    """A training and a test split in ``directory``."""
    for split, images, seed, shift in (("train", train, 0, 0), ("test", test, 1, shift_test)):
        source = coloured(images, seed=seed, shift=shift)
        write_split(source, directory, dataset="synthetic", split=split, storage=Storage("raw"))
    return directory


def write_run(
    path: Path, data: Path, *, finished: bool = True, steps: tuple[int, ...] = (3,), **encoder: Any
) -> RunDirectory:
    """The directory of a small run on ``data``, with a checkpoint at each of ``steps``."""
    run = RunDirectory(path)
    resnet = {"architecture": "resnet18", "width": 0.125, "stem": "strided", "zero_init_last_gamma": False}
    settings = {} if "architecture" in encoder else resnet
    config = PretrainConfig.model_validate(
        {
            "epochs": 1,
            "global_batch_size": 16,
            "data": {"directory": str(data), "dataset": "synthetic"},
            "augmentation": {"crop_size_px": SIDE, "crop_area": [0.5, 1.0]},
            "encoder": {**settings, **encoder},
        }
    )
    write_text(run.config, dump_yaml(config))
    for step in steps:
        torch.manual_seed(step)
        weights = {f"encoder.{key}": value for key, value in build_encoder(config.encoder).state_dict().items()}
        content = {"step": step, "fingerprint": run_fingerprint(config), "config": config.model_dump(mode="json")}
        write_checkpoint(run.checkpoints, {**content, "model": weights}, keep=len(steps))
    if finished:
        write_json(run.result, {"fingerprint": run_fingerprint(config), "total_steps": max(steps)})
    return run


def result_of(run: RunDirectory, task: str) -> dict[str, Any]:
    """The one result of ``task``."""
    (path,) = run.path.glob(f"eval/{task}-*/result.json")
    return dict(json.loads(path.read_text()))
