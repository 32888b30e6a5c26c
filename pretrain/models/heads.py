"""Heads between the encoder and a loss."""

from __future__ import annotations

import itertools

from torch import nn

from pretrain.config import ProjectorConfig


def build_projector(config: ProjectorConfig, *, feature_width: int) -> nn.Sequential:
    """SimCLR's projector: features (N, feature_width) -> projections (N, output_width).

    Linear without bias, batch norm after every layer (the last without beta), ReLU between, as in google-research/simclr
    (Chen et al. 2020).
    """
    hidden = config.hidden_width or feature_width
    widths = [feature_width, *[hidden] * (config.layers - 1), config.output_width]
    layers: list[nn.Module] = []
    for index, (width_in, width_out) in enumerate(itertools.pairwise(widths)):
        last = index == config.layers - 1
        linear = nn.Linear(width_in, width_out, bias=False)
        nn.init.normal_(linear.weight, std=0.01)
        norm = nn.BatchNorm1d(width_out)
        if last:
            norm.register_parameter("bias", None)  # the last batch norm has no beta
        layers += [linear, norm] if last else [linear, norm, nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
