"""A pool of gloo ranks that many tests share: starting one costs seconds, most of them for importing torch.

    results = ranks(3).run(function, argument)     # [function(group, argument) on rank 0, on rank 1, on rank 2]

`function` is a module-level function of a test module; arguments and results are pickled (tensors by value).
An exception on a rank comes back with that rank's traceback. A rank that dies or outlives the deadline fails the test,
takes the pool with it, and the next test gets a fresh one.
"""

import multiprocessing
import pickle
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

POOL_SIZE = 4
START_DEADLINE_S = 180.0
# How long the other ranks may go on once one has failed: they usually wait for it in a collective, in vain.
GRACE_S = 3.0


class RanksFailed(AssertionError):
    """One or more ranks raised, died or hung."""


class RankPool:
    """Four processes with one default process group and one sub-group of each size from 1 to 4."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="ranks-")
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []
        store = str(Path(self._folder.name) / "store")
        for rank in range(POOL_SIZE):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(rank, store, theirs), daemon=True, name=f"rank-{rank}")
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._collect(POOL_SIZE, START_DEADLINE_S, "starting")

    def run(self, world_size: int, deadline_s: float, function: Callable[..., Any], args: tuple[Any, ...]) -> list[Any]:
        """function(group, *args) on ranks 0 .. world_size - 1 of a group of that size; results in rank order."""
        request = pickle.dumps((world_size, function, args))
        for pipe in self._pipes[:world_size]:
            pipe.send_bytes(request)
        return self._collect(world_size, deadline_s, function.__qualname__)

    def close(self) -> None:
        """Ends the processes; hung ones are killed."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.kill()
            process.join()
        self._folder.cleanup()

    @property
    def alive(self) -> bool:
        return all(process.is_alive() for process in self._processes)

    def _collect(self, world_size: int, deadline_s: float, what: str) -> list[Any]:
        results: dict[int, Any] = {}
        failures: dict[int, str] = {}
        deadline = time.monotonic() + deadline_s
        while len(results) + len(failures) < world_size:
            waiting = {self._pipes[r]: r for r in range(world_size) if r not in results and r not in failures}
            ready = wait(list(waiting), timeout=max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for pipe in ready:
                assert isinstance(pipe, Connection)
                rank = waiting[pipe]
                try:
                    succeeded, value = pickle.loads(pipe.recv_bytes())
                except (EOFError, OSError):
                    self._processes[rank].join(1.0)
                    succeeded, value = False, f"died with exit code {self._processes[rank].exitcode}"
                if succeeded:
                    results[rank] = value
                else:
                    failures[rank] = value
                    deadline = min(deadline, time.monotonic() + GRACE_S)
        hung = [rank for rank in range(world_size) if rank not in results and rank not in failures]
        if hung:
            self.close()
        if failures or hung:
            raise RanksFailed(_report(what, world_size, failures, hung, deadline_s))
        return [results[rank] for rank in range(world_size)]


class Ranks:
    """What the `ranks` fixture calls: ranks(world_size).run(function, *args)."""

    def __init__(self) -> None:
        self._pool: RankPool | None = None

    def __call__(self, world_size: int, deadline_s: float = 120.0) -> "_Bound":
        if not 1 <= world_size <= POOL_SIZE:
            raise ValueError(f"world_size must be 1 to {POOL_SIZE}, got {world_size}")
        return _Bound(self, world_size, deadline_s)

    def pool(self) -> RankPool:
        if self._pool is None or not self._pool.alive:
            self.close()
            self._pool = RankPool()
        return self._pool

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
        self._pool = None


class _Bound:
    def __init__(self, ranks: Ranks, world_size: int, deadline_s: float) -> None:
        self._ranks, self._world_size, self._deadline_s = ranks, world_size, deadline_s

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        return self._ranks.pool().run(self._world_size, self._deadline_s, function, args)


def _report(what: str, world_size: int, failures: dict[int, str], hung: list[int], deadline_s: float) -> str:
    lines = [f"{what} failed on {world_size} ranks"]
    lines += [f"--- rank {rank}: {failures[rank]}" for rank in sorted(failures)]
    if hung:
        lines.append(
            f"--- no answer within the deadline of {deadline_s:g} s (or {GRACE_S:g} s after a failure): {hung}"
        )
    return "\n".join(lines)


def _serve(rank: int, store: str, pipe: Connection) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    try:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=POOL_SIZE, timeout=timedelta(seconds=300)
        )
        groups = {size: dist.new_group(range(size)) for size in range(1, POOL_SIZE + 1)}
        pipe.send_bytes(pickle.dumps((True, None)))
        while True:
            request = pipe.recv_bytes()
            pipe.send_bytes(_answer(request, groups))
    except (EOFError, BrokenPipeError, KeyboardInterrupt):
        return


def _answer(request: bytes, groups: dict[int, Any]) -> bytes:
    try:
        world_size, function, args = pickle.loads(request)
        return pickle.dumps((True, function(groups[world_size], *args)))
    except Exception:
        return pickle.dumps((False, traceback.format_exc()))
