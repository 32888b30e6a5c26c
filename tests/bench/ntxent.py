"""NT-Xent forward + backward: speed and memory against plain autograd; on two ranks against reduce-scattering.

    python -m tests.bench.ntxent [--rows 2048 8192] [--peers] [--skip-ranks]

Rows are 2 N, d = 128, float32, one thread. On CPUs without AVX-512 the matrix products bound the speed-up: at one rank
the loss does 2 of the 3 units of work that plain autograd does (a unit: all similarities once).
"""

import argparse
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pretrain.collectives import all_gather_rows
from pretrain.kernels.contrastive_products import products_of
from pretrain.kernels.contrastive_tiles import _probabilities, _Scratch, _tiles
from pretrain.kernels.contrastive_work import TILE_ROWS_CPU, Between
from pretrain.losses.contrastive import ntxent_loss, scaled_rows
from tests.bench.timing import interleaved, peak_growth_mib, report
from tests.ranks import Ranks

DIMENSIONS = 128
TEMPERATURE = 0.1


def naive(z_a: Tensor, z_b: Tensor) -> Tensor:
    z = F.normalize(torch.cat((z_a, z_b)), dim=1)
    logits = z @ z.t() / TEMPERATURE
    logits.fill_diagonal_(float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(z)).roll(len(z_a)))


def ours(z_a: Tensor, z_b: Tensor) -> Tensor:
    return ntxent_loss(z_a, z_b, temperature=TEMPERATURE)


def peers() -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    try:
        return {"lightly": importlib.import_module("lightly.loss").NTXentLoss(temperature=TEMPERATURE)}
    except ImportError:
        print("lightly is not installed: no peers")
        return {}


def prepared(loss: Callable[[Tensor, Tensor], Tensor], rows: int) -> Callable[[], None]:
    """forward + backward on new leaves, after a small one that loads what is loaded once."""
    torch.set_num_threads(1)
    torch.manual_seed(0)

    def once(z_a: Tensor, z_b: Tensor) -> None:
        z_a.grad = z_b.grad = None
        loss(z_a, z_b).backward()

    def leaves(pairs: int) -> tuple[Tensor, Tensor]:
        return torch.randn(pairs, DIMENSIONS).requires_grad_(), torch.randn(pairs, DIMENSIONS).requires_grad_()

    once(*leaves(64))
    views = leaves(rows // 2)
    return lambda: once(*views)


class ReduceScattered(torch.autograd.Function):
    """The usual way in the same tiles: own rows against all, gradients of all rows reduce-scattered.

    Only its work counts: it does not leave out rows themselves and positives.
    """

    @staticmethod
    def forward(ctx: Any, u_ND: Tensor, group: dist.ProcessGroup) -> Tensor:
        rank, rows = dist.get_rank(group), u_ND.shape[0]
        u_MD = all_gather_rows(u_ND, group)
        products, scratch = products_of(u_MD), _Scratch(u_MD, TILE_ROWS_CPU)
        sums_M = u_MD.new_zeros(u_MD.shape[0])
        ctx.work = [Between(rank * rows, (rank + 1) * rows, 0, u_MD.shape[0])]
        for tile in _tiles(ctx.work, scratch.rows):
            shape = (1, tile.a.high - tile.a.low, tile.b.high - tile.b.low)
            e_CIJ = products.similarities(tile.a, tile.b, scratch.tile(0, shape)).exp2_()
            tile.a.of(sums_M).add_(e_CIJ.sum(2))
        ctx.save_for_backward(u_MD, sums_M.clamp_min(1.0).reciprocal())
        ctx.group = group
        return sums_M[rank * rows : (rank + 1) * rows].log().mean()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        u_MD, weight_M = ctx.saved_tensors
        products, scratch = products_of(u_MD), _Scratch(u_MD, TILE_ROWS_CPU)
        products.start_gradient(0, u_MD.shape[0])
        for tile in _tiles(ctx.work, scratch.rows):
            p_CIJ = _probabilities(products, tile, scratch, 0.0, weight_M)
            products.add_to_rows(tile.a, tile.b, p_CIJ)
            products.add_to_columns(tile.a, tile.b, p_CIJ)
        own_ND = u_MD.new_empty(u_MD.shape[0] // dist.get_world_size(ctx.group), u_MD.shape[1])
        dist.reduce_scatter_tensor(own_ND, products.finished_gradient(), group=ctx.group)
        return own_ND.mul_(grad), None


def on_rank(group: dist.ProcessGroup, rows: int, rounds: int) -> dict[str, float]:
    def reduce_scattered(z_a: Tensor, z_b: Tensor) -> Tensor:
        value: Tensor = ReduceScattered.apply(scaled_rows(z_a, z_b, TEMPERATURE), group)
        return value

    def silent(z_a: Tensor, z_b: Tensor) -> Tensor:
        return ntxent_loss(z_a, z_b, temperature=TEMPERATURE, group=group)

    local = rows // dist.get_world_size(group)
    runs = {}
    for name, loss in {"ours": silent, "reduce-scattered": reduce_scattered}.items():
        run = prepared(loss, local)

        def together(run: Callable[[], None] = run) -> None:
            run()
            dist.barrier(group=group)

        runs[name] = together
    return interleaved(runs, rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[2048, 8192])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", action="store_true", help="also time lightly, if it is installed")
    parser.add_argument("--skip-ranks", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"float32, d = {DIMENSIONS}, one thread, {torch.backends.cpu.get_cpu_capability()}")
    for rows in options.rows:
        losses = {"ours": ours, "naive": naive} | (peers() if options.peers else {})
        seconds = interleaved({name: prepared(loss, rows) for name, loss in losses.items()}, options.rounds)
        print(f"2N = {rows}: " + ", ".join(f"{name} {s:.3f} s" for name, s in seconds.items()))
        for name in seconds.keys() - {"ours"}:
            gate = 5.0 if name == "naive" else 8.0
            report(f"  speed-up over {name}", seconds[name] / seconds["ours"], "x", gate, at_least=True)
    for rows, gate in ((8192, 64.0), (32768, 140.0)):
        report(f"2N = {rows}: peak growth", peak_growth_mib(prepared, ours, rows), " MiB", gate, at_least=False)
    if not options.skip_ranks:
        ranks = Ranks()
        try:
            seconds = ranks(2, deadline_s=600).run(on_rank, 8192, options.rounds)[0]
        finally:
            ranks.close()
        print("2N = 8192 on 2 ranks: " + ", ".join(f"{name} {s:.3f} s" for name, s in seconds.items()))
        report("  speed-up", seconds["reduce-scattered"] / seconds["ours"], "x", 1.4, at_least=True)


if __name__ == "__main__":
    main()
