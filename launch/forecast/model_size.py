"""How large a configuration's network is, from its configuration alone: what plans are made with. Torch-free."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import assert_never

from pretrain.config import EncoderConfig, PretrainConfig
from pretrain.objectives.config import BYOLConfig, ObjectiveConfig, ProjectorConfig, SimSiamConfig, SupervisedConfig

_DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# Factor by which the stem divides the side of an image: by its convolution, and by its pooling after that.
_STEMS = {"imagenet": (7, 2, 2), "strided": (3, 2, 1), "small": (3, 1, 1)}


@dataclass(frozen=True)
class Layer:
    """A convolution (or linear layer) with what follows it.

    kernel: positions that it sums over, 1 for a linear layer; side: of its output, in pixels.
    norm: a batch norm follows, which keeps its input for the backward; relu: its output is kept too.
    """

    width_in: int
    width_out: int
    kernel: int = 1
    side: int = 1
    norm: bool = True
    affine: int = 2  # parameters of the norm for each channel
    relu: bool = True

    @property
    def parameters(self) -> int:
        """Weights, and the norm's gain and bias (or the layer's own bias)."""
        return self.width_in * self.width_out * self.kernel + self.width_out * (self.affine if self.norm else 1)

    @property
    def kept_elements(self) -> int:
        """Elements of one image that the backward needs."""
        return self.width_out * self.side**2 * (int(self.norm) + int(self.relu))


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
    return _model_size(config.encoder, config.objective, config.augmentation.crop_size_px)


@functools.lru_cache(maxsize=64)
def _model_size(encoder: EncoderConfig, objective: ObjectiveConfig, size: int) -> ModelSize:
    trunk = list(encoder_layers(encoder, size))
    heads = _heads(objective, encoder.feature_width)
    trained = [*trunk, *(layer for head in heads for layer in head)]
    # BYOL's target network: encoder and projector once more, without a backward.
    target = [*trunk, *heads[0]] if isinstance(objective, BYOLConfig) else []
    norms = [layer.width_out for layer in trained if layer.norm]
    pooled = encoder.feature_width
    return ModelSize(
        parameters=sum(layer.parameters for layer in trained),
        target_parameters=sum(layer.parameters for layer in target),
        kept_elements=3 * size * size
        + _pooling_elements(encoder, size)
        + pooled
        + sum(layer.kept_elements for layer in trained),
        norm_channels=(*norms, *(layer.width_out for layer in target if layer.norm)),
        trained_norms=len(norms),
        embedding_width=heads[-1][-1].width_out if heads else pooled,
    )


def encoder_layers(config: EncoderConfig, crop_size_px: int) -> Iterator[Layer]:
    """Every convolution of the ResNet with its norm, from the image on."""
    kernel, stride, pooling = _STEMS[config.stem]
    side = _halved(crop_size_px, stride)
    width = config.stage_width(0)
    yield Layer(3, width, kernel**2, side)
    side = _halved(side, pooling)
    bottleneck = config.architecture in ("resnet50", "resnet101")
    for stage, depth in enumerate(_DEPTHS[config.architecture]):
        planes = config.stage_width(stage)
        width_out = planes * (4 if bottleneck else 1)
        for block in range(depth):
            divides = 2 if stage > 0 and block == 0 else 1
            before, side = side, _halved(side, divides)
            if bottleneck:
                yield Layer(width, planes, 1, before)
                yield Layer(planes, planes, 9, side)
                yield Layer(planes, width_out, 1, side)
            else:
                yield Layer(width, planes, 9, side)
                yield Layer(planes, width_out, 9, side)
            if block == 0 and (divides == 2 or width != width_out):
                yield Layer(width, width_out, 1, side, relu=False)
            width = width_out


def _halved(side: int, by: int) -> int:
    return -(-side // by)


def _pooling_elements(config: EncoderConfig, crop_size_px: int) -> int:
    """Of the pooled stem: its output, and a 64-bit index for each (counted as two elements)."""
    _, stride, pooling = _STEMS[config.stem]
    if pooling == 1:
        return 0
    return 3 * config.stage_width(0) * _halved(_halved(crop_size_px, stride), pooling) ** 2


def _heads(objective: ObjectiveConfig, feature_width: int) -> list[list[Layer]]:
    match objective:
        case SupervisedConfig():
            return []
        case BYOLConfig() | SimSiamConfig():
            projector = _head(objective.projector, feature_width)
            return [projector, _head(objective.predictor, objective.projector.output_width)]
        case _ if hasattr(objective, "projector"):
            return [_head(objective.projector, feature_width)]
        case _:
            assert_never(objective)  # type: ignore[arg-type]


def _head(config: ProjectorConfig, feature_width: int) -> list[Layer]:
    hidden = config.hidden_width or feature_width
    widths = [feature_width, *[hidden] * (config.layers - 1), config.output_width]
    inner = [Layer(a, b) for a, b in itertools.pairwise(widths[:-1])]
    # SimCLR's last norm has no bias.
    return [*inner, Layer(widths[-2], widths[-1], norm=config.last_batch_norm, affine=1, relu=False)]
