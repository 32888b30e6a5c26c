"""Distillation (SimCLRv2, Chen et al. 2020b, section 2): a fine-tuned teacher labels images for a smaller student.

    L = T^2 mean_B CE(softmax(teacher(x) / T), softmax(student(x) / T))     (T^2 keeps the gradient's size as T grows)

Teacher and student see the same random crop and flip. No label of the images is read; the teacher has seen those that
it was fine-tuned with. Beside it the same student, trained as many steps with these labels alone.

B images of a batch, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from eval.config import DistillConfig
from eval.encoder import new_encoder
from eval.errors import EvaluationError
from eval.features import progress_bar, threads
from eval.finetune import network_path
from eval.images import ImageSet, crop_and_flip
from eval.metrics import classifier_numbers
from eval.network import Network, StoredNetwork, new_network, read_network, write_network
from eval.subject import Subject, class_count
from eval.training import Curves, Loss, Rates, label_loss, predict, train_network
from pretrain.config import EncoderConfig

SMALLEST_WIDTH = 0.125  # 8 channels in the first stage


def distillation_loss(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean cross-entropy of the student's softened probabilities under the teacher's."""
    target_BK = (teacher_BK.float() / temperature).softmax(1)
    return temperature**2 * cross_entropy(student_BK.float() / temperature, target_BK)


def evaluate_distill(subject: Subject, config: DistillConfig) -> dict[str, Any]:
    """Train the student, measure it and its teacher, and keep it beside the result."""
    path = config.teacher or find_teacher(subject, config.label_fraction)
    teacher = read_network(path)
    source, workers = subject.source, threads(config)
    train = ImageSet(source.directory, source.train_split, images=config.train_images, workers=workers)
    test = ImageSet(source.directory, config.test_split, workers=workers)
    try:
        classes = class_count(train.labels_N, test.labels_N)
        if teacher.module.classifier.out_features != classes:
            raise EvaluationError(
                f"{path} tells {teacher.module.classifier.out_features} classes apart, {source.directory} has {classes}"
            )
        lesson = _Lesson(subject, config, teacher, train, test)
        measured = lesson.measure()
    finally:
        train.close()
        test.close()
    measured["teacher"]["file"] = str(path)
    return subject.write(
        measured,
        data={"train_images": len(train.index_N), "test_images": len(test.index_N), "classes": classes},
    )


def find_teacher(subject: Subject, label_fraction: float) -> Path:
    """The network that this run's encoder was fine-tuned to with this share of the labels.

    Raises EvaluationError where there is none, or more than one to choose from.
    """
    folders = subject.evaluation.run.path.glob("eval/finetune-*")
    paths = [network_path(folder, "pretrained", label_fraction) for folder in sorted(folders)]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise EvaluationError(
            f"{subject.evaluation.run.path} has no network fine-tuned with {100 * label_fraction:g} % of the labels; "
            f"run `python -m eval finetune` with label_fractions=[{label_fraction:g}] first, or set teacher=FILE"
        )
    if len(found) > 1:
        raise EvaluationError(f"which teacher? wanted teacher= one of {', '.join(map(str, found))}")
    return found[0]


def student_config(config: DistillConfig, teacher: EncoderConfig) -> EncoderConfig:
    """The student's encoder: as wanted, else the teacher's at half its width."""
    if config.student is not None:
        return config.student
    return teacher.model_copy(update={"width": max(teacher.width / 2, min(SMALLEST_WIDTH, teacher.width))})


@dataclass(frozen=True)
class _Lesson:
    subject: Subject
    config: DistillConfig
    teacher: StoredNetwork
    train: ImageSet
    test: ImageSet

    def measure(self) -> dict[str, Any]:
        config, device, stopwatch = self.config, self.subject.device, self.subject.stopwatch
        encoder = student_config(config, self.teacher.encoder)
        teacher = self.teacher.module.to(device).eval().requires_grad_(False)
        teacher_NK, y_N = self._test_logits(teacher)
        teacher_top1 = classifier_numbers(teacher_NK, y_N)["top1"]
        stopwatch.lap("teacher")
        student, curves, steps = self._taught(encoder, self.train.index_N, config.epochs, self._loss(teacher))
        student_NK, y_N = self._test_logits(student)
        numbers = classifier_numbers(student_NK, y_N)
        curves.test_loss[-1], curves.test_top1[-1] = numbers["test_loss"], numbers["top1"]
        stopwatch.lap("student")
        about = {**self.teacher.about, "distilled_from": "teacher", "top1": numbers["top1"]}
        path = self.subject.evaluation.directory / "networks" / "student.pt"
        write_network(path, student, encoder, about, self.teacher.labelled_n)
        return {
            "student": {
                **numbers,
                "train_loss": curves.train_loss[-1],
                "train_top1": None,  # the labels of these images are not read
                "architecture": encoder.architecture,
                "width": encoder.width,
                "parameters": _parameters(student),
            },
            "teacher": {**self.teacher.about, "top1": teacher_top1, "parameters": _parameters(teacher)},
            "agreement": 100 * float((student_NK.argmax(1) == teacher_NK.argmax(1)).double().mean()),
            "labels_only": self._labels_only(encoder, steps) if config.labels_only else None,
            "temperature": config.temperature,
            "images": len(self.train.index_N),
            "epochs": config.epochs,
            "curves": curves.to_json(),
            "reported": "last epoch",
        }

    def _labels_only(self, encoder: EncoderConfig, steps: int) -> dict[str, Any]:
        """The same student, from the teacher's labels alone, for as many steps (to a whole number of epochs)."""
        labelled_n = self.teacher.labelled_n
        per_epoch = max(1, len(labelled_n) // min(self.config.training.batch_size, len(labelled_n)))
        network, curves, _ = self._taught(encoder, labelled_n, max(1, round(steps / per_epoch)), label_loss)
        numbers = classifier_numbers(*self._test_logits(network))
        self.subject.stopwatch.lap("labels only")
        return {
            **numbers,
            "train_loss": curves.train_loss[-1],
            "train_top1": curves.train_top1[-1],
            "images": len(labelled_n),
            "epochs": len(curves.epoch),
        }

    def _taught(self, encoder: EncoderConfig, index_n: Tensor, epochs: int, loss: Loss) -> tuple[Network, Curves, int]:
        """(the student after its last epoch, its curves, its steps)."""
        config, source = self.config, self.subject.source
        classes = self.teacher.module.classifier.out_features
        network = new_network(new_encoder(encoder, seed=config.seed), classes, seed=config.seed)
        network = network.to(self.subject.device)
        run = self.subject.encoder.config.augmentation
        views = crop_and_flip(run, size_px=source.size_px, crop_area=config.training.crop_area)
        images = self.train.augmented(index_n, views, batch_size=config.training.batch_size, seed=config.seed)
        rates = Rates(config.learning_rate, config.learning_rate, config.weight_decay)
        with progress_bar(f"student on {len(index_n)} images", "steps") as advance:
            curves = train_network(
                network,
                images,
                rates,
                config.training,
                epochs=epochs,
                loss=loss,
                watch=lambda: self._test_logits(network),
                progress=advance,
            )
        if curves.diverged:
            raise EvaluationError(
                f"the student diverged in epoch {len(curves.epoch)} at learning_rate {config.learning_rate:g}; "
                "wanted a smaller one"
            )
        return network, curves, epochs * images.batches

    def _loss(self, teacher: nn.Module) -> Loss:
        temperature = self.config.temperature

        def loss(logits_BK: Tensor, pixels: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                teacher_BK = teacher(pixels)
            agreed = (logits_BK.argmax(1) == teacher_BK.argmax(1)).sum()
            return distillation_loss(logits_BK, teacher_BK, temperature), agreed

        return loss

    def _test_logits(self, network: Network) -> tuple[Tensor, Tensor]:
        size_px = self.subject.source.size_px
        batches = self.test.plain(self.test.index_N, size_px=size_px, batch_size=self.config.batch_size)
        return predict(network, batches, self.config.training)


def _parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
