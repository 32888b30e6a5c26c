"""The encoder of a run as files for others: weights as safetensors, what they are, and what they reach.

encoder.safetensors   weights and buffers by torchvision's names, without ``fc``; no code, nothing to unpickle
config.json           what builds the network, what trained it, which images it was fed
README.md             a model card with the numbers that were measured on this checkpoint
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from eval.config import ExportConfig
from eval.describe import describe_numbers
from eval.encoder import FrozenEncoder, new_encoder
from eval.result import EvaluationError
from eval.schema import EvaluationResult
from eval.subject import Subject
from pretrain.config import EncoderConfig, result_settings
from pretrain.errors import ConfigError
from pretrain.models.config import EncoderSettings, read_encoder_config
from pretrain.models.encoder import Encoder
from pretrain.rundir import whole_file, write_json, write_text

# Of a result, what the card shows.
SHOWN = {"task", "protocol", "top1", "top1_interval", "top5", "per_class_mean", "knn_top1", "knn_plain_top1", "data"}
SHOWN |= {"l2", "learning_rate", "weight_decay", "mean_top1", "alignment", "uniformity", "rankme", "effective_rank"}
WEIGHTS, CONFIG, CARD = "encoder.safetensors", "config.json", "README.md"
FORMAT = "bigbatch encoder 1"
# Standard widths and stem; any other has no counterpart in torchvision.
TORCHVISION_ENCODER = {"width": 1.0, "stem": "imagenet"}


def evaluate_export(subject: Subject, config: ExportConfig) -> dict[str, Any]:
    """Write the three files and a result that names them."""
    encoder, directory = subject.encoder, subject.evaluation.directory
    state = {key: value.detach().cpu().contiguous() for key, value in encoder.module.state_dict().items()}
    network = encoder.config.encoder
    reason = why_not_torchvision(network)
    metadata = {"format": FORMAT, "encoder": json.dumps(network.model_dump(mode="json"), sort_keys=True)}
    with whole_file(directory / WEIGHTS) as file:
        file.write(save(state, metadata))
    write_json(directory / CONFIG, _config(encoder))
    results = measured_results(subject)
    parameters = sum(value.numel() for value in encoder.module.parameters())
    write_text(directory / CARD, model_card(encoder, results, parameters))
    return subject.write(
        {
            "files": {name: _file(directory / name) for name in (WEIGHTS, CONFIG, CARD)},
            "parameters": parameters,
            "torchvision": network.architecture if reason is None else None,
            "torchvision_reason": reason,
            "numbers": {
                name: result.model_dump(mode="json", include=SHOWN, exclude_unset=True)
                for name, result in results.items()
            },
        },
        data={},
    )


def read_exported_encoder(path: Path) -> tuple[Encoder, EncoderSettings]:
    """The encoder in a file that `evaluate_export` wrote, on the CPU.

    Raises EvaluationError where the file is missing, damaged, or another's: it runs nothing that it finds there (an
    own encoder's module is imported from this machine).
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata() or {}
            state: dict[str, Tensor] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise EvaluationError(f"{path}: no such file; `bigbatch eval export RUN_DIR` writes it") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise EvaluationError(f"{path} cannot be read as safetensors ({error}); export the encoder again") from error
    if metadata.get("format") != FORMAT:
        said = metadata.get("format", "nothing")
        raise EvaluationError(f"{path} is not an encoder of this project: it calls itself {said}, expected {FORMAT}")
    try:
        config = read_encoder_config(json.loads(metadata["encoder"]), f"encoder in {path}")
        encoder = new_encoder(config, seed=0)
        encoder.load_state_dict(state)
    except (ConfigError, KeyError, ValueError, RuntimeError) as error:
        raise EvaluationError(f"{path} holds weights that do not fit: {error}") from error
    return encoder.eval(), config


def why_not_torchvision(config: EncoderSettings) -> str | None:
    """None where torchvision's network of that name takes the weights as they are, else what is different."""
    if not isinstance(config, EncoderConfig):
        return f"torchvision has no {config.architecture}"
    different = [
        f"{name} {getattr(config, name)} instead of {wanted}"
        for name, wanted in TORCHVISION_ENCODER.items()
        if getattr(config, name) != wanted
    ]
    return ", ".join(different) or None


def measured_results(subject: Subject) -> dict[str, EvaluationResult]:
    """Results of the evaluations of this very checkpoint's encoder, by the name of their directory."""
    return {
        result.directory.name: result
        for result in subject.results()
        if result.directory is not None and result.initialisation == "pretrained" and result.task != "export"
    }


def model_card(encoder: FrozenEncoder, results: Mapping[str, EvaluationResult], parameters: int) -> str:
    """Markdown for people: what this is, how to load it, what it reaches, how it was trained."""
    config = encoder.config
    lines = [
        f"# {config.encoder.architecture} encoder, {config.objective.name} on {config.data.dataset}",
        "",
        f"{parameters:,} parameters, {config.encoder.feature_width} features after the global average pool; step "
        f"{encoder.step:,} of run `{encoder.fingerprint}`, global batch size {config.global_batch_size:,}, "
        f"{config.epochs:,} epochs, seed {config.seed}.",
        "",
        f"Input: RGB in [0, 1], not normalised further, {config.augmentation.crop_size_px} px a side; eval mode.",
        "",
        "## Loading",
        "",
        *_loading(config.encoder),
        "",
        "## Numbers",
        "",
    ]
    if not results:
        lines.append("None yet: `bigbatch eval linear RUN_DIR` measures them; export again after it.")
    for name, result in results.items():
        lines += [f"- `{name}`: {describe_numbers(result)}"]
    settings = json.dumps(result_settings(config), indent=2)
    return "\n".join([*lines, "", "## Training", "", "```json", settings, "```", ""])


def _loading(config: EncoderSettings) -> list[str]:
    reason = why_not_torchvision(config)
    if reason is not None:
        return [
            f"No network of torchvision has this shape ({reason}). With this project installed:",
            "",
            "```python",
            "from pathlib import Path",
            "from eval.tasks.export import read_exported_encoder",
            f'encoder, config = read_exported_encoder(Path("{WEIGHTS}"))',
            "```",
        ]
    return [
        "```python",
        "import torch, torchvision",
        "from safetensors.torch import load_file",
        f"encoder = torchvision.models.{config.architecture}()",
        "encoder.fc = torch.nn.Identity()",
        f'encoder.load_state_dict(load_file("{WEIGHTS}"))',
        "encoder.eval()",
        "```",
    ]


def _config(encoder: FrozenEncoder) -> dict[str, Any]:
    run = encoder.config
    return {
        "format": FORMAT,
        "encoder": run.encoder.model_dump(mode="json"),
        "feature_width": run.encoder.feature_width,
        "input": {"channels": 3, "range": [0.0, 1.0], "size_px": run.augmentation.crop_size_px},
        "run": {"fingerprint": encoder.fingerprint, "step": encoder.step, "settings": result_settings(run)},
        "torch": torch.__version__,
    }


def _file(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
