"""All checks in order, and the certificate as a table and as JSON."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch.distributed.distributed_c10d import _get_default_store

from pretrain.certify.costs import cost_findings
from pretrain.certify.exactness import batch_norm_findings, gradient_findings
from pretrain.certify.harness import CheckResult, Harness
from pretrain.certify.kernels import kernel_findings
from pretrain.certify.shards import configuration_findings, shard_findings
from pretrain.certify.training import lars_findings, training_findings
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.dist import World, agree_on, block_of_ranks
from pretrain.numerics import set_numerics
from pretrain.plan import batch_norm_ranks
from pretrain.rundir import environment, write_json

GRACE_S = 5.0  # for ranks that are about to finish a check which has raised on another

CHECKS: dict[str, Callable[[Harness], list[CheckResult]]] = {
    "ranks": configuration_findings,
    "kernels": kernel_findings,
    "gradient": gradient_findings,
    "batch norm": batch_norm_findings,
    "LARS": lars_findings,
    "three steps": training_findings,
    "shards": shard_findings,
    "cost": cost_findings,
}


def certify(
    config: PretrainConfig, world: World, *, ranks_per_node: int, checks: Iterable[str] = tuple(CHECKS)
) -> list[CheckResult]:
    """Every result, the same on every rank. Collective: every rank calls this.

    A check that raises is a result that failed, with what it raised. Raises RanksStuck, on those that can go on, where
    others wait in it in vain.
    """
    set_numerics(config.precision)
    sharing = batch_norm_ranks(config.sync_batch_norm, world_size=world.size, ranks_per_node=ranks_per_node)
    solo = block_of_ranks(world, 1)
    harness = Harness(config, world, solo, block_of_ranks(world, sharing))
    results: list[CheckResult] = []
    round_table = RoundTable(world)
    for name in checks:
        problem, found = "", []
        try:
            found = CHECKS[name](harness)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
        told, here = round_table.tell(name, problem)
        results += [CheckResult(name, "all of it", told, "no error", passed=False)] if told else found
        if len(here) < world.size:
            raise RanksStuck(results, reporter=here[0])
    return results


class RanksStuck(RuntimeError):
    """A check raised on some ranks, and the others wait for them in a collective. reporter: the rank to tell it."""

    def __init__(self, results: list[CheckResult], reporter: int) -> None:
        self.results, self.reporter = results, reporter
        super().__init__(results[-1].measured)


class RoundTable:
    """Where ranks tell one another what a check raised: in the store, which needs no rank to take part."""

    def __init__(self, world: World) -> None:
        self._world, self._store = world, None
        if world.size > 1:
            self._store = dist.PrefixStore(f"certify {agree_on(world, time.time_ns())}", _get_default_store())  # type: ignore[attr-defined]

    def tell(self, name: str, problem: str) -> tuple[str, list[int]]:
        """(what was raised on which ranks, the ranks that have come here) after waiting for all, or for GRACE_S."""
        if self._store is None:
            return problem, [0]
        keys = [f"{name} {rank}" for rank in range(self._world.size)]
        self._store.set(keys[self._world.rank], problem)
        deadline = math.inf
        while True:
            here = [rank for rank, key in enumerate(keys) if self._store.check([key])]
            told = {rank: self._store.get(keys[rank]).decode() for rank in here}
            raised = {rank: text for rank, text in told.items() if text}
            if len(here) == self._world.size or time.monotonic() > deadline:
                break
            if raised and deadline == math.inf:
                deadline = time.monotonic() + GRACE_S
            time.sleep(0.02)
        if not raised:
            return "", here
        ranks = "" if len(raised) == len(keys) else f"on rank {', '.join(map(str, raised))} alone: "
        return ranks + next(iter(raised.values())), here


def as_json(results: list[CheckResult], config: PretrainConfig, world: World, seconds: float) -> dict[str, Any]:
    """The certificate as plain values; a number that is not finite is null."""
    return {
        "passed": all(result.passed for result in results),
        "world_size": world.size,
        "device": device_name(world),
        "fingerprint": run_fingerprint(config),
        "seconds": seconds,
        "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "environment": environment(),
        "results": [
            {
                "check": result.check,
                "subject": result.subject,
                "measured": result.measured,
                "expected": result.expected,
                "passed": result.passed,
                "numbers": {k: v if math.isfinite(v) else None for k, v in result.numbers.items()},
            }
            for result in results
        ],
    }


def device_name(world: World) -> str:
    """cpu, or the model of the GPU."""
    return torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else "cpu"


def report(results: list[CheckResult], config: PretrainConfig, world: World, seconds: float, output: Path) -> None:
    """Write the JSON, print the table and the verdict."""
    write_json(output, as_json(results, config, world, seconds))
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{world.size} ranks on {device_name(world)} against one", title_justify="left"
    )
    for name in ("check", "subject", "measured", "expected", ""):
        table.add_column(name, overflow="fold")
    for result in results:
        verdict = "[green]ok[/]" if result.passed else "[bold red]FAILED[/]"
        cells = (result.check, result.subject, result.measured, result.expected)
        table.add_row(*(escape(cell) for cell in cells), verdict)
    console = Console(width=None if Console().is_terminal else 160)
    console.print(table)
    failed = sum(not result.passed for result in results)
    verdict = "these ranks are one rank" if not failed else f"{failed} of {len(results)} checks FAILED"
    console.print(f"{verdict}; {seconds:.1f} s; {output}", highlight=False)
