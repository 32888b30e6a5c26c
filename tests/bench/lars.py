"""A step of LARS on the 161 tensors of ResNet-50, and on tensors of a few numbers each, against a loop over parameters.

    python -m tests.bench.lars [--device cuda] [--rounds 15]

The loop is the usual one (Barlow Twins', solo-learn's). Where launches are what a step costs, on an accelerator, their
number decides; on a CPU the memory's speed does, and no order of operations gains the factor that the gate asks for.
"""

import argparse
from collections.abc import Callable

import torch
import torchvision
from torch import Tensor, nn

from pretrain.optim.build import parameter_groups
from pretrain.optim.lars import LARS
from tests.bench.timing import interleaved, report


def make_net(fraction: int, device: str) -> nn.Module:
    torch.manual_seed(0)
    net = torchvision.models.resnet50()
    for parameter in net.parameters():
        parameter.data = parameter.data.flatten()[: max(1, parameter.numel() // fraction)].clone()
    net = net.to(device)
    for parameter in net.parameters():
        parameter.grad = 0.01 * torch.randn_like(parameter)
    return net


class LoopLARS:
    """One parameter after the other, one operation after the other."""

    def __init__(self, groups: list[dict[str, object]], lr: float) -> None:
        self.groups, self.lr = groups, lr
        self.buffers: dict[Tensor, Tensor] = {}

    @torch.no_grad()
    def step(self) -> None:
        for group in self.groups:
            parameters = group["params"]
            assert isinstance(parameters, list)
            for p in parameters:
                update = p.grad
                if group["adapt"]:
                    update = update.add(p, alpha=group["weight_decay"])
                    weight_norm, update_norm = torch.norm(p), torch.norm(update)
                    one = torch.ones_like(weight_norm)
                    ratio = torch.where(update_norm > 0, 1e-3 * weight_norm / update_norm, one)
                    update = update.mul(torch.where(weight_norm > 0, ratio, one))
                buffer = self.buffers.setdefault(p, torch.zeros_like(p))
                buffer.mul_(0.9).add_(update, alpha=self.lr)
                p.sub_(buffer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)

    def synchronised(step: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            step()
            if options.device.startswith("cuda"):
                torch.cuda.synchronize()

        return run

    for fraction, what in ((1, "ResNet-50"), (1024, "the same 161 tensors, 1/1024 of the numbers: calls alone")):
        ours = LARS(parameter_groups(make_net(fraction, options.device), 1e-4), 0.1)
        loop = LoopLARS(parameter_groups(make_net(fraction, options.device), 1e-4), 0.1)
        steps = {"ours": synchronised(ours.step), "loop": synchronised(loop.step)}
        seconds = interleaved(steps, options.rounds)
        print(f"{what}, {options.device}: " + ", ".join(f"{name} {1e3 * s:.2f} ms" for name, s in seconds.items()))
        report("  speed-up", seconds["loop"] / seconds["ours"], "x", 5.0, at_least=True)


if __name__ == "__main__":
    main()
