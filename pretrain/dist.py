"""The process group: who takes part, on which device, and how they talk."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from pretrain.collectives import Group
from pretrain.ranks import (
    local_rank_from_environment,
    rank_from_environment,
    ranks_per_node_from_environment,
    restarts_from_environment,
    world_size_from_environment,
)

TIMEOUT_S = 600
AGREE_EVERY_S = 3.0  # short beside the grace before a preemption (30 s and more), long beside a message (1 ms)
MOST_STEPS_BETWEEN = 100  # a stall after quick steps would else stretch the wait as often


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
    _check_address()
    _join(backend, timeout)
    yield World(rank, size, chosen, _open_groups(timeout))
    dist.destroy_process_group()  # not after an error: it would wait for ranks that wait for this one


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
    _check_store()
    restarts = restarts_from_environment()
    if restarts == 0 or ranks_per_node_from_environment() < world_size_from_environment():
        dist.init_process_group(backend, timeout=timeout)
        return
    store, rank, size = next(rendezvous("env://", timeout=timeout))
    own = dist.PrefixStore(f"restart_{restarts}", store)  # type: ignore[attr-defined]
    dist.init_process_group(backend, store=own, rank=rank, world_size=size, timeout=timeout)


def _check_address() -> None:
    """Warn where other nodes would be told a loopback address of this one; harmless where all nodes are one host."""
    if ranks_per_node_from_environment() == world_size_from_environment() or "GLOO_SOCKET_IFNAME" in os.environ:
        return
    try:
        address = socket.gethostbyname(name := socket.gethostname())
    except OSError:
        return
    if address.startswith("127."):
        there = ", ".join(interface for _, interface in socket.if_nameindex() if interface != "lo")
        message = (
            f"GLOO_SOCKET_IFNAME is not set, and the name {name} of this host stands for {address} (see /etc/hosts), "
            f"where other nodes cannot reach it; if ranks do not meet, set it to the interface that they reach: {there}"
        )
        if local_rank_from_environment() == 0:
            print(f"warning: {message}", file=sys.stderr, flush=True)


def _check_store() -> None:
    """Raises RuntimeError where torchrun, which keeps the store, has ended: torch would wait for it for minutes."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return
    address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    try:
        socket.create_connection(address, timeout=10).close()
    except ConnectionRefusedError:
        raise RuntimeError(f"torchrun has ended: its store at {address[0]}:{address[1]} is closed") from None
    except OSError:
        return  # a slow network, which torch waits for


def _device(device: str, *, shared: bool) -> torch.device:
    if device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    count = torch.cuda.device_count()
    local_rank = local_rank_from_environment()
    if shared and count:
        local_rank %= count
    if local_rank >= count:
        raise RuntimeError(
            f"local rank {local_rank} has no GPU of its own: this process sees {count}; start at most {count} ranks on "
            "this node, or set device=cpu"
        )
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)


class Agreement:
    """Makes what single ranks ask for a decision of all, after the same step on every rank and every few seconds.

    How many steps that is, the ranks settle each time by the slowest of them: clocks differ, and no rank may ask alone.
    """

    def __init__(self, world: World, every_s: float = AGREE_EVERY_S) -> None:
        self._world, self._every_s = world, every_s
        self._between = self._left = 1
        self._settled_at = time.monotonic()

    def reached(self, *asked: bool) -> tuple[bool, ...]:
        """For each question whether at least one rank asked it; all False where it is not yet time.

        Collective: every rank calls this once after each step.
        """
        if self._world.size == 1:
            return asked
        self._left -= 1
        if self._left > 0:
            return (False,) * len(asked)
        now = time.monotonic()
        in_time = self._every_s * self._between / max(now - self._settled_at, 1e-9)
        mine = min(in_time, 2.0 * self._between, MOST_STEPS_BETWEEN)  # the first steps tell little
        votes = torch.tensor([-mine, *map(float, asked)], dtype=torch.float64)
        dist.all_reduce(votes, dist.ReduceOp.MAX, group=self._world.groups.control)
        fewest, *answers = votes.tolist()
        self._between = self._left = max(1, int(-fewest))
        self._settled_at = now
        return tuple(answer > 0 for answer in answers)


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
