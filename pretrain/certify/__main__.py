"""torchrun --nproc-per-node N -m pretrain.certify [--config CONFIG] [section.key=value ...]

python -m pretrain.certify --loss MODULE:NAME [argument=value ...]
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pretrain.config import PretrainConfig
from pretrain.configio import apply_overrides, find_config, load
from pretrain.errors import ConfigError
from pretrain.format import command
from pretrain.plan import make_plan
from pretrain.preemption import interruptible
from pretrain.ranks import ranks_per_node_from_environment, world_size_from_environment

DEFAULT_BATCH = 4096
TIMEOUT_S = 60


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every check passed, 1 where one failed, 2 for a bad configuration."""
    given = _parser().parse_intermixed_args(arguments)
    if given.loss is not None:
        return _judge(given.loss, given.overrides, given.output)
    from pretrain.dist import open_world

    ranks, per_node = world_size_from_environment(), ranks_per_node_from_environment()
    try:
        config = _config(given.config, given.overrides, ranks)
        make_plan(
            config, images=2**62, world_size=ranks, ranks_per_node=per_node, source=str(given.config or "default")
        )
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    from pretrain.certify.run import RanksStuck, certify, report

    with open_world(config.device, backend=given.backend, timeout_s=TIMEOUT_S) as world:
        start = time.perf_counter()
        stuck, reporter = False, 0
        try:
            results = certify(config, world, ranks_per_node=per_node)
        except RanksStuck as error:
            results, reporter, stuck = error.results, error.reporter, True
        if world.rank == reporter:
            report(results, config, world, time.perf_counter() - start, given.output)
        if stuck:  # leaving in good order would wait for those that wait for this one
            time.sleep(0.0 if world.rank == reporter else 5.0)
            sys.stdout.flush()
            os._exit(1)
    return 0 if all(result.passed for result in results) else 1


def _judge(path: str, overrides: list[str], output: Path) -> int:
    from pretrain.certify.losses import LossToJudge, as_json, judge, show
    from pretrain.rundir import write_json

    try:
        if world_size_from_environment() > 1:
            raise ValueError("--loss starts its own ranks: run it without torchrun")
        loss = LossToJudge(path, apply_overrides({}, overrides))
        loss.build()
    except (ValueError, TypeError) as error:
        print(f"--loss {path}: {error}", file=sys.stderr)
        return 2
    verdicts = judge([loss])
    show(verdicts)
    write_json(output, as_json(loss, verdicts))
    return 0 if all(verdict.exact for verdict in verdicts) else 1


def _config(path: Path | None, overrides: list[str], ranks: int) -> PretrainConfig:
    if path is not None:
        return load(PretrainConfig, find_config("pretrain", path), overrides)
    if overrides:
        raise SystemExit("section.key=value needs --config CONFIG")
    return PretrainConfig(global_batch_size=DEFAULT_BATCH // ranks * ranks)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=command("certify", "pretrain.certify"),
        description="Measure on this machine, with these ranks, that W ranks compute what one rank computes: losses, "
        "gradients, batch norm, LARS, data order; and what that costs. Start it as training is started.",
        epilog="example: torchrun --nproc-per-node 2 -m pretrain.certify --config configs/pretrain/cifar10.yaml",
    )
    parser.add_argument("--config", type=Path, help="certify this run's objective, optimizer, data and batch size")
    parser.add_argument(
        "--loss",
        metavar="MODULE:NAME",
        help="judge only this loss(z_a, z_b): a function, or a class made with argument=value",
    )
    parser.add_argument("--backend", choices=["gloo", "nccl"], help="default: nccl for CUDA, gloo for CPU tensors")
    parser.add_argument("--output", type=Path, default=Path("certificate.json"), help="default: certificate.json")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings that replace the config's")
    return parser


if __name__ == "__main__":
    sys.exit(interruptible(main))
