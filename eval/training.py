"""Training a whole network on images, as evaluations do it: Nesterov momentum, cosine to 0, nothing chosen on the way.

B images in a batch, N of a set, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from eval.classifier import Network
from eval.config import DistillConfig, FinetuneConfig, TrainingSettings
from eval.features import progress_bar, threads
from eval.images import Epochs, ImageSet, crop_and_flip
from eval.metrics import accuracy_percent, mean_loss
from eval.subject import Subject, class_count
from pretrain.batch import Batch
from pretrain.collectives import all_gather_rows, group_rank_and_size, sum_by_gather
from pretrain.dist import Groups
from pretrain.gradients import GradientAverager
from pretrain.models.encoder import to_float
from pretrain.models.sync_batch_norm import convert_sync_batch_norm
from pretrain.optim.build import parameter_groups
from pretrain.optim.config import learning_rate, lr_at

# (logits (B, K), pixels (B, 3, H, W), labels (B,)) -> (mean loss, how many images are right), both on the device
Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Rates:
    """Base learning rates of the encoder and of the classifier on it, and the decay of the weights of both."""

    encoder: float
    head: float
    weight_decay: float = 0.0


@dataclass
class Curves:
    """One entry for each epoch; losses in nats, accuracies in percent, None where not measured."""

    epoch: list[int] = field(default_factory=list)
    train_loss: list[float | None] = field(default_factory=list)
    train_top1: list[float | None] = field(default_factory=list)
    test_loss: list[float | None] = field(default_factory=list)
    test_top1: list[float | None] = field(default_factory=list)

    def add(
        self, *, train_loss: float, train_top1: float, test_loss: float | None = None, test_top1: float | None = None
    ) -> None:
        """The numbers of one more epoch."""
        self.epoch.append(len(self.epoch) + 1)
        self.train_loss.append(train_loss if math.isfinite(train_loss) else None)
        self.train_top1.append(train_top1)
        self.test_loss.append(test_loss)
        self.test_top1.append(test_top1)

    def to_json(self) -> dict[str, Any]:
        """Plain lists by name."""
        return {name: list(values) for name, values in vars(self).items()}

    @property
    def diverged(self) -> bool:
        """Whether the last epoch's loss was not a finite number."""
        return bool(self.train_loss) and self.train_loss[-1] is None


def label_loss(logits_BK: Tensor, pixels: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy on labels."""
    return cross_entropy(logits_BK.float(), labels_B), (logits_BK.argmax(1) == labels_B).sum()


def train_network(
    network: Network,
    images: Epochs,
    rates: Rates,
    settings: TrainingSettings,
    *,
    epochs: int,
    groups: Groups,
    loss: Loss = label_loss,
    watch: Callable[[], tuple[Tensor, Tensor]] | None = None,
    progress: Callable[[int], None] = lambda steps: None,
) -> Curves:
    """Train ``network`` in place where it is, for ``epochs``; stops early where the loss is no longer a number.

    images: of this rank; the ranks of ``groups`` together train the same network as one would, batch norm included.
    watch: gives (logits, labels) of the test images, every settings.test_every_epochs, for the curves and nothing else.
    Collective: every rank calls this.
    """
    convert_sync_batch_norm(network, groups.norm)
    gradients = GradientAverager(list(network.parameters()), groups.gradients)
    ranks = group_rank_and_size(groups.gradients)[1]
    device = network.classifier.weight.device
    optimizer = _optimizer(network, rates, settings, batch_size=images.batch_size)
    total, step, curves = epochs * images.batches, 0, Curves()
    for epoch in range(epochs):
        network.train()
        sums = torch.zeros(2, dtype=torch.float64, device=device)  # of the loss, of right images: read once an epoch
        for batch in images.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = lr_at(step, peak=group["peak"], warmup_steps=0, total_steps=total)
            pixels, labels_B = _to(device, batch)
            with _autocast(device, settings):
                logits_BK = network(pixels)
            value, right = loss(logits_BK, pixels, labels_B)
            value.backward()  # type: ignore[no-untyped-call]
            gradients.average_over_ranks()
            optimizer.step()
            optimizer.zero_grad()
            sums += torch.stack([value.detach().double(), right.double()])
            step += 1
            progress(1)
        loss_sum, right_sum = sum_by_gather(sums, groups.loss).tolist()
        train = {
            "train_loss": loss_sum / (images.batches * ranks),
            "train_top1": 100 * right_sum / (images.batches * images.batch_size),
        }
        every = settings.test_every_epochs
        if watch is not None and every and (epoch + 1) % every == 0 and epoch + 1 < epochs:
            logits_NK, labels_N = watch()
            curves.add(
                **train, test_loss=mean_loss(logits_NK, labels_N), test_top1=accuracy_percent(logits_NK, labels_N)
            )
        else:
            curves.add(**train)
        if curves.diverged:
            break
    return curves


def predict(network: Network, batches: Iterator[Batch], settings: TrainingSettings) -> tuple[Tensor, Tensor]:
    """(logits (N, K) float32, labels (N,)) in eval mode, on the CPU."""
    device = network.classifier.weight.device
    network.eval()
    logits, labels = [], []
    with torch.inference_mode(), _autocast(device, settings):
        for batch in batches:
            logits.append(network(_to(device, batch)[0]).float().cpu())
            labels.append(batch.labels)
    return torch.cat(logits), torch.cat(labels)


def _optimizer(network: Network, rates: Rates, settings: TrainingSettings, *, batch_size: int) -> torch.optim.SGD:
    groups = []
    for module, base in ((network.encoder, rates.encoder), (network.classifier, rates.head)):
        peak = learning_rate("linear", base, batch_size)
        for group in parameter_groups(module, rates.weight_decay):
            groups.append({**group, "peak": peak})
    return torch.optim.SGD(groups, lr=0.0, momentum=settings.momentum, nesterov=settings.momentum > 0)


def _to(device: torch.device, batch: Batch) -> tuple[Tensor, Tensor]:
    pixels = to_float(batch.views[:, 0].to(device, non_blocking=True), channels_last=True)
    return pixels, batch.labels.to(device, non_blocking=True)


def _autocast(device: torch.device, settings: TrainingSettings) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.autocast == "bf16")


# Where networks are trained on the images of a run and measured on its test images, by all ranks together.
#
# n images that are learned from, N test images, K classes.


@dataclass(frozen=True)
class Trainer:
    """The images, and how a network learns from them: by ``config.training``, in an order from ``config.seed``."""

    subject: Subject
    config: FinetuneConfig | DistillConfig
    train: ImageSet
    test: ImageSet
    classes: int

    @property
    def data(self) -> dict[str, int]:
        """What a result says of the images."""
        images = {"train_images": len(self.train.index_N), "test_images": len(self.test.index_N)}
        return {**images, "classes": self.classes}

    def fit(
        self,
        network: Network,
        index_n: Tensor,
        rates: Rates,
        *,
        epochs: int,
        title: str,
        loss: Loss = label_loss,
        watched: bool = True,
    ) -> tuple[Curves, int]:
        """(curves, steps) of training ``network`` in place on these images; ``watched``: on test images too.

        Collective: every rank calls this.
        """
        config, size_px = self.config, self.subject.source.size_px
        run = self.subject.encoder.config.augmentation
        views = crop_and_flip(run, size_px=size_px, crop_area=config.training.crop_area)
        world, batch_size = self.subject.world, config.training.batch_size
        images = self.train.augmented(
            index_n, views, batch_size=batch_size, seed=config.seed, rank=world.rank, world_size=world.size
        )
        with progress_bar(title, "steps") as advance:
            curves = train_network(
                network,
                images,
                rates,
                config.training,
                epochs=epochs,
                groups=world.groups,
                loss=loss,
                watch=(lambda: self.test_logits(network)) if watched else None,
                progress=advance,
            )
        return curves, epochs * images.batches

    def test_logits(self, network: Network) -> tuple[Tensor, Tensor]:
        """(logits (N, K), labels (N,)) of the test images. Collective: every rank calls this."""
        return self.logits(network, self.test, self.test.index_N)

    def logits(self, network: Network, images: ImageSet, index_n: Tensor) -> tuple[Tensor, Tensor]:
        """(logits (n, K), labels (n,)) of these images, without augmentation, on every rank.

        Collective: every rank calls this.
        """
        world, size_px = self.subject.world, self.subject.source.size_px
        # Parts of one length: the last image fills up what the last ones lack.
        part = -(-len(index_n) // world.size)
        padded_n = torch.cat([index_n, index_n[-1:].expand(part * world.size - len(index_n))])
        own_n = padded_n[world.rank * part : (world.rank + 1) * part]
        batches = images.plain(own_n, size_px=size_px, batch_size=self.config.batch_size)
        logits_nK, labels_n = predict(network, batches, self.config.training)
        logits_nK, labels_n = (all_gather_rows(part, world.groups.control) for part in (logits_nK, labels_n))
        return logits_nK[: len(index_n)], labels_n[: len(index_n)]


@contextmanager
def open_trainer(subject: Subject, config: FinetuneConfig | DistillConfig) -> Iterator[Trainer]:
    """The trainer of ``config``; its threads end with the block. Raises EvaluationError for a foreign test class."""
    source, workers = subject.source, threads(config)
    train = ImageSet(
        source.directory, source.train_split, images=config.train_images, workers=workers, flavour=source.flavour
    )
    test = ImageSet(source.directory, config.test_split, workers=workers, flavour=source.flavour)
    try:
        yield Trainer(subject, config, train, test, class_count(train.labels_N, test.labels_N))
    finally:
        train.close()
        test.close()
