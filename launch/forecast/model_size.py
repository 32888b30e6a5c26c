"""How large a configuration's network is, from its configuration alone: what plans are made with. Torch-free."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from pretrain.config import PretrainConfig
from pretrain.models.config import Layer
from pretrain.objectives.settings import ProjectorConfig


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
