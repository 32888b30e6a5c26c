"""The process group: the one place that reads what torchrun or Slurm say about ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from pretrain.collectives import Group

TIMEOUT_S = 600


@dataclass(frozen=True)
class Groups:
    """All ranks, once for each kind of traffic; None: the default process group, if there is one.

    A communicator runs its operations in the order in which they were issued. With one for all, a batch norm of the
    backward would wait until the buckets of gradients that are under way have been summed. The price is some memory of
    the GPU for each.
    """

    loss: Group = None
    norm: Group = None
    gradients: Group = None  # and all else that moves numbers of the model: the first broadcast, the online probe
    control: Group = None  # agreement between hosts: CPU tensors, which never wait for a GPU


@dataclass(frozen=True)
class World:
    """The ranks of this run, the device of this one, and the groups in which they talk."""

    rank: int
    size: int
    device: torch.device
    groups: Groups = Groups()

    @property
    def is_first(self) -> bool:
        """True on the one rank that writes files."""
        return self.rank == 0


def world_size_from_environment() -> int:
    """Ranks that the launcher promises: WORLD_SIZE, or 1 where there was no launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank_from_environment() -> int:
    """Rank that the launcher gave this process: RANK, or 0 where there was no launcher."""
    return int(os.environ.get("RANK", "0"))


def ranks_per_node_from_environment() -> int:
    """Ranks on this node: torchrun's LOCAL_WORLD_SIZE; all of them where there was no launcher."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size_from_environment()))


def block_of_ranks(world: World, size: int) -> Group:
    """The group of this rank's block of ``size`` neighbouring ranks; ``world.groups.norm`` where that is all of them.

    Raises ValueError where the blocks would be unequal. Collective: every rank calls this.
    """
    if size == world.size:
        return world.groups.norm
    if size < 1 or world.size % size:
        raise ValueError(f"blocks of {size} ranks do not divide {world.size} ranks")
    # Every rank takes part in making every block: torch 2.11 hangs where a group is made by its own members alone.
    blocks = [dist.new_group(list(range(first, first + size))) for first in range(0, world.size, size)]
    own = blocks[world.rank // size]
    assert isinstance(own, dist.ProcessGroup), "this rank is in its own block"
    return own


@contextmanager
def open_world(device: str = "auto", *, backend: str | None = None, timeout_s: float = TIMEOUT_S) -> Iterator[World]:
    """Join the process group that the environment describes (torchrun's variables), leave it at the end.

    ``device``: cpu, cuda, or auto (cuda where there is one). ``backend``: by default NCCL for CUDA tensors, gloo for
    others; with gloo for both, several ranks may share a GPU. Collective: every rank calls this.
    Raises RuntimeError where cuda was asked for and this process has none.
    """
    rank, size = rank_from_environment(), world_size_from_environment()
    chosen = _device(device, shared=backend == "gloo")
    if size == 1 and "MASTER_ADDR" not in os.environ:
        yield World(rank, size, chosen)
        return
    backend = backend or ("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    timeout = timedelta(seconds=timeout_s)
    _join(backend, timeout)
    try:
        yield World(rank, size, chosen, _open_groups(timeout))
    finally:
        dist.destroy_process_group()


def _open_groups(timeout: timedelta) -> Groups:
    """A communicator for each kind of traffic. Collective: every rank calls this."""
    groups = {}
    for name, backend in {"loss": None, "norm": None, "gradients": None, "control": "gloo"}.items():
        group = dist.new_group(backend=backend, timeout=timeout, group_desc=name)
        assert isinstance(group, dist.ProcessGroup), "a group of all ranks has every rank in it"
        groups[name] = group
    return Groups(**groups)


def _join(backend: str, timeout: timedelta) -> None:
    """Join the default process group.

    torchrun keeps its store when it starts a node's ranks again, and with it the addresses of those that are gone; on
    one node all ranks agree on how often that was. (Between nodes they may not; `launch` makes torchrun open another.)
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or ranks_per_node_from_environment() < world_size_from_environment():
        dist.init_process_group(backend, timeout=timeout)
        return
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    own = dist.PrefixStore(f"restart_{restarts}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def _device(device: str, *, shared: bool) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    if shared and count:
        local_rank %= count
    if local_rank >= count:
        raise RuntimeError(
            f"local rank {local_rank} has no GPU of its own: this process sees {count}; start at most {count} ranks on "
            "this node, or set device=cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


def any_rank(world: World, flag: bool) -> bool:
    """True on every rank if ``flag`` is true on at least one. Collective: every rank calls this."""
    if world.size == 1:
        return flag
    votes = torch.tensor([int(flag)], dtype=torch.int32)
    dist.all_reduce(votes, dist.ReduceOp.MAX, group=world.groups.control)
    return bool(votes.item())


def agree_on(world: World, value: int) -> int:
    """The first rank's ``value`` on every rank. Collective: every rank calls this."""
    if world.size == 1:
        return value
    box = torch.tensor([value], dtype=torch.int64)
    dist.broadcast(box, src=0, group=world.groups.control)
    return int(box.item())


def mean_over_ranks(world: World, metrics: Mapping[str, Tensor]) -> dict[str, float]:
    """Mean of every scalar over the ranks, one transfer for all of them. Waits for the device.

    Collective: every rank calls this with the same names.
    """
    names = sorted(metrics)
    values = torch.stack([metrics[name].detach().float().reshape(()) for name in names]).cpu().double()
    if world.size > 1:
        dist.all_reduce(values, group=world.groups.control)
        values /= world.size
    return dict(zip(names, values.tolist(), strict=True))


@torch.no_grad()
def broadcast_from_first(world: World, tensors: list[Tensor]) -> None:
    """Give every rank the first rank's tensors, in place. Collective: every rank calls this."""
    if world.size > 1:
        for tensor in tensors:
            dist.broadcast(tensor, src=0, group=world.groups.gradients)
