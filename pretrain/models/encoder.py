"""Encoders: a ResNet (He et al. 2015, arXiv:1512.03385) with a width factor and SimCLR's small-image stem, and ConvNet.

At width 1 a ResNet's state dict is torchvision's without ``fc.*``, and so is the output. The blocks are written out:
importing torchvision's models takes longer than importing torch.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pretrain.choices import load_object
from pretrain.models.config import (
    CONVNET_STRIDES,
    DEPTHS,
    STEMS,
    ConvNetConfig,
    EncoderConfig,
    EncoderSettings,
    PixelsConfig,
)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a bottleneck has 1x1, 3x3 and 1x1.

    The first 3x3 has the stride, as in torchvision ("ResNet v1.5").
    """

    def __init__(
        self, width_in: int, planes: int, *, bottleneck: bool, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        shapes = [(planes, 1), (planes, 3), (4 * planes, 1)] if bottleneck else [(planes, 3), (planes, 3)]
        self.depth = len(shapes)
        for number, (width, kernel) in enumerate(shapes, start=1):
            step = stride if number == self.depth - 1 else 1
            convolution = nn.Conv2d(width_in, width, kernel, stride=step, padding=kernel // 2, bias=False)
            self.add_module(f"conv{number}", convolution)
            self.add_module(f"bn{number}", nn.BatchNorm2d(width))
            width_in = width
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    @property
    def last_norm(self) -> nn.BatchNorm2d:
        norm: nn.BatchNorm2d = self.get_submodule(f"bn{self.depth}")  # type: ignore[assignment]
        return norm

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.depth + 1):
            out = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(out))
            if number < self.depth:
                out = self.relu(out)
        out += x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(out)
        return y


class Encoder(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> features (N, feature_width). Base of one's own (see pretrain.models.config)."""

    feature_width: int


class ResNet(Encoder):
    """Features after the global average pool."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.stage_width(0)
        kernel, stride, pooling = STEMS[config.stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1) if pooling > 1 else nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        for stage, depth in enumerate(DEPTHS[config.architecture]):
            planes = config.stage_width(stage)
            layer, width = _stage(depth, width, planes, bottleneck=config.bottleneck, stride=1 if stage == 0 else 2)
            self.add_module(f"layer{stage + 1}", layer)
        self.feature_width = width
        _initialise(self, zero_init_last_gamma=config.zero_init_last_gamma)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)


class ConvNet(Encoder):
    """Four convolutions, for processor cores: a ResNet's many narrow layers leave vector units idle.

    Features after the global average pool.
    """

    def __init__(self, config: ConvNetConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for (width_in, width), stride in zip(itertools.pairwise((3, *config.widths)), CONVNET_STRIDES, strict=True):
            convolution = nn.Conv2d(width_in, width, 3, stride=stride, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
        self.body = nn.Sequential(*layers)
        self.feature_width = config.feature_width
        if config.initialisation == "he":
            _initialise(self, zero_init_last_gamma=False)

    def forward(self, images: Tensor) -> Tensor:
        return torch.flatten(nn.functional.adaptive_avg_pool2d(self.body(images), 1), 1)


class Pixels(Encoder):
    """The images themselves, without a weight."""

    def __init__(self, config: PixelsConfig) -> None:
        super().__init__()
        self.side, self.grey, self.feature_width = config.side_px, config.grey, config.feature_width

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.mean(1, keepdim=True) if self.grey else images
        return torch.flatten(nn.functional.adaptive_avg_pool2d(pixels, self.side), 1)


def build_encoder(config: EncoderSettings) -> Encoder:
    """Encoder with random weights from torch's default generator; a ResNet's are drawn as torchvision draws them."""
    encoder: Encoder = load_object(config.implementation or config.architecture)(config)
    return encoder


def _stage(depth: int, width_in: int, planes: int, *, bottleneck: bool, stride: int) -> tuple[nn.Sequential, int]:
    """(residual blocks of one stage, its number of output channels)."""
    width_out = planes * (4 if bottleneck else 1)
    shortcut = None
    if stride != 1 or width_in != width_out:
        shortcut = nn.Sequential(
            _Shortcut(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm2d(width_out)
        )
    blocks = [ResidualBlock(width_in, planes, bottleneck=bottleneck, stride=stride, downsample=shortcut)]
    blocks += [ResidualBlock(width_out, planes, bottleneck=bottleneck) for _ in range(depth - 1)]
    return nn.Sequential(*blocks), width_out


class _Shortcut(nn.Conv2d):
    """A 1x1 convolution that leaves out what its stride steps over before it convolves, where it must.

    oneDNN (torch 2.11 to 2.15, CPU) writes outside its memory in the backward of a strided 1x1 convolution of fewer
    than 8 channels in channels_last. The result is the same.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.in_channels >= 8:
            return super().forward(input)
        rows, columns = self.stride
        return nn.functional.conv2d(input[:, :, ::rows, ::columns], self.weight)


def _initialise(encoder: nn.Module, *, zero_init_last_gamma: bool) -> None:
    for module in encoder.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif zero_init_last_gamma and isinstance(module, ResidualBlock):
            nn.init.zeros_(module.last_norm.weight)


def to_float(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 images (N, 3, H, W) as float32 in [0, 1], SimCLR's input range, on the device they are on."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype=torch.float32, memory_format=memory_format).mul_(1 / 255)


def join_views(views: Tensor) -> Tensor:
    """Views (B, V, 3, H, W) as images (V * B, 3, H, W), view after view, for one forward with joint statistics."""
    return views.transpose(0, 1).flatten(0, 1)
