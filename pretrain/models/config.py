"""Settings and facts of encoders and heads: what builds them, and how large they are before they are built. Torch-free.

One's own encoder is a module ``(config) -> features``, named in a configuration as
``encoder: {architecture: "my_package.my_module:MyEncoder", ...}``, whose ``Config`` is derived from EncoderSettings:

    class MyEncoder(Encoder):                 # see pretrain.models.encoder
        class Config(EncoderSettings):
            depth: int = 4
            feature_width: int = 256
        def __init__(self, config): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from pretrain.choices import OneOf
from pretrain.configio import PositiveFloat, PositiveInt, Section, validate

DEPTHS = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}
# Side of the stem's kernel, and the factors by which its convolution and then its pooling divide the side of an image.
STEMS = {"imagenet": (7, 2, 2), "strided": (3, 2, 1), "small": (3, 1, 1)}
CONVNET_STRIDES = (2, 2, 2, 1)


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


class EncoderSettings(Section):
    """Base of the settings of every encoder; each has a ``feature_width``, a field or a property.

    implementation: dotted path of the module that they build; by default ``architecture`` is that path. What a class
    does not say of its layers counts as nothing in what plans predict.
    """

    implementation: ClassVar[str] = ""

    architecture: str

    if TYPE_CHECKING:

        @property
        def feature_width(self) -> int:
            """Number of features of an image."""

    def layers(self, crop_size_px: int) -> Iterator[Layer]:
        """Every convolution and linear layer with its norm, from the image on."""
        yield from ()

    @property
    def states_layers(self) -> bool:
        """Whether ``layers`` says anything."""
        return type(self).layers is not EncoderSettings.layers

    def elements_beside_layers(self, crop_size_px: int) -> int:
        """Elements of one image that the backward needs and no layer counts: the image itself and the features."""
        return 3 * crop_size_px**2 + self.feature_width

    def small(self) -> EncoderSettings:
        """A narrow one of the same kind for the certificate, which feeds it images of 16 pixels."""
        return self


class EncoderConfig(EncoderSettings):
    """ResNet of torchvision's blocks; ``width`` multiplies every channel count.

    stem: ``imagenet`` 7x7 stride 2 and max-pool; ``small`` 3x3 stride 1, SimCLR's for CIFAR; ``strided`` 3x3 stride 2,
    at a quarter of its cost.
    """

    implementation: ClassVar[str] = "pretrain.models.encoder:ResNet"

    architecture: Literal["resnet18", "resnet34", "resnet50", "resnet101"] = "resnet50"
    width: PositiveFloat = 1.0  # factor of every channel count
    stem: Literal["imagenet", "strided", "small"] = "imagenet"
    zero_init_last_gamma: bool = True  # each residual block starts as the identity (SimCLR)

    @property
    def feature_width(self) -> int:
        """Number of features after the global average pool."""
        return self.stage_width(3) * (4 if self.bottleneck else 1)

    def stage_width(self, stage: int) -> int:
        """Channels inside stage 0..3; 64, 128, 256, 512 at width 1, never fewer than 1."""
        return max(1, round(64 * int(2**stage) * self.width))

    @property
    def bottleneck(self) -> bool:
        """Whether blocks have three convolutions, the last of them four times as wide."""
        return self.architecture not in ("resnet18", "resnet34")

    def layers(self, crop_size_px: int) -> Iterator[Layer]:
        kernel, stride, pooling = STEMS[self.stem]
        side = _divided(crop_size_px, stride)
        width = self.stage_width(0)
        yield Layer(3, width, kernel**2, side)
        side = _divided(side, pooling)
        for stage, depth in enumerate(DEPTHS[self.architecture]):
            planes = self.stage_width(stage)
            width_out = planes * (4 if self.bottleneck else 1)
            for block in range(depth):
                divides = 2 if stage > 0 and block == 0 else 1
                before, side = side, _divided(side, divides)
                if self.bottleneck:
                    yield Layer(width, planes, 1, before)
                    yield Layer(planes, planes, 9, side)
                    yield Layer(planes, width_out, 1, side)
                else:
                    yield Layer(width, planes, 9, side)
                    yield Layer(planes, width_out, 9, side)
                if block == 0 and (divides == 2 or width != width_out):
                    yield Layer(width, width_out, 1, side, relu=False)
                width = width_out

    def elements_beside_layers(self, crop_size_px: int) -> int:
        """A pooled stem keeps its output, and a 64-bit index for each (counted as two elements)."""
        _, stride, pooling = STEMS[self.stem]
        pooled = _divided(_divided(crop_size_px, stride), pooling) ** 2 if pooling > 1 else 0
        return super().elements_beside_layers(crop_size_px) + 3 * self.stage_width(0) * pooled

    def small(self) -> EncoderSettings:
        return EncoderConfig(architecture="resnet18", width=0.0625, stem=self.stem, zero_init_last_gamma=False)


class ConvNetConfig(EncoderSettings):
    """Four 3x3 convolutions with strides 2, 2, 2 and 1, each with batch norm and ReLU: an encoder for processor cores.

    widths: channels of each; multiples of 16 fill AVX-512's vectors, of 8 AVX2's. initialisation: of the convolutions,
    ``torch`` as torch draws them, ``he`` as the ResNets' are drawn.
    """

    implementation: ClassVar[str] = "pretrain.models.encoder:ConvNet"

    architecture: Literal["convnet4"]
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=4, max_length=4, strict=False)] = (16, 32, 64, 128)
    initialisation: Literal["torch", "he"] = "torch"

    @property
    def feature_width(self) -> int:
        """Number of features after the global average pool."""
        return self.widths[-1]

    def layers(self, crop_size_px: int) -> Iterator[Layer]:
        side, width_in = crop_size_px, 3
        for width, stride in zip(self.widths, CONVNET_STRIDES, strict=True):
            side = _divided(side, stride)
            yield Layer(width_in, width, 9, side)
            width_in = width

    def small(self) -> EncoderSettings:
        return self.model_copy(update={"widths": (8, 8, 16, 16)})


class PixelsConfig(EncoderSettings):
    """No encoder: the image's pixels, averaged to ``side_px`` a side, are its features. What any encoder has to beat.

    grey: the mean of the three channels alone.
    """

    implementation: ClassVar[str] = "pretrain.models.encoder:Pixels"

    architecture: Literal["pixels"]
    side_px: PositiveInt = 28  # of the averaged image
    grey: bool = False

    @property
    def feature_width(self) -> int:
        """Number of pixel values."""
        return self.side_px**2 * (1 if self.grey else 3)


def _divided(side: int, by: int) -> int:
    return -(-side // by)


class ProjectorConfig(Section):
    """MLP between encoder and loss: Linear, batch norm and ReLU in each layer, the last without ReLU.

    ``last_batch_norm``: batch norm (without beta) after the last layer too, as SimCLR does. ``dropout``: share of the
    features dropped ahead of each layer but the first, or of the only one; another way to make two views differ.
    """

    layers: Annotated[int, Field(ge=1, le=8)] = 2  # linear layers
    hidden_width: PositiveInt | None = None  # as wide as the features
    output_width: PositiveInt = 128  # dimensions of the embedding
    last_batch_norm: bool = True
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


_ENCODER = OneOf(EncoderSettings, EncoderConfig, ConvNetConfig, PixelsConfig, key="architecture", default="resnet50")
AnyEncoderConfig = Annotated[EncoderSettings, _ENCODER]


class _Holder(Section):
    encoder: AnyEncoderConfig


def read_encoder_config(data: Mapping[str, Any], source: str) -> EncoderSettings:
    """Settings of an encoder, ours or own code's, from plain values. Raises ConfigError."""
    return validate(_Holder, {"encoder": data}, source).encoder
