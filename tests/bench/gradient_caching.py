"""One step of a whole objective on a batch larger than memory, through gradient caching: seconds and peak memory.

    python -m tests.bench.gradient_caching [CONFIG] [--images 32768] [--micro-batch 512] [--plain]

2N = 65,536 rows by default, random views, one process. --plain: also the step without caching, on as many images as
a micro-batch has, and what its memory would come to on the whole batch.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pretrain.batch import Batch, StepContext
from pretrain.config import PretrainConfig
from pretrain.configio import load
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.objectives.base import build_objective
from tests.bench.timing import interleaved, peak_growth_mib, report


def prepared(config_path: Path, images: int, micro_batches: int) -> Callable[[], Any]:
    """A step on ``images`` random images, after one on two micro-batches of 2 that loads what is loaded once."""
    torch.set_num_threads(1)
    config = load(PretrainConfig, config_path)
    objective = build_objective(config.objective, config.encoder, classes=10, seed=0)
    objective = objective.to(memory_format=torch.channels_last).train()
    objective.channels_last = True
    convert_sync_batch_norm(objective)
    gradients = GradientAverager(list(objective.parameters()))
    side = config.augmentation.crop_size_px

    def step(images: int, micro_batches: int) -> None:
        views = torch.randint(0, 256, (images, 2, 3, side, side), dtype=torch.uint8)
        batch = Batch(views, torch.zeros(images, dtype=torch.int64), torch.arange(images))
        forward_backward(objective, gradients, batch, StepContext(), micro_batches=micro_batches)
        objective.zero_grad()

    step(4, 2)
    return lambda: step(images, micro_batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/pretrain/fashion_mnist.yaml"))
    parser.add_argument("--images", type=int, default=32_768)
    parser.add_argument("--micro-batch", type=int, default=512)
    parser.add_argument("--plain", action="store_true")
    options = parser.parse_args()
    micro_batches = options.images // options.micro_batch
    cached = peak_growth_mib(prepared, options.config, options.images, micro_batches) / 1024
    report(
        f"2N = {2 * options.images:,} in {micro_batches} micro-batches: peak growth",
        cached,
        " GiB",
        6.0,
        at_least=False,
    )
    if options.plain:
        plain = peak_growth_mib(prepared, options.config, options.micro_batch, 1) / 1024
        whole = plain * options.images / options.micro_batch
        print(f"without caching {options.micro_batch} images take {plain:.2f} GiB: all of them about {whole:.0f} GiB")
        steps = {
            "cached": prepared(options.config, 4 * options.micro_batch, 4),
            "plain": prepared(options.config, 4 * options.micro_batch, 1),
        }
        seconds = interleaved(steps, 3)
        ratio = seconds["cached"] / seconds["plain"]
        print(f"{4 * options.micro_batch} images: caching takes {ratio:.2f} of the plain step's time")


if __name__ == "__main__":
    main()
