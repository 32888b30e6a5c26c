"""Heads between the encoder and a loss."""

from __future__ import annotations

import itertools

from torch import nn

from pretrain.config import ProjectorConfig
from pretrain.models.dropout import PositionalDropout


def build_projector(config: ProjectorConfig, *, feature_width: int) -> nn.Sequential:
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
    return nn.Sequential(*layers)
