"""Batch norm of the global batch on two gloo ranks against each rank's own: forward + backward of 20 layers.

python -m tests.bench.sync_bn [--batch 128] [--width 24] [--size 16] [--rounds 7]
"""

import argparse

import torch
import torch.distributed as dist
from torch import nn

from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from tests.bench.timing import interleaved
from tests.ranks import Ranks

LAYERS = 20


def on_rank(group: dist.ProcessGroup, batch: int, width: int, size: int, rounds: int) -> dict[str, float]:
    plain = nn.Sequential(*[nn.BatchNorm2d(width) for _ in range(LAYERS)])
    global_batch = convert_sync_batch_norm(nn.Sequential(*[nn.BatchNorm2d(width) for _ in range(LAYERS)]), group)
    x = torch.randn(batch, width, size, size).to(memory_format=torch.channels_last).requires_grad_()

    def step(net: nn.Module) -> None:
        x.grad = None
        net(x).backward(torch.ones_like(x))
        dist.barrier(group=group)

    return interleaved({"global": lambda: step(global_batch), "local": lambda: step(plain)}, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch", 128), ("width", 24), ("size", 16), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    ranks = Ranks()
    try:
        seconds = ranks(2).run(on_rank, options.batch, options.width, options.size, options.rounds)[0]
    finally:
        ranks.close()
    print(", ".join(f"{name} {1e3 * s / LAYERS:.2f} ms a layer" for name, s in seconds.items()))
    print(f"ratio {seconds['global'] / seconds['local']:.2f}")


if __name__ == "__main__":
    main()
