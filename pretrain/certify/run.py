"""All checks in order, and the certificate as a table and as JSON."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pretrain.certify.costs import cost_findings
from pretrain.certify.exactness import batch_norm_findings, gradient_findings
from pretrain.certify.harness import CheckResult, Harness
from pretrain.certify.kernels import kernel_findings
from pretrain.certify.shards import configuration_findings, shard_findings
from pretrain.certify.training import lars_findings, training_findings
from pretrain.config import PretrainConfig, run_fingerprint
from pretrain.dist import World, block_of_ranks
from pretrain.numerics import set_numerics
from pretrain.plan import batch_norm_ranks
from pretrain.rundir import environment, write_json

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

    A check that raises is a result that failed; what it raised on this rank is in it.
    """
    set_numerics(config.precision)
    sharing = batch_norm_ranks(config.sync_batch_norm, world_size=world.size, ranks_per_node=ranks_per_node)
    solo = block_of_ranks(world, 1)
    harness = Harness(config, world, solo, block_of_ranks(world, sharing))
    results: list[CheckResult] = []
    for name in checks:
        try:
            results += CHECKS[name](harness)
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raised = f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"
            results.append(CheckResult(name, "all of it", raised, "no error", passed=False))
    return results


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
