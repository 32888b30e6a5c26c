"""An encoder with a linear classifier on it: trained as one network, kept as a file, read without running code from it.

N images, K classes.
"""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eval.encoder import new_encoder
from eval.result import EvaluationError
from pretrain.errors import ConfigError
from pretrain.models.config import EncoderSettings, read_encoder_config
from pretrain.models.encoder import Encoder
from pretrain.rundir import whole_file

KIND = "bigbatch classifier"
FORMAT = 1
HEAD_DEVIATION = 0.01  # of the classifier's first weights (google-research/simclr)
_KEYS = {"kind", "format", "encoder", "classes", "about", "labelled", "model"}


class Network(nn.Module):
    """Images (N, 3, H, W) in [0, 1] -> logits (N, K)."""

    def __init__(self, encoder: Encoder, classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.feature_width, classes)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.encoder(images))
        return logits


@dataclass(frozen=True)
class StoredNetwork:
    """A network read from a file. about: plain values; labelled (n,): the numbers of the images whose labels it saw."""

    module: Network
    encoder: EncoderSettings
    about: dict[str, Any]
    labelled_n: Tensor


def new_network(encoder: Encoder, classes: int, *, seed: int) -> Network:
    """A copy of ``encoder`` that can be trained, and a classifier with small random weights from ``seed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Network(copy.deepcopy(encoder).cpu(), classes)
        nn.init.normal_(network.classifier.weight, std=HEAD_DEVIATION)
        nn.init.zeros_(network.classifier.bias)
    return network.requires_grad_(True).to(memory_format=torch.channels_last)


def write_network(
    path: Path, network: Network, config: EncoderSettings, about: dict[str, Any], labelled_n: Tensor
) -> None:
    """Write the network whole."""
    content = {
        "kind": KIND,
        "format": FORMAT,
        "encoder": config.model_dump(mode="json"),
        "classes": network.classifier.out_features,
        "about": about,
        "labelled": labelled_n.cpu(),
        "model": {key: value.cpu() for key, value in network.state_dict().items()},
    }
    with whole_file(path) as file:
        torch.save(content, file)


def read_network(path: Path) -> StoredNetwork:
    """The network in ``path``, on the CPU. Raises EvaluationError where the file is damaged, foreign or missing."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; `bigbatch eval finetune RUN_DIR` writes networks") from None
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise EvaluationError(f"{path} cannot be read as a network ({reason})") from error
    missing = _KEYS - set(content) if isinstance(content, dict) else _KEYS
    if missing or content["kind"] != KIND or content["format"] != FORMAT:
        what = f"lacks {', '.join(sorted(missing))}" if missing else f"is {content['kind']!r} {content['format']!r}"
        raise EvaluationError(f"{path} is not a network that `eval finetune` wrote: it {what}")
    try:
        config = read_encoder_config(content["encoder"], f"encoder in {path}")
        network = Network(new_encoder(config, seed=0), int(content["classes"]))
        network.load_state_dict(content["model"])
    except (ConfigError, RuntimeError, TypeError, ValueError) as error:
        raise EvaluationError(f"{path} holds weights that do not fit: {error}") from error
    return StoredNetwork(network, config, dict(content["about"]), content["labelled"])
