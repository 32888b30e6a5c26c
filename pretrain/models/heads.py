"""Heads between the encoder and a loss."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from pretrain.batch import StepContext
from pretrain.models.config import ProjectorConfig
from pretrain.randomness import mix32

_BITS = 24  # a float32 holds them exactly


class PositionalDropout(nn.Module):
    """Dropout (Srivastava et al. 2014), scaled by 1 / (1 - p) while training.

    What it drops is a function of the seed, the step, the row's position in the global batch and the feature, while
    torch's draws from a generator of its rank. Its key comes from torch's default generator when it is made.
    N rows of this rank, F features.
    """

    key: Tensor

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability
        self.register_buffer("key", torch.randint(2**32, ()))

    def forward(self, x_NF: Tensor, context: StepContext | None = None) -> Tensor:
        """Without a context, or where it does not say where the rows are, only evaluation is possible."""
        if not self.training:
            return x_NF
        assert context is not None, "the step tells which draw this is"
        assert context.rows_N is not None, "rows_N tells where each row belongs"
        row_key_N1 = mix32(context.rows_N ^ mix32(self.key ^ context.step))[:, None]
        bits_NF = mix32(row_key_N1 ^ mix32(torch.arange(x_NF.shape[1], device=x_NF.device))) >> (32 - _BITS)
        kept_NF = bits_NF >= round(self.probability * 2**_BITS)
        scale_NF = kept_NF.to(x_NF.dtype) / (1 - self.probability)
        return x_NF.mul(scale_NF)


class Head(nn.Sequential):
    """Layers one after the other, of which a dropout is told about the step."""

    def forward(self, input: Tensor, context: StepContext | None = None) -> Tensor:
        """(N, width_in) -> (N, width_out)"""
        for layer in self:
            input = layer(input, context) if isinstance(layer, PositionalDropout) else layer(input)
        return input


def build_projector(config: ProjectorConfig, *, feature_width: int) -> Head:
    """MLP head: features (N, feature_width) -> projections (N, output_width).

    With a last batch norm it is SimCLR's (google-research/simclr): linear layers without bias drawn from N(0, 0.01^2),
    batch norm after every layer, the last without beta. Without one the last layer is plain, as Barlow Twins' is.
    """
    hidden = config.hidden_width or feature_width
    widths = [feature_width, *[hidden] * (config.layers - 1), config.output_width]
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        last = index == config.layers - 1
        if config.dropout and (index or config.layers == 1):
            layers.append(PositionalDropout(config.dropout))
        linear = nn.Linear(width_in, width_out, bias=last and not config.last_batch_norm)
        layers.append(linear)
        if config.last_batch_norm:
            nn.init.normal_(linear.weight, std=0.01)
        if not last:
            layers += [nn.BatchNorm1d(width_out), nn.ReLU(inplace=True)]
        elif config.last_batch_norm:
            norm = nn.BatchNorm1d(width_out)
            norm.register_parameter("bias", None)
            layers.append(norm)
    return Head(*layers)
