"""Where networks are trained on the images of a run and measured on its test images, by all ranks together.

n images that are learned from, N test images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from eval.config import DistillConfig, FinetuneConfig
from eval.features import progress_bar, threads
from eval.images import ImageSet, crop_and_flip
from eval.network import Network
from eval.subject import Subject, class_count
from eval.training import Curves, Loss, Rates, label_loss, predict, train_network
from pretrain.collectives import all_gather_rows


@dataclass(frozen=True)
class Classroom:
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

    def teach(
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
        logits_nK, labels_n = all_gather_rows(logits_nK, world.control), all_gather_rows(labels_n, world.control)
        return logits_nK[: len(index_n)], labels_n[: len(index_n)]


@contextmanager
def open_classroom(subject: Subject, config: FinetuneConfig | DistillConfig) -> Iterator[Classroom]:
    """The classroom of ``config``; its threads end with the block. Raises EvaluationError for a foreign test class."""
    source, workers = subject.source, threads(config)
    train = ImageSet(source.directory, source.train_split, images=config.train_images, workers=workers)
    test = ImageSet(source.directory, config.test_split, workers=workers)
    try:
        yield Classroom(subject, config, train, test, class_count(train.labels_N, test.labels_N))
    finally:
        train.close()
        test.close()
