"""How large a network is, what a step of it sends, and how long that takes by the alpha-beta model (latency + bytes).

W ranks on nodes of R. Collectives are hierarchical, as NCCL's are: trees of log2(R) hops over NVLink and log2(W / R)
over the network, at the bandwidth of the slower link (per GPU) that the ranks cross. Torch-free.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from launch.plan.targets import Hardware
from pretrain.config import PretrainConfig
from pretrain.models.config import Layer
from pretrain.objectives.settings import FLOAT_BYTES, Message, ProjectorConfig
from pretrain.plan import loss_batch


@dataclass(frozen=True)
class ModelSize:
    """Of everything that is trained. Elements are those of one view of one image.

    target_parameters: of a copy that follows by moving average. norm_channels: of each batch norm, in the forward;
    trained_norms: how many of them, from the first, have a backward.
    """

    parameters: int
    target_parameters: int
    kept_elements: int
    norm_channels: tuple[int, ...]
    trained_norms: int
    embedding_width: int


def model_size(config: PretrainConfig) -> ModelSize:
    """Size of the encoder and the heads of ``config``; a classifier on labels counts as nothing."""
    encoder, objective, size = config.encoder, config.objective, config.augmentation.crop_size_px
    trunk = list(encoder.layers(size))
    heads = []
    width = encoder.feature_width
    for head in objective.heads:
        heads.append(_layers(head, width))
        width = head.output_width
    trained = [*trunk, *itertools.chain(*heads)]
    # A target network: encoder and projector once more, without a backward.
    target = [*trunk, *heads[0]] if objective.has_target else []
    norms = [layer.width_out for layer in trained if layer.norm]
    return ModelSize(
        parameters=sum(layer.parameters for layer in trained),
        target_parameters=sum(layer.parameters for layer in target),
        kept_elements=encoder.elements_beside_layers(size) + sum(layer.kept_elements for layer in trained),
        norm_channels=(*norms, *(layer.width_out for layer in target if layer.norm)),
        trained_norms=len(norms),
        embedding_width=width,
    )


def _layers(config: ProjectorConfig, feature_width: int) -> list[Layer]:
    hidden = config.hidden_width or feature_width
    widths = [feature_width, *[hidden] * (config.layers - 1), config.output_width]
    inner = [Layer(a, b) for a, b in itertools.pairwise(widths[:-1])]
    # SimCLR's last norm has no bias.
    return [*inner, Layer(widths[-2], widths[-1], norm=config.last_batch_norm, affine=1, relu=False)]


@dataclass(frozen=True)
class StepTimes:
    """Seconds of communication in one step. gradients overlap with the backward; the rest waits."""

    gathers: float  # of the loss, as its sums are
    sums: float
    batch_norm: float
    gradients: float

    @property
    def waiting(self) -> float:
        """Seconds in which nothing else can be done."""
        return self.gathers + self.sums + self.batch_norm


@dataclass(frozen=True)
class Links:
    """The links that ``ranks`` ranks on nodes of ``ranks_per_node`` use."""

    hardware: Hardware
    ranks: int
    ranks_per_node: int

    def all_gather(self, bytes_of_all: float, times: int = 1) -> float:
        """Seconds until every rank has the ``bytes_of_all`` ranks together, sent in so many gathers."""
        return times * self._hops() + self._share() * bytes_of_all / self._bandwidth()

    def all_reduce(self, size: float) -> float:
        """Seconds for a sum of ``size`` bytes that every rank gets: twice a gather's way."""
        return 2 * (self._hops() + self._share() * size / self._bandwidth())

    def _share(self) -> float:
        return (self.ranks - 1) / self.ranks

    def _hops(self) -> float:
        inside = math.ceil(math.log2(min(self.ranks, self.ranks_per_node)))
        between = math.ceil(math.log2(max(1.0, self.ranks / self.ranks_per_node)))
        return 1e-6 * (inside * self.hardware.nvlink_latency_us + between * self.hardware.network_latency_us)

    def _bandwidth(self) -> float:
        slowest = self.hardware.nvlink_gb_per_s
        if self.ranks > self.ranks_per_node:
            slowest = min(slowest, self.hardware.network_gb_per_s)
        return 1e9 * slowest


def communication(
    config: PretrainConfig, size: ModelSize, links: Links, *, global_batch_size: int, micro_batches: int
) -> StepTimes:
    """Seconds that a step of ``global_batch_size`` images communicates on ``links``."""
    if links.ranks == 1:
        return StepTimes(0.0, 0.0, 0.0, 0.0)
    messages = config.objective.messages(loss_batch(config, links.ranks, global_batch_size))
    return StepTimes(
        gathers=_seconds(links, messages, "all_gather"),
        sums=_seconds(links, messages, "all_reduce"),
        batch_norm=_norm_time(config, size, links) * micro_batches,
        gradients=links.all_reduce(FLOAT_BYTES * size.parameters),
    )


def _seconds(links: Links, messages: tuple[Message, ...], kind: str) -> float:
    call = links.all_gather if kind == "all_gather" else links.all_reduce
    return sum(call(FLOAT_BYTES * message.numbers) for message in messages if message.kind == kind)


def _norm_time(config: PretrainConfig, size: ModelSize, links: Links) -> float:
    """Gathers of (2 C + 1) numbers of each rank in the forward of each norm, of 2 C in its backward.

    Gradient caching embeds everything twice; micro-batches are the caller's to count.
    """
    sharing = _norm_ranks(config, links)
    if sharing == 1:
        return 0.0
    among = Links(links.hardware, sharing, links.ranks_per_node)
    forwards = 2 if config.batch.micro_batch_size else 1
    norms, trained = size.norm_channels, size.norm_channels[: size.trained_norms]
    forward = among.all_gather(FLOAT_BYTES * (2 * sum(norms) + len(norms)) * sharing, len(norms))
    backward = among.all_gather(FLOAT_BYTES * 2 * sum(trained) * sharing, len(trained))
    return forwards * forward + backward


def _norm_ranks(config: PretrainConfig, links: Links) -> int:
    match config.sync_batch_norm:
        case "global":
            return links.ranks
        case "node":
            return min(links.ranks, links.ranks_per_node)
        case "off":
            return 1
        case _:
            return min(int(config.sync_batch_norm), links.ranks)
