"""Any loss of two views' embeddings, ours or a library's, on W ranks against one rank, as anybody's training uses it.

Every rank calls the loss on its own rows, in the default process group, behind a shared layer whose gradients are
averaged over the ranks, as DistributedDataParallel does. One process calls it on all rows. Ranks hold different images:
where all hold the same, local statistics look right.
"""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pretrain.choices import load_object

WORLDS = (2, 4)
# Of all ranks: so few that what a rank does on its own shows. With 128 on each, local statistics look nearly global.
ROWS = 64
INPUT_WIDTH, EMBEDDING_WIDTH = 32, 8
VIEW_NOISE = 0.3  # of a view, beside the image's own deviation of 1
# Of a float64 loss; one that computes in float32 inside is still told apart from one that is wrong.
TOLERANCE = 1e-5

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class LossToJudge:
    """A function of two tensors (B, D), or a class of such callables, by its dotted path; and its other arguments."""

    path: str
    arguments: Mapping[str, Any]

    def build(self) -> Loss:
        """Raises ValueError where there is no such thing."""
        found = load_object(self.path)
        if isinstance(found, type):
            made = found(**self.arguments)
            return made.double() if isinstance(made, nn.Module) else made
        return functools.partial(found, **self.arguments)


@dataclass(frozen=True)
class Verdict:
    """One loss on so many ranks. ratio: of the gradients' lengths; cosine: between them."""

    loss: str
    ranks: int
    ratio: float
    cosine: float
    value: float
    value_of_one_rank: float

    @property
    def exact(self) -> bool:
        """Whether these ranks are one rank."""
        return max(abs(self.ratio - 1), abs(self.cosine - 1)) <= TOLERANCE and self.same_value

    @property
    def same_value(self) -> bool:
        """Whether the loss, in the mean over the ranks, is that of one rank."""
        return abs(self.value - self.value_of_one_rank) <= TOLERANCE * max(1.0, abs(self.value_of_one_rank))

    @property
    def reading(self) -> str:
        """What the numbers say, in words."""
        if self.exact:
            return "exact"
        value = "the same loss value" if self.same_value else "another loss value"
        if abs(self.cosine - 1) > TOLERANCE:
            what = "another direction: negatives or statistics of one rank, or a gradient that stays behind"
        elif abs(self.ratio * self.ranks - 1) <= TOLERANCE:
            what = "1/W of the gradient"
        else:
            what = "a multiple of the gradient" if abs(self.ratio - 1) > TOLERANCE else "the right gradient"
        return f"{what}; {value}"


def judge(losses: Sequence[LossToJudge]) -> list[Verdict]:
    """A verdict on each loss for each number of ranks. Starts the ranks itself, as processes on this machine.

    Raises torch.multiprocessing.ProcessRaisedException with what a loss raised.
    """
    with tempfile.TemporaryDirectory(prefix="loss-") as folder:
        for ranks in (1, *WORLDS):
            arguments = (ranks, str(Path(folder) / f"store-{ranks}"), folder, list(losses))
            mp.spawn(_serve, args=arguments, nprocs=ranks)  # type: ignore[attr-defined, no-untyped-call]
        found = {ranks: torch.load(_file(folder, ranks)) for ranks in (1, *WORLDS)}
    verdicts = []
    for index, loss in enumerate(losses):
        for world in WORLDS:
            (value, gradient), (alone, expected) = found[world][index], found[1][index]
            cosine = nn.functional.cosine_similarity(gradient, expected, dim=0)
            ratio = float(gradient.norm() / expected.norm())
            verdicts.append(Verdict(loss.path, world, ratio, float(cosine), float(value), float(alone)))
    return verdicts


def _file(folder: str, ranks: int) -> Path:
    return Path(folder) / f"{ranks}.pt"


def _serve(rank: int, ranks: int, store: str, folder: str, losses: list[LossToJudge]) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    results = [_step(loss) for loss in losses]
    if rank == 0:
        torch.save(results, _file(folder, ranks))
    dist.destroy_process_group()


def _step(judged: LossToJudge) -> tuple[Tensor, Tensor]:
    """(loss, gradient of the layer's weights), both in the mean over the ranks."""
    rank, ranks = dist.get_rank(), dist.get_world_size()
    generator = torch.Generator().manual_seed(0)
    image_GI = torch.randn(ROWS, INPUT_WIDTH, generator=generator, dtype=torch.float64)
    noise_2GI = VIEW_NOISE * torch.randn(2, ROWS, INPUT_WIDTH, generator=generator, dtype=torch.float64)
    generator.manual_seed(1)
    weight_DI = torch.randn(EMBEDDING_WIDTH, INPUT_WIDTH, generator=generator, dtype=torch.float64) / INPUT_WIDTH**0.5
    weight_DI.requires_grad_()
    z_a, z_b = ((image_GI + noise_GI).chunk(ranks)[rank] @ weight_DI.t() for noise_GI in noise_2GI)
    torch.manual_seed(0)  # of what the loss draws
    value = judged.build()(z_a, z_b)
    if not isinstance(value, Tensor) or value.numel() != 1:
        got = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise ValueError(f"{judged.path} gave {got}, expected one number: a tensor, as loss(z_a, z_b)")
    torch.autograd.backward(value)
    assert weight_DI.grad is not None, "the loss is a function of the embeddings"
    mean = torch.cat([value.detach().double().reshape(1), weight_DI.grad.flatten()])
    dist.all_reduce(mean)
    mean /= ranks
    return mean[0], mean[1:]


def show(verdicts: Sequence[Verdict]) -> None:
    """Print them as a table."""
    table = Table(box=box.SIMPLE_HEAD, title="W ranks against one", title_justify="left")
    for name in ("loss", "W", "|gradient|", "cosine", "value", "of one rank", ""):
        table.add_column(name, overflow="fold")
    for one in verdicts:
        numbers = (f"{one.ratio:.3f}", f"{one.cosine:.3f}", f"{one.value:.5g}", f"{one.value_of_one_rank:.5g}")
        table.add_row(one.loss, str(one.ranks), *numbers, f"[{'green' if one.exact else 'bold red'}]{one.reading}[/]")
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)


def as_json(loss: LossToJudge, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Plain values."""
    said = [{**asdict(one), "exact": one.exact, "reading": one.reading} for one in verdicts]
    return {"loss": loss.path, "arguments": dict(loss.arguments), "passed": all(v.exact for v in verdicts), "on": said}
