"""The online probe: learns, teaches nothing, and is the same on any number of ranks."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.config import EncoderConfig
from pretrain.data.batch import Batch
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.objectives.build import build_objective
from pretrain.objectives.config import ProjectorConfig, SimCLRConfig
from pretrain.online_probe import OnlineProbe
from tests.ranks import Ranks

CLASSES, WIDTH, IMAGES = 4, 8, 24


class Features(nn.Module):
    """An encoder whose images are their features."""

    feature_width = WIDTH

    def forward(self, images: Tensor) -> Tensor:
        return images


def probe_of(encoder: Any, **options: Any) -> OnlineProbe:
    return OnlineProbe(encoder, classes=CLASSES, **options)


def clusters(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features with one direction for each class, far from 0 and of very different scales; labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (images,), generator=generator)
    noise = 0.25 * torch.randn(images, WIDTH, generator=generator)
    return (torch.eye(WIDTH)[labels] + noise + 5) * torch.logspace(-2, 2, WIDTH), labels


def learned(group: Any, rank: int, ranks: int) -> dict[str, Tensor]:
    encoder = Features()
    probe = probe_of(encoder, group=group)
    for step in range(30):
        features, labels = clusters(IMAGES, step)
        encoder(features.chunk(ranks)[rank])
        probe.learn(labels.chunk(ranks)[rank], views=1)
    return {**probe.state_dict(), **probe.metrics()}


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
    probe = OnlineProbe(objective.encoder, classes=classes)
    optimizer, gradients = torch.optim.SGD(objective.parameters(), 0.1), GradientAverager([])
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        views = torch.randint(0, 256, (IMAGES, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
        labels = torch.arange(IMAGES) % CLASSES
        batch = Batch(views, labels, labels)
        forward_backward(objective, gradients, batch, micro_batches=micro_batches, measure=False)
        probe.learn(labels, views=2, micro_batches=micro_batches)
        optimizer.step()
        optimizer.zero_grad()
    return objective.state_dict(), probe


def test_training_is_the_same_with_and_without_it() -> None:
    for micro_batches in (1, 3):
        without, silent = trained(0, micro_batches)
        beside, probe = trained(CLASSES, micro_batches)
        assert all(torch.equal(without[key], beside[key]) for key in without)
        assert silent.metrics() == {}
        assert 0 <= float(probe.metrics()["online_probe_top1"]) <= 1
        assert bool(probe.weight_CF.any())


class Recorder(OnlineProbe):
    """Keeps what the probe is shown."""

    def learn(self, labels: Tensor, **options: Any) -> None:
        assert self._features is not None
        self.seen = self._features
        super().learn(labels, **options)


def test_of_several_micro_batches_it_sees_the_first_with_its_labels() -> None:
    features, labels = clusters(IMAGES, 0)
    parts = []
    for encoder, n in ((Features(), 1), (Features(), 3)):
        probe = Recorder(encoder, classes=CLASSES)
        with torch.no_grad():
            encoder(torch.full_like(features, torch.nan))  # the pass without a graph is not its
        for first in range(n):
            encoder(features[first::n] if n > 1 else features[::3])
        probe.learn(labels if n > 1 else labels[::3], views=1, micro_batches=n)
        parts.append(probe)
    assert torch.equal(parts[0].seen, parts[1].seen)
    assert torch.equal(parts[0].mean_F, parts[1].mean_F)
    assert parts[0].seen.isfinite().all()


def test_images_without_a_label_teach_nothing() -> None:
    encoder = Features()
    probe = probe_of(encoder)
    for step in range(3):
        features, labels = clusters(IMAGES, step)
        encoder(features)
        probe.learn(torch.full_like(labels, -1), views=1)
    assert not probe.weight_CF.any()
    assert float(probe.metrics()["online_probe_top1"]) == 0


def test_it_goes_on_where_it_was() -> None:
    def run(probe: OnlineProbe, encoder: nn.Module, steps: range) -> None:
        for step in steps:
            features, labels = clusters(IMAGES, step)
            encoder(features)
            probe.learn(labels, views=1)

    straight_encoder, first_encoder, second_encoder = Features(), Features(), Features()
    straight, first, second = (probe_of(e) for e in (straight_encoder, first_encoder, second_encoder))
    run(straight, straight_encoder, range(6))
    run(first, first_encoder, range(3))
    second.load_state_dict(first.state_dict())
    run(second, second_encoder, range(3, 6))
    assert torch.equal(second.weight_CF, straight.weight_CF)
