"""What the online probe adds to a training step, on one rank.

python -m tests.bench.online_probe [CONFIG] [--images 256] [--classes 10]
"""

import argparse
from pathlib import Path
from statistics import median
from time import perf_counter

import torch

from pretrain.batch import Batch, StepContext
from pretrain.config import PretrainConfig
from pretrain.configio import load
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.objectives.base import build_objective
from pretrain.online_probe import OnlineProbe
from tests.bench.timing import report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path, nargs="?", default=Path("configs/pretrain/fashion_mnist.yaml"))
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = load(PretrainConfig, options.config)
    objective = build_objective(config.objective, config.encoder, classes=options.classes, seed=0)
    objective = objective.to(memory_format=torch.channels_last).train()
    objective.channels_last = True
    convert_sync_batch_norm(objective)
    probe = OnlineProbe(objective.encoder.feature_width, classes=options.classes)
    gradients, side = GradientAverager(list(objective.parameters())), config.augmentation.crop_size_px
    views = torch.randint(0, 256, (options.images, 2, 3, side, side), dtype=torch.uint8)
    labels = torch.randint(0, options.classes, (options.images,))
    step_s, probe_s = [], []
    for step in range(options.rounds + 1):
        start = perf_counter()
        output = forward_backward(objective, gradients, Batch(views, labels, labels), StepContext(step))
        between = perf_counter()
        probe.learn(output.features_bF, labels, StepContext(step))
        step_s.append(between - start)
        probe_s.append(perf_counter() - between)
        objective.zero_grad()
    step_median, added = median(step_s[1:]), median(probe_s[1:])
    print(f"forward and backward {1e3 * step_median:.1f} ms, probe {1e3 * added:.2f} ms")
    report("share of the step", 100 * added / step_median, " %", 3.0, at_least=False)


if __name__ == "__main__":
    main()
