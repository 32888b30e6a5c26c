"""From stored pixels to what an encoder takes."""

from __future__ import annotations

import torch
from torch import Tensor


def to_float(images: Tensor, *, channels_last: bool = False) -> Tensor:
    """uint8 images (N, 3, H, W) as float32 in [0, 1], SimCLR's input range, on the device they are on."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(dtype=torch.float32, memory_format=memory_format).mul_(1 / 255)


def join_views(views: Tensor) -> Tensor:
    """Views (B, V, 3, H, W) as images (V * B, 3, H, W), view after view, for one forward with joint statistics."""
    return views.transpose(0, 1).flatten(0, 1)
