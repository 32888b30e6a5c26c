"""What `precision` sets, and what stays in full float32 whatever it says."""

from collections.abc import Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pretrain.batch import Batch, StepContext
from pretrain.config import EncoderConfig, PrecisionConfig
from pretrain.forward_backward import forward_backward
from pretrain.gradients import GradientAverager
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.numerics import full_float32, set_network_numerics, set_numerics
from pretrain.objectives.base import Embedded, Objective, ObjectiveOutput, build_objective
from pretrain.objectives.config import ProjectorConfig, SimCLRConfig
from tests.ranks import Ranks

ENCODER = EncoderConfig(architecture="resnet18", width=0.0625, stem="strided")
IMAGES = 8


def flags() -> tuple[bool, bool, bool, bool]:
    cuda, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    return cuda.allow_tf32, cudnn.allow_tf32, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    yield
    set_numerics(PrecisionConfig())


def test_float32_and_determinism_are_said_in_full() -> None:
    set_numerics(PrecisionConfig(float32="tf32", deterministic=True))
    assert flags() == (True, True, True, True)
    with full_float32():
        assert flags() == (False, True, True, True)
    assert flags() == (True, True, True, True)
    set_numerics(PrecisionConfig())
    assert flags() == (False, False, False, False)


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    views = torch.randint(0, 256, (IMAGES, 2, 3, 16, 16), dtype=torch.uint8, generator=generator)
    return Batch(views, torch.arange(IMAGES), torch.arange(IMAGES))


class Watched(Objective):
    """Remembers which arithmetic each part of a step is done in."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.seen = nn.Linear(3, 2), dict[str, bool]()

    def see(self, name: str) -> Any:
        def note(*arguments: Any) -> None:
            self.seen[name] = torch.backends.cuda.matmul.allow_tf32

        return note

    def embed(self, images: Tensor, context: StepContext) -> Embedded:
        self.see("network")()
        rows = self.layer(images.mean((2, 3)))
        if rows.requires_grad:
            rows.register_hook(self.see("network's gradient"))
        return Embedded(rows, rows)

    def loss(self, embeddings: Tensor, labels: Tensor, context: StepContext) -> ObjectiveOutput:
        self.see("loss")()
        embeddings.register_hook(self.see("loss's gradient"))
        return ObjectiveOutput(embeddings.square().mean(), {})


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_the_loss_and_its_gradient_are_full_float32(micro_batches: int) -> None:
    set_numerics(PrecisionConfig(float32="tf32"))
    objective = Watched()
    forward_backward(objective, GradientAverager([]), batch(), StepContext(), micro_batches=micro_batches)
    expected = {"network": True, "loss": False, "loss's gradient": False, "network's gradient": True}
    assert objective.seen == expected
    assert objective.layer.weight.grad is not None


def gradients(group: dist.ProcessGroup, precision: PrecisionConfig) -> dict[str, Tensor]:
    """Of one step; compiled without making kernels, which takes minutes."""
    compiled = nn.Module.compile
    with mock.patch.object(nn.Module, "compile", lambda network: compiled(network, backend="eager")):
        head = ProjectorConfig(hidden_width=8, output_width=4, dropout=0.2)
        objective = build_objective(SimCLRConfig(projector=head), ENCODER, classes=4, seed=0)
        names = list(objective.state_dict())
        set_network_numerics(convert_sync_batch_norm(objective, group), precision)  # type: ignore[arg-type]
        objective.group = group
    own = Batch(*(tensor.chunk(dist.get_world_size(group))[dist.get_rank(group)] for tensor in batch()))
    averager = GradientAverager(list(objective.parameters()), group)
    for step in range(2):
        objective.zero_grad()
        forward_backward(objective.train(), averager, own, StepContext(step))
    assert list(objective.state_dict()) == names
    return {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}


def compiled_and_not(group: dist.ProcessGroup) -> float:
    expected = gradients(group, PrecisionConfig())
    found = gradients(group, PrecisionConfig(compile=True))
    assert found.keys() == expected.keys()
    return max(float((found[name] - value).norm() / value.norm()) for name, value in expected.items())


def test_a_compiled_network_computes_the_same(ranks: Ranks) -> None:
    for error in ranks(2).run(compiled_and_not):
        assert error < 1e-5


def test_memory_format_and_autocast_are_the_objectives() -> None:
    objective = build_objective(SimCLRConfig(), ENCODER, classes=4, seed=0)
    set_network_numerics(objective, PrecisionConfig(autocast="bf16"))
    assert objective.encoder.layer1[0].conv1.weight.is_contiguous(memory_format=torch.channels_last)
    seen: list[torch.dtype] = []
    objective.encoder.layer1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    output = forward_backward(objective.train(), GradientAverager([]), batch(), StepContext())
    assert (seen, output.loss.dtype) == ([torch.bfloat16], torch.float32)
