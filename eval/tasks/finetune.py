"""Fine-tuning with few or all labels, and what it is compared with: one table.

                 linear (frozen encoder)      finetune (encoder trained too)
    random       "random"                     "supervised": from scratch
    pretrained   "linear"                     "fine-tuned"

Every cell gets the same labelled images, as many of each class (SimCLR section 4.3: 1 %, 10 % and all). Settings with a
grid are chosen on a held-out part of the labelled images; the test images are read when everything is chosen, after the
last epoch, and on the way for the curves alone.

N training images, n labelled ones, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from eval.classifier import Network, new_network, write_network
from eval.config import FinetuneConfig, Initialisation, LinearConfig
from eval.encoder import FrozenEncoder, load_encoder
from eval.evaluate import share_split
from eval.features import feature_source, load_features
from eval.metrics import (
    accuracy_percent,
    balanced_subset,
    classifier_numbers,
    held_out_mask,
    mean_loss,
    too_few_to_hold_out,
)
from eval.result import EvaluationError, digests
from eval.subject import Subject
from eval.tasks.probe import measure_linear
from eval.training import Curves, Rates, Trainer, open_trainer
from pretrain.dist import agree_on
from pretrain.rundir import read_json, write_json

NAMES = {
    ("linear", "random"): "random",
    ("finetune", "random"): "supervised",
    ("linear", "pretrained"): "linear",
    ("finetune", "pretrained"): "fine-tuned",
}


def evaluate_finetune(subject: Subject, config: FinetuneConfig) -> dict[str, Any]:
    """Every row of the table, each kept as soon as it is measured, and the result once all are there."""
    with open_trainer(subject, config) as trainer:
        comparison = _Comparison(subject, config, trainer)
        rows = [
            comparison.row(method, initialisation, fraction)
            for initialisation, method in product(config.initialisations, config.methods)
            for fraction in sorted(set(config.label_fractions))
        ]
    return subject.write(
        {"rows": rows, "reported": "last epoch"},
        data={**trainer.data, "features": subject.encoder.config.encoder.feature_width},
    )


@dataclass(frozen=True)
class _Comparison:
    """What every row needs."""

    subject: Subject
    config: FinetuneConfig
    trainer: Trainer

    def row(self, method: str, initialisation: Initialisation, fraction: float) -> dict[str, Any]:
        """One cell of the table; one that an earlier, interrupted start has measured is read."""
        encoder = self._encoder(initialisation)
        path = self.subject.evaluation.directory / "rows" / f"{method}-{initialisation}-{fraction:g}.json"
        of = {**encoder.identity(), "inputs": digests(self.subject.source.manifests())}
        world, known = self.subject.world, _read_row(path, of)
        if agree_on(world, int(known is not None)):
            return known or {}  # the first rank has it
        train = self.trainer.train
        chosen_n = balanced_subset(train.labels_N, train.index_N, fraction=fraction, seed=self.config.seed)
        labelled_n = train.index_N[chosen_n]
        if method == "linear":
            measured = self._linear(encoder, labelled_n)
        else:
            measured = self._finetune(encoder, labelled_n, fraction)
        row = {
            "name": NAMES[method, initialisation],
            "method": method,
            "initialisation": initialisation,
            "label_fraction": fraction,
            "images": len(labelled_n),
            **measured,
        }
        if world.is_first:
            write_json(path, {"of": of, "row": row})
        self.subject.stopwatch.lap(f"{method} {initialisation} {fraction:g}")
        return row

    def _encoder(self, initialisation: Initialisation) -> FrozenEncoder:
        if initialisation == "pretrained":
            return self.subject.encoder
        run = self.subject.evaluation
        return load_encoder(run.run, run.run_config, device=self.subject.device, initialisation=initialisation)

    def _linear(self, encoder: FrozenEncoder, labelled_n: Tensor) -> dict[str, Any]:
        config, run, device = self.config, self.subject.evaluation.run, self.subject.device
        source = feature_source(encoder, config)
        if self.subject.world.size > 1:
            for split in (source.train_split, config.test_split):
                share_split(run, source, split, self.subject.world)
        train = load_features(run, source, source.train_split, device=device)
        test = load_features(run, source, config.test_split, device=device)
        labelled = train.of_images(labelled_n.to(device))
        settings = LinearConfig(l2=config.l2, held_out_fraction=config.held_out_fraction, seed=config.seed)
        measured = measure_linear(labelled, test, settings, classes=self.trainer.classes)
        return {key: value for key, value in measured.items() if key != "protocol"}

    def _finetune(self, encoder: FrozenEncoder, labelled_n: Tensor, fraction: float) -> dict[str, Any]:
        config, epochs = self.config, self.config.epochs_for(fraction)
        rates, grid = self._choose(encoder, labelled_n, epochs)
        chosen = [row["held_out"] for row in grid if _settings(rates).items() <= row.items()]
        network, curves = self._trained(encoder, labelled_n, rates, epochs, watched=True)
        if curves.diverged:
            raise EvaluationError(
                f"fine-tuning with {len(labelled_n)} labels diverged in epoch {len(curves.epoch)} with "
                f"encoder_learning_rates {rates.encoder:g} and head_learning_rates {rates.head:g}; expected smaller"
            )
        numbers = classifier_numbers(*self.trainer.test_logits(network))
        curves.test_loss[-1], curves.test_top1[-1] = numbers["test_loss"], numbers["top1"]
        if config.keep_networks and self.subject.world.is_first:
            about = {"initialisation": encoder.initialisation, "label_fraction": fraction, "top1": numbers["top1"]}
            path = network_path(self.subject.evaluation.directory, encoder.initialisation, fraction)
            write_network(path, network, encoder.config.encoder, about, labelled_n)
        return {
            **numbers,
            "train_top1": curves.train_top1[-1],
            "train_loss": curves.train_loss[-1],
            "hyperparameters": _settings(rates),
            "held_out_top1": chosen[0] if chosen else None,
            "grid": grid,
            "epochs": epochs,
            "curves": curves.to_json(),
            "reported": "last epoch",
        }

    def _choose(self, encoder: FrozenEncoder, labelled_n: Tensor, epochs: int) -> tuple[Rates, list[dict[str, Any]]]:
        """The setting that is best on a held-out part of the labelled images after the last epoch, and all of them."""
        config = self.config
        settings = [
            Rates(*values)
            for values in product(config.encoder_learning_rates, config.head_learning_rates, config.weight_decays)
        ]
        if len(settings) == 1:
            return settings[0], []
        held_out_n = held_out_mask(labelled_n, fraction=config.held_out_fraction, seed=config.seed)
        if held_out_n.all() or not held_out_n.any():
            raise EvaluationError(
                f"{too_few_to_hold_out(len(labelled_n), config.held_out_fraction)}, more labels (label_fractions), or "
                "single values for the learning rates and the weight decay"
            )
        grid = []
        for rates in settings:
            network, curves = self._trained(encoder, labelled_n[~held_out_n], rates, epochs)
            held_out: dict[str, Any] = {"held_out": None, "held_out_loss": None}
            if not curves.diverged:
                logits_NK, labels_N = self.trainer.logits(network, self.trainer.train, labelled_n[held_out_n])
                held_out["held_out"] = accuracy_percent(logits_NK, labels_N)
                held_out["held_out_loss"] = mean_loss(logits_NK, labels_N)
            grid.append({**_settings(rates), **held_out, "train_loss": curves.train_loss[-1]})
        finite = [i for i, row in enumerate(grid) if row["held_out"] is not None]
        if not finite:
            raise EvaluationError("fine-tuning diverged at every learning rate of the grid; expected smaller ones")
        best = max(finite, key=lambda i: grid[i]["held_out"])  # the first of equals
        return settings[agree_on(self.subject.world, best)], grid

    def _trained(
        self, encoder: FrozenEncoder, labelled_n: Tensor, rates: Rates, epochs: int, *, watched: bool = False
    ) -> tuple[Network, Curves]:
        network = new_network(encoder.module, self.trainer.classes, seed=self.config.seed).to(self.subject.device)
        title = f"fine-tuning on {len(labelled_n)} labels"
        curves, _ = self.trainer.fit(network, labelled_n, rates, epochs=epochs, title=title, watched=watched)
        return network, curves


def network_path(directory: Path, initialisation: str, fraction: float) -> Path:
    """Where an evaluation in ``directory`` keeps the network that it fine-tuned."""
    return directory / "networks" / f"{initialisation}-{fraction:g}.pt"


def _settings(rates: Rates) -> dict[str, float]:
    return {
        "encoder_learning_rate": rates.encoder,
        "head_learning_rate": rates.head,
        "weight_decay": rates.weight_decay,
    }


def _read_row(path: Path, of: dict[str, Any]) -> dict[str, Any] | None:
    try:
        content = read_json(path)
    except (FileNotFoundError, ValueError):
        return None
    return dict(content["row"]) if isinstance(content, dict) and content.get("of") == of else None
