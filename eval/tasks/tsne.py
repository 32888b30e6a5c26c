"""A picture of the features, and how they lie on the sphere, for each checkpoint of a run.

t-SNE (van der Maaten & Hinton 2008, by scikit-learn) of a fixed subset of the test images, coloured by class; alignment
and uniformity on the same images, two random views of each as in training; RankMe and effective rank of the plain ones.

N images, D features.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import normalize

from eval.config import TsneConfig
from eval.encoder import FrozenEncoder, load_encoder
from eval.features import progress_bar, threads
from eval.images import ImageSet
from eval.result import EvaluationError
from eval.splits import present_split
from eval.subject import Subject
from pretrain.batch import Batch
from pretrain.checkpoint import checkpoints
from pretrain.models.encoder import to_float
from pretrain.rundir import read_json, whole_file, write_text

# How features lie: numbers that need no labels, or only pairs of views of the same images.
#
# Shapes: N images, D features.


ROWS_AT_ONCE = 2048


def alignment(x_ND: Tensor, other_ND: Tensor) -> float:
    """mean |f(x) - f(x')|^2 over positive pairs, f on the unit sphere: 0 to 4, lower is closer (Wang & Isola 2020)."""
    distance_ND = normalize(x_ND.double(), dim=1) - normalize(other_ND.double(), dim=1)
    return float(distance_ND.square().sum(1).mean())


def uniformity(x_ND: Tensor) -> float:
    """log mean exp(-2 |f(x) - f(y)|^2) over pairs of different images, f on the unit sphere (Wang & Isola 2020).

    0 where all features are one point, down to nearly -4 where they are spread evenly. ValueError below 2 images.
    """
    images = len(x_ND)
    if images < 2:
        raise ValueError(f"uniformity: got {images} images, expected at least 2")
    unit_ND = normalize(x_ND.double(), dim=1)
    total = 0.0
    for rows_nD in torch.split(unit_ND, ROWS_AT_ONCE):
        total += float(torch.exp(4 * (rows_nD @ unit_ND.t()) - 4).sum())  # |f - g|^2 = 2 - 2 f.g
    itself = float(torch.exp(4 * unit_ND.square().sum(1) - 4).sum())
    return math.log((total - itself) / (images * (images - 1)))


def rankme(x_ND: Tensor) -> float:
    """RankMe (Garrido et al. 2023): exp of the entropy of the singular values of the features; 1 to min(N, D)."""
    return _effective(torch.linalg.svdvals(x_ND.double()))


def effective_rank(x_ND: Tensor) -> float:
    """exp of the entropy of the eigenvalues of the features' covariance (Roy & Vetterli 2007): what varies, 1 to D.

    0 where nothing varies.
    """
    centred_ND = x_ND.double() - x_ND.double().mean(0)
    return _effective(torch.linalg.svdvals(centred_ND).square())


def _effective(spectrum_D: Tensor) -> float:
    total = spectrum_D.sum()
    if float(total) == 0:
        return 0.0
    share_D = spectrum_D / total
    return float(torch.exp(-torch.xlogy(share_D, share_D).sum()))


LARGEST_LEGEND = 20  # classes that a person can tell apart by colour, at most


def evaluate_tsne(subject: Subject, config: TsneConfig) -> dict[str, Any]:
    """A row for each checkpoint, oldest first; the newest one's numbers stand at the top of the result too."""
    source = subject.source
    split = present_split(source.directory, config.test_split, source.train_split)
    images = ImageSet(source.directory, split, workers=threads(config), flavour=source.flavour)
    try:
        if len(images.index_N) > config.images:
            smaller = ImageSet(
                source.directory, split, images=config.images, workers=threads(config), flavour=source.flavour
            )
            images.close()
            images = smaller
        if len(images.index_N) <= config.perplexity:
            raise EvaluationError(
                f"perplexity: got {config.perplexity:g}, expected less than the {len(images.index_N)} images shown"
            )
        rows: list[dict[str, Any]] = []
        with progress_bar("pictures", "checkpoints") as advance:
            for encoder in _encoders(subject, config):
                rows.append(_row(subject, config, encoder, images))
                subject.stopwatch.lap(f"step {encoder.step}")
                advance(1)
    finally:
        images.close()
    newest = {name: value for name, value in rows[-1].items() if name not in ("step", "checkpoint")}
    return subject.write({**newest, "rows": rows}, data={"test_images": len(images.index_N), "test_split": split})


def _encoders(subject: Subject, config: TsneConfig) -> list[FrozenEncoder]:
    run = subject.evaluation
    if config.checkpoints == "newest" or config.initialisation == "random":
        return [subject.encoder]
    return [
        load_encoder(run.run, run.run_config, device=subject.device, checkpoint=path)
        for path in checkpoints(run.run.checkpoints)
    ]


def _row(subject: Subject, config: TsneConfig, encoder: FrozenEncoder, images: ImageSet) -> dict[str, Any]:
    size_px, index_N = subject.source.size_px, images.index_N
    plain = images.plain(index_N, size_px=size_px, batch_size=config.batch_size)
    (x_ND,) = _features(subject, encoder, plain)
    views = encoder.config.augmentation.model_copy(update={"crop_size_px": size_px, "number_of_views": 2})
    pairs = images.views(index_N, views, batch_size=config.batch_size, seed=config.seed)
    one_ND, two_ND = _features(subject, encoder, pairs)
    if not bool(torch.isfinite(x_ND.sum() + one_ND.sum() + two_ND.sum())):
        raise EvaluationError(f"{encoder.checkpoint} gives features that are not finite numbers: the run diverged")
    points_N2, divergence = embed(x_ND, config)
    stem, directory = f"tsne_step_{encoder.step:08d}", subject.evaluation.directory
    names = subject.source.class_names()
    _write_points(directory / f"{stem}.csv", points_N2, images.labels_N, index_N)
    title = f"t-SNE of {len(index_N):,} test images, step {encoder.step:,}"
    with whole_file(directory / f"{stem}.png") as file:
        file.write(picture(points_N2, images.labels_N, names, title))
    return {
        "step": encoder.step,
        "checkpoint": encoder.checkpoint.name,
        "epoch": _epoch(subject, encoder.step),
        "alignment": alignment(one_ND, two_ND),
        "uniformity": uniformity(one_ND),
        "rankme": rankme(x_ND),
        "effective_rank": effective_rank(x_ND),
        "features": x_ND.shape[1],
        "images": len(index_N),
        "kl_divergence": divergence,
        "picture": f"{stem}.png",
        "points": f"{stem}.csv",
    }


def embed(x_ND: Tensor, config: TsneConfig) -> tuple[npt.NDArray[np.float32], float]:
    """(t-SNE of the features (N, 2), the Kullback-Leibler divergence that is left)."""
    try:
        from sklearn.manifold import TSNE  # takes a second to import
    except ImportError as error:
        raise EvaluationError(f"t-SNE needs scikit-learn ({error}); pip install scikit-learn") from error
    tsne = TSNE(perplexity=config.perplexity, random_state=config.seed % 2**32, init="pca", learning_rate="auto")
    points_N2 = tsne.fit_transform(x_ND.double().numpy())
    return np.asarray(points_N2, np.float32), float(tsne.kl_divergence_)


def picture(points_N2: npt.NDArray[np.float32], labels_N: Tensor, names: list[str] | None, title: str) -> bytes:
    """PNG of the points, coloured by class, with a legend where the classes can be told apart."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    classes = max(1, int(labels_N.max()) + 1)
    labels_N = labels_N.clamp_min(0)  # without labels all are of one colour
    colours = colormaps["tab10" if classes <= 10 else "tab20" if classes <= 20 else "gist_rainbow"]
    figure = Figure(figsize=(7.5, 6), layout="constrained")
    axes = figure.subplots()
    for label in range(classes):
        of_class_n2 = points_N2[(labels_N == label).numpy()]
        colour = colours(label) if classes <= LARGEST_LEGEND else colours(label / classes)
        name = names[label] if names and label < len(names) else str(label)
        axes.scatter(of_class_n2[:, 0], of_class_n2[:, 1], s=5, color=colour, label=name, linewidths=0, alpha=0.8)
    axes.set(title=title, xticks=[], yticks=[])
    axes.set_aspect("equal", adjustable="datalim")
    if 1 < classes <= LARGEST_LEGEND:
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=3, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=130)
    return content.getvalue()


def _features(subject: Subject, encoder: FrozenEncoder, batches: Iterator[Batch]) -> list[Tensor]:
    """Features (N, D) of each view, on the CPU."""
    parts: list[list[Tensor]] = []
    with torch.inference_mode():
        for batch in batches:
            views = batch.views.to(subject.device, non_blocking=True).unbind(1)
            parts.append([encoder.module(to_float(view, channels_last=True)).float().cpu() for view in views])
    return [torch.cat(view) for view in zip(*parts)]


def _epoch(subject: Subject, step: int) -> float | None:
    """Epochs that so many steps are; None where the run's plan does not say."""
    try:
        steps = read_json(subject.evaluation.run.plan)["steps_per_epoch"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return float(step / steps) if steps else None


def _write_points(path: Path, points_N2: npt.NDArray[np.float32], labels_N: Tensor, index_N: Tensor) -> None:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["x", "y", "label", "index"])
    for (x, y), label, index in zip(points_N2.tolist(), labels_N.tolist(), index_N.tolist()):
        rows.writerow([f"{x:.4f}", f"{y:.4f}", label, index])
    write_text(path, text.getvalue())
