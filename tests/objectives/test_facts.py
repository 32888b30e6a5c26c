"""What objectives say of their losses, memory and messages, against what their losses do."""

import functools
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
import torch.distributed as dist

from pretrain.batch import StepContext
from pretrain.config import PretrainConfig
from pretrain.configio import validate
from pretrain.kernels import backend, contrastive_products, contrastive_work
from pretrain.measure import peak_growth_bytes
from pretrain.models.config import EncoderConfig
from pretrain.objectives.base import build_objective
from pretrain.objectives.config import OBJECTIVES
from pretrain.objectives.settings import LossBatch, ObjectiveSettings
from tests.objectives.live_memory import LiveMemory
from tests.ranks import Ranks

ROOT = Path(__file__).resolve().parents[2]
ENCODER = EncoderConfig(architecture="resnet18", width=0.0625)
TOLERANCE = 0.15
TILE_ROWS = 128


def settings_of(name: str, width: int, **changes: Any) -> ObjectiveSettings:
    head = {"layers": 1, "hidden_width": 8, "output_width": width, "last_batch_norm": False}
    heads = {"projector": head} if name != "supervised" else {}
    heads |= {"predictor": head} if name in ("byol", "simsiam") else {}
    return validate(PretrainConfig, {"objective": {"name": name, **heads, **changes}}, name).objective


def loss_of(settings: ObjectiveSettings, batch: LossBatch, group: Any = None) -> Callable[[], None]:
    """A function that takes loss and gradient of this rank's embeddings."""
    objective = build_objective(settings, ENCODER, classes=4, seed=0)
    objective.group = group
    width = settings.embedding_width(ENCODER.feature_width)
    # BYOL and SimSiam embed an image as what predicts and what is predicted.
    width *= 2 if len(settings.heads) == 2 else 1
    generator = torch.Generator().manual_seed(dist.get_rank() if group is not None else 0)
    embeddings = torch.randn(batch.own_rows, width, generator=generator).requires_grad_()
    labels = torch.zeros(batch.own_rows // 2, dtype=torch.int64)

    def once() -> None:
        embeddings.grad = None
        torch.autograd.backward(objective.loss(embeddings, labels, StepContext()).loss)

    return once


def counted(group: Any, settings: ObjectiveSettings, batch: LossBatch) -> tuple[int, list[tuple[str, int]]]:
    """(bytes at the worst moment, kind and float32 numbers of each message)."""
    once = loss_of(settings, batch, group)
    messages: list[tuple[str, int]] = []

    def noted(name: str) -> Any:
        original = getattr(dist, name)

        def call(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            messages.append((name.removesuffix("_into_tensor"), tensor.numel()))
            return original(tensor, *args, **kwargs)

        return mock.patch.object(dist, name, call)

    products: Any = contrastive_products.Products  # what an accelerator computes with
    if batch.device == "cpu":  # and a CPU with AVX-512
        linear = contrastive_products.onednn_linear()
        assert linear is not None, "this torch has lost the operation: drop the class that uses it"
        products = functools.partial(contrastive_products.OneDnnProducts, linear=linear)
    peaks = []
    tiles = mock.patch.object(contrastive_work, "TILE_ROWS_CPU", TILE_ROWS)
    with tiles, mock.patch.object(backend, "products_of", products), ExitStack() as stack:
        for name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "all_gather", "broadcast"):
            stack.enter_context(noted(name))
        for _ in range(3):
            messages.clear()
            with LiveMemory() as memory:
                once()
            peaks.append(memory.peak)
    # gloo's thread may hold what it has sent for a moment longer.
    return min(peaks), messages


CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    # name, images on a rank, width of the embeddings, settings
    ("simclr", 512, 64, {}),
    ("simclr", 64, 64, {}),
    ("simclr", 256, 64, {"negatives": 16}),
    ("simclr", 256, 64, {"negatives": 128, "temperature": 0.01}),
    ("dcl", 256, 128, {}),
    ("barlow_twins", 32, 256, {}),
    ("barlow_twins", 512, 128, {}),
    ("vicreg", 32, 256, {}),
    ("vicreg", 512, 128, {}),
    ("vicreg", 512, 32, {}),
    ("wmse", 256, 64, {}),
    ("wmse", 256, 32, {"sub_batch_size": 128}),
    ("wmse", 256, 64, {"sub_batch_size": 128, "iterations": 3}),
    ("byol", 256, 64, {}),
    ("simsiam", 256, 64, {}),
]


# Only contrastive losses have tiles, which depend on the device.
ON_DEVICES = [(case, "cpu") for case in CASES] + [(case, "cuda") for case in CASES if case[0] in ("simclr", "dcl")]


def named(value: Any) -> str:
    return str(value).replace(" ", "")


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize(("case", "device"), ON_DEVICES, ids=named)
def test_memory_and_messages_are_those_of_the_loss(ranks: Ranks, case: Any, size: int, device: str) -> None:
    name, images, width, changes = case
    settings = settings_of(name, width, **changes)
    batch = LossBatch(size * images, size, ENCODER.feature_width, device)
    with mock.patch.multiple(contrastive_work, TILE_ROWS_CPU=TILE_ROWS, TILE_ROWS_ACCELERATOR=TILE_ROWS):
        forecast = settings.loss_bytes(batch)
    for found, messages in ranks(size).run(counted, settings, batch):
        assert forecast == pytest.approx(found, rel=TOLERANCE)
        expected = [(message.kind, message.numbers) for message in settings.messages(batch)] if size > 1 else []
        assert messages == expected


def resident() -> tuple[int, int]:
    """(what is said, what the kernel sees) of Barlow Twins' matrices, in a process that has freed nothing before."""
    settings = settings_of("barlow_twins", 3000)  # matrices too large for the heap, which would leave gaps
    batch = LossBatch(32, 1, ENCODER.feature_width)
    once = loss_of(settings, batch)
    once()
    return settings.loss_bytes(batch), peak_growth_bytes(once)


def test_counted_memory_is_resident_memory() -> None:
    """In a process of its own: what other tests have freed would lie ready here, and the growth be too small."""
    code = "from tests.objectives.test_facts import resident; print(*resident())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    said, seen = map(int, done.stdout.split())
    assert said == pytest.approx(seen, rel=TOLERANCE)


def test_every_objective_is_held_to_what_it_says() -> None:
    names = {settings.model_fields["name"].default for settings in OBJECTIVES}
    assert names - {case[0] for case in CASES} == {"supervised"}, "whose logits count as nothing"
    supervised = settings_of("supervised", 0)
    batch = LossBatch(64, 2, 512)
    assert supervised.loss_bytes(batch) == 0
    assert supervised.messages(batch) == ()
