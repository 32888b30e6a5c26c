"""Gradient caching against the plain step, and every objective on several ranks against one."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pretrain.batch import Batch, StepContext
from pretrain.config import EncoderConfig
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.objectives.base import Objective, build_objective
from pretrain.objectives.byol import BYOL
from pretrain.objectives.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DCLConfig,
    ObjectiveConfig,
    ProjectorConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupervisedConfig,
    VICRegConfig,
    WMSEConfig,
)
from tests.ranks import Ranks

IMAGES = 24
CONTEXT = StepContext(step=7, progress=0.1)
ENCODER = EncoderConfig(architecture="resnet18", width=0.0625, stem="strided", zero_init_last_gamma=False)
HEAD = ProjectorConfig(layers=2, hidden_width=12, output_width=5)
PLAIN = ProjectorConfig(layers=2, hidden_width=12, output_width=5, last_batch_norm=False)
OBJECTIVES: list[ObjectiveConfig] = [
    SimCLRConfig(temperature=0.3, projector=HEAD),
    SimCLRConfig(temperature=0.3, negatives=8, projector=HEAD),
    DCLConfig(temperature=0.3, projector=HEAD),
    BarlowTwinsConfig(projector=PLAIN),
    VICRegConfig(projector=PLAIN),
    WMSEConfig(projector=PLAIN),
    WMSEConfig(projector=PLAIN, sub_batch_size=12, iterations=2),
    BYOLConfig(projector=PLAIN, predictor=PLAIN),
    SimSiamConfig(projector=HEAD, predictor=PLAIN),
    SupervisedConfig(),
    SimCLRConfig(temperature=0.3, projector=HEAD.model_copy(update={"dropout": 0.4})),
]


def name(config: Any) -> str:
    named = [str(v) for k, v in config.model_dump().items() if k in ("name", "negatives", "sub_batch_size") and v]
    dropout = getattr(config, "projector", HEAD).dropout
    return "-".join([*named, *(["dropout"] if dropout else [])])


def objective_of(config: ObjectiveConfig, *, group_norm: bool = False) -> Objective:
    objective = build_objective(config, ENCODER, classes=4, seed=3)
    for module in objective.modules():  # away from the symmetric start, so that every gradient is felt
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=torch.Generator().manual_seed(module.num_features))
    if group_norm:
        _replace_norms(objective)
    return objective.double()


def _replace_norms(module: nn.Module) -> None:
    for key, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, key, nn.GroupNorm(1, child.num_features))
        elif isinstance(child, nn.BatchNorm1d):
            setattr(module, key, nn.LayerNorm(child.num_features))
        else:
            _replace_norms(child)


def batch(first: int = 0, count: int = IMAGES) -> Batch:
    generator = torch.Generator().manual_seed(5)
    views = torch.randint(0, 256, (IMAGES, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    labels = torch.arange(IMAGES) % 4
    part = slice(first, first + count)
    return Batch(views[part], labels[part], torch.arange(IMAGES)[part])


def gradients_of(objective: Objective, data: Batch, micro_batches: int = 1, group: Any = None) -> dict[str, Tensor]:
    """Loss, gradients of all parameters, and buffers after one step."""
    embed = objective.embed
    objective.embed = lambda images, context: embed(images.double(), context)  # type: ignore[method-assign]
    averager = GradientAverager(list(objective.parameters()), group)
    output = forward_backward(objective, averager, data, CONTEXT, micro_batches=micro_batches)
    found = {f"grad {key}": p.grad.clone() for key, p in objective.named_parameters() if p.grad is not None}
    buffers = {key: value.clone() for key, value in objective.named_buffers()}
    return {"loss": output.loss, **found, **buffers}


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    assert found.keys() == expected.keys()
    scale = max(float(value.abs().max()) for key, value in expected.items() if key.startswith("grad"))
    assert scale > 1e-6, "the test would see nothing"
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=tolerance, atol=tolerance * scale, msg=key)


@pytest.mark.parametrize("config", OBJECTIVES, ids=name)
@pytest.mark.parametrize("micro_batches", [2, 6])
def test_gradient_caching_is_exact_where_norms_do_not_couple_samples(config: Any, micro_batches: int) -> None:
    expected = gradients_of(objective_of(config, group_norm=True), batch())
    found = gradients_of(objective_of(config, group_norm=True), batch(), micro_batches)
    assert_same(found, expected, 1e-10)


def on_ranks(group: Any, config: ObjectiveConfig, micro_batches: int) -> dict[str, Tensor]:
    rank, size = torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
    objective = objective_of(config)
    convert_sync_batch_norm(objective, group)
    objective.group = group
    count = IMAGES // size
    found = gradients_of(objective, batch(rank * count, count), micro_batches, group)
    torch.distributed.all_reduce(found["loss"], group=group)
    found["loss"] /= size
    return found


@pytest.mark.parametrize("config", OBJECTIVES, ids=name)
@pytest.mark.parametrize(("size", "micro_batches"), [(2, 1), (4, 1), (2, 3)])
def test_ranks_are_one_rank(ranks: Ranks, config: Any, size: int, micro_batches: int) -> None:
    expected = gradients_of(objective_of(config), batch(), micro_batches)
    for found in ranks(size).run(on_ranks, config, micro_batches):
        assert_same(found, expected, 1e-9)


def test_the_target_follows_parameters_and_buffers() -> None:
    objective = objective_of(BYOLConfig(projector=PLAIN, predictor=PLAIN, momentum=0.9))
    assert isinstance(objective, BYOL)
    target, encoder = objective.target_encoder, objective.encoder
    online = {key: value + 1 if value.is_floating_point() else value for key, value in encoder.state_dict().items()}
    before = {key: value.clone() for key, value in target.state_dict().items()}
    encoder.load_state_dict(online)
    objective.after_optimizer_step(StepContext(progress=0.5))
    keep = 1 - 0.1 * 0.5
    for key, value in target.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, keep * before[key] + (1 - keep) * online[key])
    assert not any(p.requires_grad for p in target.parameters())


@pytest.mark.parametrize("config", [SimCLRConfig(projector=HEAD), SupervisedConfig()], ids=name)
def test_every_top1_that_is_logged_is_a_fraction(config: Any) -> None:
    objective = objective_of(config).float()
    output = forward_backward(objective, GradientAverager([]), batch(), StepContext(measure=True))
    shares = {key: float(value) for key, value in output.metrics.items() if key.endswith("_top1")}
    assert shares
    rows = 2 * IMAGES
    assert all(0 <= share <= 1 and abs(share * rows - round(share * rows)) < 1e-3 for share in shares.values()), shares
