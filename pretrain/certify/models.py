"""Every objective in small: seconds for all of them, and nothing in its mathematics left out."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pretrain.certify.finding import Bench
from pretrain.collectives import Group
from pretrain.config import (
    BarlowTwinsConfig,
    BYOLConfig,
    DCLConfig,
    EncoderConfig,
    ObjectiveConfig,
    ProjectorConfig,
    SimCLRConfig,
    SimSiamConfig,
    SupervisedConfig,
    VICRegConfig,
    WMSEConfig,
)
from pretrain.data.batch import Batch
from pretrain.models.batch_norm import share_batch_norm
from pretrain.models.encoder import Encoder
from pretrain.objectives.base import Objective
from pretrain.objectives.build import build_objective

IMAGE_SIDE_PX = 16
CLASSES = 4
HIDDEN_WIDTH, OUTPUT_WIDTH = 24, 6
FEWEST_IMAGES = 32


def images_of(bench: Bench) -> int:
    """A global batch that every number of ranks can share, and that is small."""
    per_rank = max(2, -(-FEWEST_IMAGES // bench.world.size))
    return 2 * -(-per_rank // 2) * bench.world.size


def every_objective(images: int) -> list[ObjectiveConfig]:
    """All objectives, with the variants that change what ranks must tell one another."""
    return [
        SimCLRConfig(),
        SimCLRConfig(negatives=images // 2),
        DCLConfig(),
        BarlowTwinsConfig(),
        VICRegConfig(),
        WMSEConfig(),
        WMSEConfig(sub_batch_size=images // 2, iterations=2),
        BYOLConfig(),
        SimSiamConfig(),
        SupervisedConfig(),
    ]


def title(objective: ObjectiveConfig) -> str:
    """Name of the objective with what sets its variant apart."""
    names = ("temperature", "negatives", "sub_batch_size")
    set_apart = [f"{name} {getattr(objective, name):g}" for name in names if getattr(objective, name, None)]
    return ", ".join([objective.name, *set_apart])


def small_objective(config: ObjectiveConfig, encoder: EncoderConfig, *, images: int, seed: int) -> Objective:
    """The objective with its own constants, a narrow ResNet and narrow heads; no weight is where symmetry puts it."""
    encoder = EncoderConfig(architecture="resnet18", width=0.0625, stem=encoder.stem, zero_init_last_gamma=False)
    objective = build_objective(_narrow(config, images), encoder, classes=CLASSES, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for module in objective.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
    return objective


def _narrow(config: ObjectiveConfig, images: int) -> ObjectiveConfig:
    changed: dict[str, object] = {}
    for name in ("projector", "predictor"):
        head: ProjectorConfig | None = getattr(config, name, None)
        if head is not None:
            changed[name] = head.model_copy(update={"hidden_width": HIDDEN_WIDTH, "output_width": OUTPUT_WIDTH})
    for name in ("negatives", "sub_batch_size"):
        if getattr(config, name, None) is not None:
            changed[name] = images // 2
    return config.model_copy(update=changed)


def in_float64(objective: Objective) -> Objective:
    """The objective in float64, its images too."""
    for module in objective.modules():
        if isinstance(module, Encoder):
            module.register_forward_pre_hook(lambda module, arguments: (arguments[0].double(),))
    return objective.double()


def on_all_ranks(bench: Bench, objective: Objective) -> Objective:
    """A copy as training has it: batch norm shared as the configuration says, the loss over all ranks."""
    shared = copy.deepcopy(objective)
    library = bench.config.batch_norm_library
    share_batch_norm(shared, library=library, group=bench.norm_group, device=bench.world.device)
    return shared.to(bench.world.device).train()


def on_one_rank(bench: Bench, objective: Objective, group: Group) -> Objective:
    """A copy that takes the whole global batch, and tells nobody."""
    alone = copy.deepcopy(objective)
    share_batch_norm(alone, library="bigbatch", group=group, device=bench.world.device)
    alone.group = group
    return alone.to(bench.world.device).train()


def global_batch(images: int, seed: int) -> Batch:
    """Noise of a different brightness in each image: (G, 2, 3, S, S) uint8, with labels. The same on every rank."""
    generator = torch.Generator().manual_seed(seed)
    shape = (images, 2, 3, IMAGE_SIDE_PX, IMAGE_SIDE_PX)
    noise = torch.rand(shape, generator=generator) * torch.rand(images, 1, 1, 1, 1, generator=generator)
    return Batch((255 * noise).to(torch.uint8), torch.arange(images) % CLASSES, torch.arange(images))


def own_part(bench: Bench, batch: Batch) -> Batch:
    """This rank's part of a global batch."""
    return Batch(*(bench.own(tensor) for tensor in batch))


def whole(bench: Bench, batch: Batch) -> Batch:
    """The global batch on this rank's device."""
    return Batch(*(bench.on_device(tensor) for tensor in batch))


def flat(tensors: list[Tensor]) -> Tensor:
    """All numbers in one vector, float64."""
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors])
