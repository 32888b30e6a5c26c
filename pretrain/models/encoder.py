"""The encoder: a ResNet (He et al. 2015, arXiv:1512.03385) with a width factor and SimCLR's small-image stem.

At width 1 the state dict is torchvision's without ``fc.*``, and so is the output. The blocks are written out here
because importing torchvision's models takes longer than importing torch.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from pretrain.choices import load_object
from pretrain.models.config import EncoderConfig, EncoderSettings


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    expansion = 1

    def __init__(self, width_in: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(out)
        return y


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the 3x3 has the stride, as in torchvision ("ResNet v1.5")."""

    expansion = 4

    def __init__(self, width_in: int, planes: int, stride: int = 1, downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        out += x if self.downsample is None else self.downsample(x)
        y: Tensor = self.relu(out)
        return y


BLOCKS: dict[str, tuple[type[BasicBlock | Bottleneck], tuple[int, int, int, int]]] = {
    "resnet18": (BasicBlock, (2, 2, 2, 2)),
    "resnet34": (BasicBlock, (3, 4, 6, 3)),
    "resnet50": (Bottleneck, (3, 4, 6, 3)),
    "resnet101": (Bottleneck, (3, 4, 23, 3)),
}


class Encoder(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> features (N, feature_width). Base of one's own (see pretrain.models.config)."""

    feature_width: int


class ResNet(Encoder):
    """Features after the global average pool."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        block, depths = BLOCKS[config.architecture]
        width = config.stage_width(0)
        self.conv1, self.maxpool = _stem(config.stem, width)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.layer1, width = _stage(block, depths[0], width, config.stage_width(0), stride=1)
        self.layer2, width = _stage(block, depths[1], width, config.stage_width(1), stride=2)
        self.layer3, width = _stage(block, depths[2], width, config.stage_width(2), stride=2)
        self.layer4, width = _stage(block, depths[3], width, config.stage_width(3), stride=2)
        self.feature_width = width
        _initialise(self, zero_init_last_gamma=config.zero_init_last_gamma)

    def forward(self, images: Tensor) -> Tensor:
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return torch.flatten(nn.functional.adaptive_avg_pool2d(x, 1), 1)


def build_encoder(config: EncoderSettings) -> Encoder:
    """Encoder with random weights from torch's default generator (He initialisation, fan out, as in torchvision)."""
    encoder: Encoder = load_object(config.implementation or config.architecture)(config)
    return encoder


def _stem(stem: Literal["imagenet", "strided", "small"], width: int) -> tuple[nn.Conv2d, nn.Module]:
    """(first convolution, what follows its norm): the resolution is divided by 4, 2 or 1."""
    match stem:
        case "imagenet":
            return nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False), nn.MaxPool2d(3, stride=2, padding=1)
        case "strided":
            return nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False), nn.Identity()
        case "small":
            return nn.Conv2d(3, width, 3, stride=1, padding=1, bias=False), nn.Identity()


def _stage(
    block: type[BasicBlock | Bottleneck], depth: int, width_in: int, planes: int, *, stride: int
) -> tuple[nn.Sequential, int]:
    """(residual blocks of one stage, its number of output channels)."""
    width_out = planes * block.expansion
    shortcut = None
    if stride != 1 or width_in != width_out:
        shortcut = nn.Sequential(
            _Shortcut(width_in, width_out, 1, stride=stride, bias=False), nn.BatchNorm2d(width_out)
        )
    blocks = [block(width_in, planes, stride, shortcut)]
    blocks += [block(width_out, planes) for _ in range(depth - 1)]
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
        elif zero_init_last_gamma and isinstance(module, BasicBlock):
            nn.init.zeros_(module.bn2.weight)
        elif zero_init_last_gamma and isinstance(module, Bottleneck):
            nn.init.zeros_(module.bn3.weight)


def to_float(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 images (N, 3, H, W) as float32 in [0, 1], SimCLR's input range, on the device they are on."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype=torch.float32, memory_format=memory_format).mul_(1 / 255)


def join_views(views: Tensor) -> Tensor:
    """Views (B, V, 3, H, W) as images (V * B, 3, H, W), view after view, for one forward with joint statistics."""
    return views.transpose(0, 1).flatten(0, 1)
