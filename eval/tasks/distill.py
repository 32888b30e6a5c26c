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

from eval.classifier import Network, StoredNetwork, new_network, read_network, write_network
from eval.config import DistillConfig
from eval.encoder import new_encoder
from eval.metrics import classifier_numbers
from eval.result import EvaluationError
from eval.subject import Subject
from eval.tasks.finetune import network_path
from eval.training import Curves, Loss, Rates, Trainer, label_loss, open_trainer
from pretrain.config import EncoderConfig
from pretrain.models.config import EncoderSettings

SMALLEST_WIDTH = 0.125  # 8 channels in the first stage


def distillation_loss(student_BK: Tensor, teacher_BK: Tensor, temperature: float) -> Tensor:
    """T^2 times the mean cross-entropy of the student's softened probabilities under the teacher's."""
    target_BK = (teacher_BK.float() / temperature).softmax(1)
    return temperature**2 * cross_entropy(student_BK.float() / temperature, target_BK)


def evaluate_distill(subject: Subject, config: DistillConfig) -> dict[str, Any]:
    """Train the student, measure it and its teacher, and keep it beside the result."""
    path = config.teacher or find_teacher(subject, config.label_fraction)
    teacher = read_network(path)
    with open_trainer(subject, config) as trainer:
        told_apart = teacher.module.classifier.out_features
        if told_apart != trainer.classes:
            raise EvaluationError(
                f"{path} tells {told_apart} classes apart, {subject.source.directory} has {trainer.classes}"
            )
        measured = _Distillation(subject, config, teacher, trainer).measure()
    measured["teacher"]["file"] = str(path)
    return subject.write(measured, data=trainer.data, inputs=[path, *subject.source.manifests()])


def find_teacher(subject: Subject, label_fraction: float) -> Path:
    """The network that this run's encoder was fine-tuned to with this share of the labels.

    Raises EvaluationError where there is none, or more than one to choose from.
    """
    folders = [result.directory for result in subject.results("finetune") if result.directory is not None]
    paths = [network_path(folder, "pretrained", label_fraction) for folder in folders]
    found = [path for path in paths if path.is_file()]
    if not found:
        raise EvaluationError(
            f"{subject.evaluation.run.path} has no network fine-tuned with {100 * label_fraction:g} % of the labels; "
            f"run `bigbatch eval finetune` with label_fractions=[{label_fraction:g}] first, or set teacher=FILE"
        )
    if len(found) > 1:
        raise EvaluationError(f"which teacher? expected teacher= one of {', '.join(map(str, found))}")
    return found[0]


def student_config(config: DistillConfig, teacher: EncoderSettings) -> EncoderConfig:
    """The student's encoder: as expected, else the teacher's at half its width."""
    if config.student is not None:
        return config.student
    if not isinstance(teacher, EncoderConfig):
        raise EvaluationError(f"{teacher.architecture} has no half of its width: say what the student is (student=...)")
    return teacher.model_copy(update={"width": max(teacher.width / 2, min(SMALLEST_WIDTH, teacher.width))})


@dataclass(frozen=True)
class _Distillation:
    """What teaching a student needs."""

    subject: Subject
    config: DistillConfig
    teacher: StoredNetwork
    trainer: Trainer

    def measure(self) -> dict[str, Any]:
        config, device, stopwatch = self.config, self.subject.device, self.subject.stopwatch
        encoder = student_config(config, self.teacher.encoder)
        teacher = self.teacher.module.to(device).eval().requires_grad_(False)
        teacher_NK, y_N = self.trainer.test_logits(teacher)
        teacher_top1 = classifier_numbers(teacher_NK, y_N)["top1"]
        stopwatch.lap("teacher")
        student, curves, steps = self._taught(encoder, self.trainer.train.index_N, config.epochs, self._loss(teacher))
        student_NK, y_N = self.trainer.test_logits(student)
        numbers = classifier_numbers(student_NK, y_N)
        curves.test_loss[-1], curves.test_top1[-1] = numbers["test_loss"], numbers["top1"]
        stopwatch.lap("student")
        about = {**self.teacher.about, "distilled_from": "teacher", "top1": numbers["top1"]}
        path = self.subject.evaluation.directory / "networks" / "student.pt"
        if self.subject.world.is_first:
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
            "images": len(self.trainer.train.index_N),
            "epochs": config.epochs,
            "curves": curves.to_json(),
            "reported": "last epoch",
        }

    def _labels_only(self, encoder: EncoderConfig, steps: int) -> dict[str, Any]:
        """The same student, from the teacher's labels alone, for as many steps (to a whole number of epochs)."""
        labelled_n = self.teacher.labelled_n
        per_epoch = max(1, len(labelled_n) // min(self.config.training.batch_size, len(labelled_n)))
        network, curves, _ = self._taught(encoder, labelled_n, max(1, round(steps / per_epoch)), label_loss)
        numbers = classifier_numbers(*self.trainer.test_logits(network))
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
        config = self.config
        network = new_network(new_encoder(encoder, seed=config.seed), self.trainer.classes, seed=config.seed)
        network = network.to(self.subject.device)
        rates = Rates(config.learning_rate, config.learning_rate, config.weight_decay)
        title = f"student on {len(index_n)} images"
        curves, steps = self.trainer.fit(network, index_n, rates, epochs=epochs, title=title, loss=loss)
        if curves.diverged:
            raise EvaluationError(
                f"the student diverged in epoch {len(curves.epoch)} at learning_rate {config.learning_rate:g}; "
                "expected a smaller one"
            )
        return network, curves, steps

    def _loss(self, teacher: nn.Module) -> Loss:
        temperature = self.config.temperature

        def loss(logits_BK: Tensor, pixels: Tensor, labels_B: Tensor) -> tuple[Tensor, Tensor]:
            with torch.no_grad():
                teacher_BK = teacher(pixels)
            agreed = (logits_BK.argmax(1) == teacher_BK.argmax(1)).sum()
            return distillation_loss(logits_BK, teacher_BK, temperature), agreed

        return loss


def _parameters(module: nn.Module) -> int:
    return sum(value.numel() for value in module.parameters())
