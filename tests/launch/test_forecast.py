"""What plans predict: sizes against the real network, memory against what autograd keeps, communication by hand."""

import itertools
import math
from pathlib import Path

import pytest
import torch

from launch.forecast.communication import Links, communication, model_size
from launch.forecast.forecast import forecast, memory_of, micro_batches_needed, weak_scaling
from launch.plan.config import load_study
from launch.plan.graph import build_graph
from launch.plan.points import StudyPoint
from launch.plan.targets import Hardware, SlurmTarget
from pretrain.batch import StepContext
from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.objectives.base import build_objective
from pretrain.plan import make_plan
from tests.launch.conftest import Workplace

HEAD = {"layers": 2, "hidden_width": 64, "output_width": 32, "last_batch_norm": False}
NETWORKS = {
    "resnet18": {"encoder": {"architecture": "resnet18", "stem": "small", "width": 0.25}},
    "resnet50": {"encoder": {"architecture": "resnet50", "stem": "imagenet", "width": 0.25}},
    "odd sides": {"encoder": {"architecture": "resnet34", "stem": "strided", "width": 0.125}, "side": 29},
    "convnet4": {"encoder": {"architecture": "convnet4", "widths": [8, 24, 8, 16]}, "side": 29},
    "byol": {
        "encoder": {"architecture": "resnet18", "stem": "strided", "width": 0.125},
        "objective": {"name": "byol", "projector": HEAD, "predictor": HEAD},
    },
    "vicreg": {
        "encoder": {"architecture": "resnet18", "stem": "strided", "width": 0.125},
        "objective": {"name": "vicreg", "projector": {**HEAD, "layers": 3}},
    },
}


def config_of(name: str) -> PretrainConfig:
    sections = dict(NETWORKS[name])
    side = sections.pop("side", 32)
    return validate(PretrainConfig, {**sections, "augmentation": {"crop_size_px": side}}, name)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_is_as_large_as_counted(name: str) -> None:
    config = config_of(name)
    real = build_objective(config.objective, config.encoder, classes=10, seed=0)
    counted = model_size(config)
    assert counted.parameters == sum(p.numel() for p in real.parameters() if p.requires_grad)
    assert counted.target_parameters == sum(p.numel() for p in real.parameters() if not p.requires_grad)
    norms = [m for m in real.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    assert sorted(counted.norm_channels) == sorted(norm.num_features for norm in norms)

    weights = {parameter.untyped_storage().data_ptr() for parameter in real.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images, side = 16, config.augmentation.crop_size_px
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        views = torch.zeros(images, 2, 3, side, side, dtype=torch.uint8)
        embedded = real.train().embed_views(views, StepContext())
    assert embedded.embeddings.requires_grad
    assert counted.kept_elements == pytest.approx(sum(kept.values()) / (4 * 2 * images), rel=0.02)


def resnet50(*, ranks: int, batch: int) -> StudyPoint:
    config = validate(
        PretrainConfig, {"global_batch_size": batch, "precision": {"autocast": "bf16"}, "data": {"images": None}}, ""
    )
    plan = make_plan(config, images=1_281_167, world_size=ranks, ranks_per_node=8)
    return StudyPoint(entry=None, config=config, plan=plan)  # type: ignore[arg-type]


def test_memory_of_resnet50_is_what_people_see() -> None:
    """torchvision's ResNet-50 takes about 22 GB for 256 float32 images of 224 px, and half of it under autocast."""
    config = validate(PretrainConfig, {"global_batch_size": 128, "optimizer": {"name": "sgd"}}, "")
    plan = make_plan(config, images=1000, world_size=1)
    memory = memory_of(config, plan, model_size(config), micro_batches=1)
    assert 19e9 < memory.activations < 24e9
    assert memory.states == pytest.approx(3 * 4 * 27.97e6, rel=0.01)


def test_micro_batches_are_the_fewest_that_fit_and_divide() -> None:
    point = resnet50(ranks=8, batch=4096 * 3)
    size = model_size(point.config)
    needed = micro_batches_needed(point.config, point.plan, size, Hardware(gpu_memory_gb=40))
    assert needed is not None
    assert point.plan.batch_size_per_rank % needed == 0

    def total(parts: int) -> int:
        return memory_of(point.config, point.plan, size, micro_batches=parts).total

    assert total(needed) <= 36e9
    fewer = [parts for parts in range(1, needed) if point.plan.batch_size_per_rank % parts == 0]
    assert all(total(parts) > 36e9 for parts in fewer)
    assert micro_batches_needed(point.config, point.plan, size, Hardware(gpu_memory_gb=0.1)) is None


def test_communication_by_hand() -> None:
    hardware = Hardware(nvlink_gb_per_s=100, nvlink_latency_us=2, network_gb_per_s=10, network_latency_us=5)
    inside, across = Links(hardware, 8, 8), Links(hardware, 32, 8)
    assert inside.all_gather(8e9) == pytest.approx(3 * 2e-6 + 7 / 8 * 0.08)
    assert across.all_gather(32e9) == pytest.approx(3 * 2e-6 + 2 * 5e-6 + 31 / 32 * 3.2)
    assert across.all_reduce(1e9) == pytest.approx(2 * (16e-6 + 31 / 32 * 0.1))
    point = resnet50(ranks=32, batch=4096)
    size = model_size(point.config)
    times = communication(point.config, size, across, global_batch_size=4096, micro_batches=1)
    assert times.gathers == pytest.approx(16e-6 + 31 / 32 * 4 * 8192 * 128 / 10e9)
    assert times.sums == pytest.approx(2 * (16e-6 + 31 / 32 * 4 * 8192 / 10e9))
    norms = len(size.norm_channels)
    sent = sum(4 * (2 * c + 1) * 32 + 4 * 2 * c * 32 for c in size.norm_channels)
    assert times.batch_norm == pytest.approx(2 * norms * 16e-6 + 31 / 32 * sent / 10e9)
    alone = communication(point.config, size, Links(hardware, 1, 1), global_batch_size=128, micro_batches=1)
    assert alone.waiting == alone.gradients == 0


def test_weak_scaling_starts_at_one_and_falls() -> None:
    point = resnet50(ranks=16, batch=4096)
    rows = weak_scaling(point, SlurmTarget(name="slurm", nodes=2), images_per_second=1500.0)
    assert [row.ranks for row in rows] == [2**k for k in range(11)]
    assert rows[0].efficiency == 1
    assert all(before.efficiency >= after.efficiency for before, after in itertools.pairwise(rows))
    assert rows[-1].global_batch_size == 1024 * 256
    assert all(math.isfinite(row.efficiency) and 0 < row.efficiency <= 1 for row in rows)


def test_gpu_hours_follow_from_the_rate() -> None:
    point = resnet50(ranks=16, batch=4096)
    target = SlurmTarget(name="slurm", nodes=2)
    found = forecast(point, target, images_per_second=1000.0)
    assert found.efficiency is not None
    assert found.gpu_hours == pytest.approx(point.images_seen / 1000 / 3600 / found.efficiency)
    assert forecast(point, target, images_per_second=None).gpu_hours is None


def test_a_batch_for_each_gpu_is_refused_and_so_is_one_that_the_gpus_do_not_divide(workplace: Workplace) -> None:
    def refusal(*overrides: str) -> str:
        with pytest.raises(ValueError) as caught:
            build_graph(load_study(workplace.study, overrides), str(workplace.study))
        return str(caught.value)

    assert "a change of GPUs must not change it" in refusal("set.batch_size_per_gpu=32")
    assert "not a multiple of 3 ranks; nearest: 63 or 66" in refusal("target.ranks=3")


def test_plan_prints_the_preflight(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    from launch.__main__ import main

    target = "target={name: slurm, nodes: 2, ranks_per_node: 8, hardware: {images_per_second: 20000}}"
    assert main(["plan", str(workplace.study), target]) == 0
    printed = capsys.readouterr().out
    assert "GPU-hours" in printed
    assert "1,024" in printed
    assert Path(workplace.directory).exists() is False


def test_a_plan_says_what_it_could_not_count(workplace: Workplace, capsys: pytest.CaptureFixture[str]) -> None:
    from launch.__main__ import main

    encoder = "tests.objectives.own_code:Shallow"
    target = "target={name: slurm, nodes: 2, ranks_per_node: 8}"
    own = f"set.encoder={{architecture: '{encoder}'}}"
    assert main(["plan", str(workplace.study), target, own]) == 0
    printed = capsys.readouterr().out
    assert f"{encoder} does not state its layers" in " ".join(printed.split())
    assert main(["plan", str(workplace.study), target]) == 0
    assert "does not state its layers" not in capsys.readouterr().out
