"""The certificate: green where ranks are one rank, and red, in the right line, for each mistake that peers make."""

import dataclasses
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from pretrain.batch import StepContext
from pretrain.certify.harness import CheckResult
from pretrain.certify.run import CHECKS, as_json, certify
from pretrain.collectives import all_gather_rows, group_rank_and_size
from pretrain.config import DataConfig, PretrainConfig
from pretrain.data.sampler import Indices, RankOrder
from pretrain.dist import World
from pretrain.losses.contrastive import ntxent_loss
from pretrain.objectives.base import ObjectiveOutput
from tests.objectives.own_code import Sharp
from tests.ranks import Ranks
from tests.training import run

CPU = torch.device("cpu")


def configuration(**changes: Any) -> PretrainConfig:
    data = DataConfig(dataset="synthetic", directory=Path("/nowhere"), images=1000)
    return PretrainConfig(**{"global_batch_size": 64, "data": data, **changes})


def on_rank(
    group: dist.ProcessGroup, faults: dict[str, Callable[..., Any]], checks: list[str], config: PretrainConfig
) -> list[CheckResult]:
    world = World(dist.get_rank(), dist.get_world_size(), CPU)
    if "seed of rank 1" in faults and world.rank == 1:
        config = config.model_copy(update={"seed": 99})
    with ExitStack() as stack:
        if faults:  # the healthy ranks show every objective
            stack.enter_context(mock.patch("pretrain.certify.exactness.every_objective", return_value=[]))
        for target, fault in faults.items():
            if "." in target:
                stack.enter_context(mock.patch(target, fault))
        return certify(config, world, ranks_per_node=2, checks=checks)


def found(ranks: Ranks, faults: dict[str, Any], checks: list[str], **changes: Any) -> list[CheckResult]:
    """The results of 4 ranks, which must all say the same."""
    results = ranks(4).run(on_rank, faults, checks, configuration(**changes))
    assert [[f.passed for f in r] for r in results] == [[f.passed for f in results[0]]] * 4
    return results[0]  # type: ignore[no-any-return]


def failed(results: list[CheckResult]) -> set[str]:
    return {finding.check for finding in results if not finding.passed}


def test_these_ranks_are_one_rank(ranks: Ranks) -> None:
    results = found(ranks, {}, list(CHECKS))
    assert not failed(results), [f for f in results if not f.passed]
    assert {f.check for f in results} == {
        *("ranks", "kernels", "gradient", "batch norm", "LARS", "three steps", "shards", "communication", "loss")
    }
    objectives = " ".join(f.subject for f in results if f.check == "gradient")
    for name in ("simclr", "dcl", "barlow_twins", "vicreg", "wmse", "byol", "simsiam", "supervised", "micro-batches"):
        assert name in objectives


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_other_optimizers_too(ranks: Ranks, name: Any) -> None:
    assert not failed(found(ranks, {}, ["three steps"], optimizer={"name": name}))


def test_another_encoder_too(ranks: Ranks) -> None:
    assert not failed(found(ranks, {}, ["three steps"], encoder={"architecture": "convnet4"}))


BF16 = {"precision": {"autocast": "bf16", "channels_last": True}}


def test_the_configured_numerics_have_a_bound_that_is_measured(ranks: Ranks) -> None:
    results = found(ranks, {}, ["three steps"], **BF16)
    assert not failed(results)
    numbers = next(f.numbers for f in results if "bf16, channels_last" in f.subject)
    assert 1e-4 < numbers["rounding"] < 0.1, "coarser than float32, and far from any mistake"
    planted = FAULTS["local statistics"][0]
    assert failed(found(ranks, planted, ["three steps"], **BF16)) == {"three steps"}


def gather_without_gradient(z_a: Tensor, z_b: Tensor, *, temperature: float, group: Any, negatives: Any) -> Tensor:
    """Own anchors against all keys, of which only the own ones know where they come from."""
    rank, size = group_rank_and_size(group)
    pairs = len(z_a)
    own = F.normalize(torch.stack((z_a, z_b), dim=1), dim=2).flatten(0, 1)
    parts = list(all_gather_rows(own, group).chunk(size))
    parts[rank] = own
    keys, rows = torch.cat(parts), torch.arange(2 * pairs)
    logits = own @ keys.t() / temperature
    logits[rows, rows + rank * 2 * pairs] = float("-inf")
    return F.cross_entropy(logits, (rows ^ 1) + rank * 2 * pairs)


def one_over_w(z_a: Tensor, z_b: Tensor, **options: Any) -> Tensor:
    loss = ntxent_loss(z_a, z_b, **options)
    weight = 1 / group_rank_and_size(options["group"])[1]
    return loss.detach() + weight * (loss - loss.detach())


def nothing(module: Any, **options: Any) -> None:
    """Batch norm as it was: every rank its own statistics."""


honest_batches = RankOrder.batches


def repeated_shard(self: RankOrder, epoch: int, first_batch: int = 0) -> Indices:
    return honest_batches(dataclasses.replace(self, rank=0), epoch, first_batch)


def own_permutation(self: RankOrder, epoch: int, first_batch: int = 0) -> Indices:
    return honest_batches(dataclasses.replace(self, seed=self.seed + self.rank), epoch, first_batch)


def neighbouring_batches(self: RankOrder, epoch: int, first_batch: int = 0) -> Indices:
    """Every image once, but each rank walks through the epoch from another batch on."""
    return np.roll(honest_batches(self, epoch, first_batch), self.rank, axis=0)


class ForgetfulLARS(torch.optim.SGD):
    """No trust ratio, and only the first rank's momentum."""

    def __init__(self, params: Any, lr: float, momentum: float, trust_coefficient: float) -> None:
        super().__init__(
            [{k: v for k, v in group.items() if k != "adapt"} for group in params],
            lr * 1e-3,
            momentum=momentum if dist.get_rank() == 0 else 0.0,
        )


NTXENT = "pretrain.objectives.simclr.ntxent_loss"
BATCHES = "pretrain.data.sampler.RankOrder.batches"
FAULTS: dict[str, tuple[dict[str, Any], list[str], set[str]]] = {
    "gather without gradient": ({NTXENT: gather_without_gradient}, ["gradient"], {"gradient"}),
    "a gradient of 1/W": ({NTXENT: one_over_w}, ["gradient"], {"gradient"}),
    "local statistics": (
        {
            "pretrain.certify.harness.synchronise_batch_norm": nothing,
            "pretrain.certify.exactness.synchronise_batch_norm": nothing,
        },
        ["gradient", "batch norm", "three steps"],
        {"gradient", "batch norm", "three steps"},
    ),
    "repeated shard": ({BATCHES: repeated_shard}, ["shards"], {"shards"}),
    "each rank its own permutation": ({BATCHES: own_permutation}, ["shards"], {"shards"}),
    "other global batches": ({BATCHES: neighbouring_batches}, ["shards"], {"shards"}),
    "a rank with another seed": (
        {"seed of rank 1": nothing},
        ["ranks", "three steps", "shards"],
        {"ranks", "three steps", "shards"},
    ),
    "another LARS on each rank": ({"pretrain.certify.training.LARS": ForgetfulLARS}, ["LARS"], {"LARS"}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_red(ranks: Ranks, fault: str) -> None:
    planted, checks, expected = FAULTS[fault]
    results = found(ranks, planted, checks)
    assert failed(results) == expected, results
    said = " ".join(finding.measured for finding in results)
    if fault == "a gradient of 1/W":
        assert "|gradient| is 0.25 of one rank's" in said
    if fault == "repeated shard":
        assert "25% of the images are seen" in said
    if fault == "other global batches":
        assert "but in other global batches" in said


def test_an_error_is_a_finding(ranks: Ranks) -> None:
    results = found(ranks, {NTXENT: nothing}, ["gradient", "shards"])
    assert failed(results) == {"gradient"}
    assert "AttributeError" in results[0].measured or "TypeError" in results[0].measured


def test_a_single_rank_and_its_json() -> None:
    config, world = configuration(), World(0, 1, CPU)
    results = certify(config, world, ranks_per_node=1, checks=["ranks", "batch norm", "shards", "cost"])
    assert not failed(results)
    text = json.dumps(
        as_json([*results, CheckResult("x", "y", "z", "w", False, {"e": float("inf")})], config, world, 1.0)
    )
    assert json.loads(text)["passed"] is False
    assert json.loads(text)["results"][-1]["numbers"] == {"e": None}


def test_the_command_says_no_to_a_run_that_depends_on_its_ranks(tmp_path: Path) -> None:
    output = tmp_path / "certificate.json"
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "pretrain.certify", "--config", "configs/pretrain/fashion_mnist.yaml", "--output", str(output)),
        *("sync_batch_norm=off", f"data.directory={tmp_path}", "device=cpu"),
    ]
    done = run(command)
    assert done.returncode == 1, done.stderr
    certificate = json.loads(output.read_text())
    assert certificate["passed"] is False
    assert {f["check"] for f in certificate["results"] if not f["passed"]} == {"gradient", "batch norm", "three steps"}
    assert "FAILED" in done.stdout
    assert certificate["world_size"] == 2


class RaisesOnOneRank(Sharp):
    """Leaves the others in the collective of the loss."""

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        if dist.get_rank() == 0 and group_rank_and_size(self.group)[1] > 1:
            raise ValueError("only here")
        return super().loss(embeddings, labels, context)


def test_a_check_that_raises_on_one_rank_is_a_red_line_and_no_hang(tmp_path: Path) -> None:
    output, path = tmp_path / "certificate.json", tmp_path / "own.yaml"
    path.write_text(
        "{objective: {name: 'tests.certify.test_certify:RaisesOnOneRank'}, data: {dataset: synthetic}, device: cpu}"
    )
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"),
        *("-m", "pretrain.certify", "--config", str(path), "--output", str(output)),
    ]
    done = run(command, timeout_s=50)
    assert done.returncode == 1, done.stderr
    last = json.loads(output.read_text())["results"][-1]
    assert (last["check"], last["passed"]) == ("gradient", False)
    assert last["measured"].startswith("on rank 0 alone: ValueError: only here")
    assert "on rank 0 alone" in done.stdout


def test_a_bad_configuration_is_refused(tmp_path: Path) -> None:
    from pretrain.certify.__main__ import main

    assert (
        main(["--config", "configs/pretrain/cifar10.yaml", "global_batch_size=0", "--output", str(tmp_path / "x")]) == 2
    )
    assert not (tmp_path / "x").exists()
