"""The online probe: learns, teaches nothing, and is the same on any number of ranks."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.batch import Batch, StepContext
from pretrain.config import EncoderConfig
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.encoder import join_views, to_float
from pretrain.objectives.base import build_objective
from pretrain.objectives.config import ProjectorConfig, SimCLRConfig
from pretrain.online_probe import OnlineProbe
from tests.ranks import Ranks

CLASSES, WIDTH, IMAGES = 4, 8, 24


def probe_of(**options: Any) -> OnlineProbe:
    return OnlineProbe(WIDTH, classes=CLASSES, **options)


def clusters(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features with one direction for each class, far from 0 and of very different scales; labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    noise = 0.25 * torch.randn(images, WIDTH, generator=generator)
    return (torch.eye(WIDTH)[labels] + noise + 5) * torch.logspace(-2, 2, WIDTH), labels


def learned(group: Any, rank: int, ranks: int) -> dict[str, Tensor]:
    probe = probe_of(group=group)
    for step in range(30):
        features, labels = clusters(IMAGES, step)
        probe.learn(features.chunk(ranks)[rank], labels.chunk(ranks)[rank], StepContext(step))
    return {**probe.state_dict(), **probe.metrics(StepContext(29))}


def on_rank(group: dist.ProcessGroup) -> dict[str, Tensor]:
    return learned(group, dist.get_rank(group), dist.get_world_size(group))


def test_it_learns_the_same_on_any_number_of_ranks(ranks: Ranks) -> None:
    expected = learned(None, 0, 1)
    assert expected["online_probe_top1"] > 0.8
    for result in ranks(3).run(on_rank):
        assert result.keys() == expected.keys()
        for key in ("weight_CF", "bias_C", "mean_F", "var_F", "online_probe_top1"):
            torch.testing.assert_close(result[key], expected[key], rtol=1e-4, atol=1e-4)


def trained(classes: int, micro_batches: int) -> tuple[dict[str, Tensor], OnlineProbe]:
    encoder = EncoderConfig(architecture="resnet18", width=0.0625, stem="strided")
    head = ProjectorConfig(layers=2, hidden_width=12, output_width=5)
    objective = build_objective(SimCLRConfig(projector=head), encoder, classes=CLASSES, seed=0).train()
    probe = OnlineProbe(objective.encoder.feature_width, classes=classes)
    optimizer, gradients = torch.optim.SGD(objective.parameters(), 0.1), GradientAverager([])
    generator = torch.Generator().manual_seed(0)
    for step in range(3):
        views = torch.randint(0, 256, (IMAGES, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
        labels = torch.arange(IMAGES) % CLASSES
        batch = Batch(views, labels, labels)
        output = forward_backward(objective, gradients, batch, StepContext(step), micro_batches=micro_batches)
        probe.learn(output.features_bF, labels[::micro_batches], StepContext(step))
        optimizer.step()
        optimizer.zero_grad()
    return objective.state_dict(), probe


def test_training_is_the_same_with_and_without_it() -> None:
    for micro_batches in (1, 3):
        without, silent = trained(0, micro_batches)
        beside, probe = trained(CLASSES, micro_batches)
        assert all(torch.equal(without[key], beside[key]) for key in without)
        assert silent.metrics(StepContext(2)) == {}
        assert 0 <= float(probe.metrics(StepContext(2))["online_probe_top1"]) <= 1
        assert bool(probe.weight_CF.any())


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_a_step_gives_out_the_features_of_the_first_view_of_the_first_micro_batch(micro_batches: int) -> None:
    encoder = EncoderConfig(architecture="resnet18", width=0.0625, stem="strided")
    objective = build_objective(SimCLRConfig(), encoder, classes=CLASSES, seed=0).train()
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (IMAGES, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    batch = Batch(views, torch.arange(IMAGES), torch.arange(IMAGES))
    output = forward_backward(objective, GradientAverager([]), batch, StepContext(), micro_batches=micro_batches)
    # Batch norm sees both views of the micro-batch.
    images = to_float(join_views(views[::micro_batches]))
    expected = objective.encoder(images)[: IMAGES // micro_batches]
    assert not output.features_bF.requires_grad
    assert torch.equal(output.features_bF, expected)


def test_images_without_a_label_teach_nothing() -> None:
    probe = probe_of()
    for step in range(3):
        features, labels = clusters(IMAGES, step)
        probe.learn(features, torch.full_like(labels, -1), StepContext(step))
    assert not probe.weight_CF.any()
    assert float(probe.metrics(StepContext(2))["online_probe_top1"]) == 0


def run(probe: OnlineProbe, steps: range, *, seed: int = 0) -> OnlineProbe:
    for step in steps:
        features, labels = clusters(IMAGES, seed + step)
        probe.learn(features, labels, StepContext(step))
    return probe


def test_it_goes_on_where_it_was() -> None:
    straight, first, second = run(probe_of(), range(6)), run(probe_of(), range(3)), probe_of()
    second.load_state_dict(first.state_dict())
    assert torch.equal(run(second, range(3, 6)).weight_CF, straight.weight_CF)


def test_switched_on_late_it_begins_as_at_the_start() -> None:
    late = probe_of()
    late.first_step = 100
    assert late.metrics(StepContext(100)) == {}, "it has answered nothing yet"
    run(late, range(100, 104), seed=-100)
    assert torch.equal(late.weight_CF, run(probe_of(), range(4)).weight_CF)
    again = probe_of()
    again.load_state_dict(late.state_dict())
    assert again.first_step == 100


def test_a_checkpoint_of_an_earlier_version_is_read() -> None:
    straight, first, second = run(probe_of(), range(6)), run(probe_of(), range(3)), probe_of()
    second.load_state_dict({**first.state_dict(), "_extra_state": {"steps": 3}})
    assert torch.equal(run(second, range(3, 6)).weight_CF, straight.weight_CF)
