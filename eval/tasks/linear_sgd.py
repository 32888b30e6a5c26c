"""Linear evaluation by SGD: SimCLR's protocol (Chen et al. 2020, appendix B.6), a whole grid of settings in one pass.

Frozen encoder in eval mode, raw pooled features, random crop and flip, Nesterov momentum 0.9, learning rate
0.1 * B / 256, cosine without warm-up, 90 epochs, no decay. Each setting is trained twice side by side: without the
held-out part of the training images, whose accuracy after the last epoch chooses, and on all images; the chosen one of
these meets the test images. The encoder sees every image once an epoch, whatever the grid.

N images, B in a batch, D features, E = D + 1, H heads, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from eval.config import LinearConfig, SgdSettings
from eval.features import Features, progress_bar, threads
from eval.images import ImageSet, crop_and_flip
from eval.metrics import classifier_numbers, held_out_mask, too_few_to_hold_out
from eval.result import EvaluationError
from eval.subject import Subject
from eval.tasks.linear import standardization
from eval.tasks.sgd_heads import Heads, HeadSettings, with_ones
from eval.training import Curves
from pretrain.collectives import all_gather_rows
from pretrain.data.sampler import RankOrder
from pretrain.models.encoder import to_float
from pretrain.optim.config import learning_rate, lr_at

Batches = Callable[[int], Iterator[tuple[Tensor, Tensor, Tensor]]]  # epoch -> (features, labels, image numbers)


def measure_linear_sgd(
    subject: Subject, train: Features, test: Features, config: LinearConfig, *, classes: int
) -> dict[str, Any]:
    """Linear evaluation by SGD; nothing that is measured on ``test`` chooses anything."""
    if not config.sgd.augmented:
        batches, steps, batch = _cached(train, config)
        return fit_heads(batches, steps, batch, train, test, config, classes=classes)
    source = subject.source
    images = ImageSet(
        source.directory,
        source.train_split,
        images=config.train_images,
        workers=threads(config),
        flavour=source.flavour,
    )
    try:
        views = crop_and_flip(
            subject.encoder.config.augmentation, size_px=source.size_px, crop_area=config.sgd.crop_area
        )
        world, batch_size = subject.world, config.sgd.batch_size
        epochs = images.augmented(
            images.index_N, views, batch_size=batch_size, seed=config.seed, rank=world.rank, world_size=world.size
        )

        def encoded(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
            # Each rank encodes its part; the classifiers are so small that every rank trains them on the whole batch.
            for views_b in epochs.epoch(epoch):
                pixels = to_float(views_b.views[:, 0].to(subject.device, non_blocking=True), channels_last=True)
                x_BD = all_gather_rows(subject.encoder.module(pixels).float())
                yield x_BD, all_gather_rows(views_b.labels.to(subject.device)), all_gather_rows(views_b.indices)

        return fit_heads(encoded, epochs.batches, epochs.batch_size, train, test, config, classes=classes)
    finally:
        images.close()


def fit_heads(
    batches: Batches,
    steps: int,
    batch_size: int,
    train: Features,
    test: Features,
    config: LinearConfig,
    *,
    classes: int,
) -> dict[str, Any]:
    """Train every setting on ``batches`` (``steps`` of them an epoch), choose one, measure it.

    ``train``: features of the training images as they are, of which the held-out part chooses.
    """
    settings = list(product(config.sgd.learning_rates, config.sgd.weight_decays))
    mean_D, std_D = standardization(train.x_ND) if config.sgd.standardize else (torch.zeros(()), torch.ones(()))
    mean_D, std_D = mean_D.to(train.x_ND.device), std_D.to(train.x_ND.device)

    def prepared(x_ND: Tensor) -> Tensor:
        return with_ones((x_ND - mean_D) / std_D)

    held_out_N = _held_out(train, config, needed=len(settings) > 1)
    heads = _heads(settings, config, train, classes, batch_size, choosing=held_out_N is not None)
    test_x_ME, test_y_M = prepared(test.x_ND), test.labels_N
    full = range(heads.heads - len(settings), heads.heads)
    history = _train(heads, batches, steps, config.sgd, prepared, test_x_ME, test_y_M, _lookup(train, held_out_N))
    train_loss = history[-1][0]
    grid: list[dict[str, Any]] = []
    chosen = 0
    if held_out_N is not None:
        measured = heads.measure(prepared(train.x_ND[held_out_N]), train.labels_N[held_out_N])
        grid = _grid(settings, measured, train_loss, full)
        chosen = _best(grid)
    curves = _curves(history, full[chosen])
    if curves.diverged:
        raise EvaluationError(
            f"the linear classifier diverged at learning rate {settings[chosen][0]:g}; expected a smaller one"
        )
    return {
        **classifier_numbers(heads.logits(full[chosen], test_x_ME), test_y_M),
        "train_top1": curves.train_top1[-1],
        "train_loss": curves.train_loss[-1],
        "protocol": "sgd",
        "hyperparameters": {"learning_rate": settings[chosen][0], "weight_decay": settings[chosen][1]},
        "learning_rate": settings[chosen][0],
        "weight_decay": settings[chosen][1],
        "held_out_top1": grid[chosen]["held_out"] if grid else None,
        "grid": grid,
        "heads": len(settings),
        "epochs": config.sgd.epochs,
        "batch_size": batch_size,
        "augmented": config.sgd.augmented,
        "curves": curves.to_json(),
        "reported": "last epoch",
    }


def _grid(
    settings: list[tuple[float, float]], measured: tuple[Tensor, Tensor], train_loss: Any, full: range
) -> list[dict[str, Any]]:
    """A row for each setting; without numbers where training with it diverged."""
    loss_H, top1_H = measured
    grid: list[dict[str, Any]] = []
    for i, (rate, decay) in enumerate(settings):
        numbers = {
            "held_out": float(top1_H[i]),
            "held_out_loss": float(loss_H[i]),
            "train_loss": float(train_loss[i]),
        }
        finite = all(math.isfinite(value) for value in (*numbers.values(), float(train_loss[full[i]])))
        grid.append({"learning_rate": rate, "weight_decay": decay, **(numbers if finite else dict.fromkeys(numbers))})
    return grid


def _heads(
    settings: list[tuple[float, float]],
    config: LinearConfig,
    train: Features,
    classes: int,
    batch: int,
    *,
    choosing: bool,
) -> Heads:
    """Without the held-out images first, where there is something to choose; then on all images."""
    wanted = [
        HeadSettings(learning_rate("linear", rate, batch), decay, fits_held_out)
        for fits_held_out in ((False, True) if choosing else (True,))
        for rate, decay in settings
    ]
    device, features = train.x_ND.device, train.x_ND.shape[1]
    return Heads(wanted, features=features, classes=classes, momentum=config.sgd.momentum, device=device)


def _train(
    heads: Heads,
    batches: Batches,
    steps: int,
    sgd: SgdSettings,
    prepared: Callable[[Tensor], Tensor],
    test_x_ME: Tensor,
    test_y_M: Tensor,
    held_out_by_index: Tensor | None,
) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """(train loss, train top-1, test loss, test top-1), (H,) each, for every epoch."""
    history, step, total = [], 0, steps * sgd.epochs
    with torch.inference_mode(), progress_bar("linear classifiers", "steps") as advance:
        for epoch in range(sgd.epochs):
            for x_BD, y_B, index_B in batches(epoch):
                held_out_B = None if held_out_by_index is None else held_out_by_index[index_B].to(x_BD.device)
                factor = lr_at(step, peak=1.0, warmup_steps=0, total_steps=total)
                heads.step(prepared(x_BD), y_B, held_out_B, factor=factor)
                step += 1
                advance(1)
            history.append((*heads.end_epoch(), *heads.measure(test_x_ME, test_y_M)))
    return history


def _held_out(train: Features, config: LinearConfig, *, needed: bool) -> Tensor | None:
    """True (N,) for held-out images; None where there can be none and nothing is to be chosen."""
    held_out_N = held_out_mask(train.indices_N, fraction=config.held_out_fraction, seed=config.seed)
    if not held_out_N.all() and held_out_N.any():
        return held_out_N
    if needed:
        raise EvaluationError(too_few_to_hold_out(len(held_out_N), config.held_out_fraction))
    return None


def _lookup(train: Features, held_out_N: Tensor | None) -> Tensor | None:
    """Whether an image is held out, by its number in the file."""
    if held_out_N is None:
        return None
    index_N = train.indices_N.cpu()
    found = torch.zeros(int(index_N.max()) + 1, dtype=torch.bool)
    found[index_N] = held_out_N.cpu()
    return found


def _best(grid: list[dict[str, Any]]) -> int:
    finite = [i for i, row in enumerate(grid) if row["held_out"] is not None]
    if not finite:
        raise EvaluationError("every linear classifier of the grid diverged; expected smaller learning rates")
    return max(finite, key=lambda i: grid[i]["held_out"])  # the first of equals


def _curves(history: list[tuple[Tensor, Tensor, Tensor, Tensor]], head: int) -> Curves:
    curves = Curves()
    for train_loss_H, train_top1_H, test_loss_H, test_top1_H in history:
        test_loss = float(test_loss_H[head])
        curves.add(
            train_loss=float(train_loss_H[head]),
            train_top1=float(train_top1_H[head]),
            test_loss=test_loss if math.isfinite(test_loss) else None,
            test_top1=float(test_top1_H[head]),
        )
    return curves


def _cached(train: Features, config: LinearConfig) -> tuple[Batches, int, int]:
    """Batches of features without augmentation, their number in an epoch, and their size."""
    place_N = train.indices_N.cpu().argsort()
    sorted_N = train.indices_N.cpu()[place_N]
    size = min(config.sgd.batch_size, len(sorted_N))
    whole = RankOrder(np.ascontiguousarray(sorted_N.numpy()), config.seed, size)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for index_B in torch.from_numpy(whole.batches(epoch)):
            at_B = place_N[torch.searchsorted(sorted_N, index_B)].to(train.x_ND.device)
            yield train.x_ND[at_B], train.labels_N[at_B], index_B

    return batches, whole.batches_per_epoch, size
