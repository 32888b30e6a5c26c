"""Distillation: the loss against its definition, a student that learns from a teacher and never from labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from eval.__main__ import main
from eval.classifier import read_network
from eval.config import DistillConfig, evaluation_config
from eval.result import open_evaluation, previous_result
from eval.schema import parse_result
from eval.tasks.distill import distillation_loss, student_config
from pretrain.config import EncoderConfig
from pretrain.rundir import read_json, write_json
from tests.eval.runs import result_of, write_data, write_run

FINETUNE = ["methods=[finetune]", "initialisations=[pretrained]", "label_fractions=[0.5]", "epochs=4"]
FINETUNE += ["encoder_learning_rates=[0.5]", "head_learning_rates=[2.0]", "training={batch_size: 12}"]
DISTILL = ["label_fraction=0.5", "epochs=3", "learning_rate=1.0", "training={batch_size: 12, test_every_epochs: 2}"]


def test_loss_is_the_definition_and_its_gradient_keeps_its_size() -> None:
    generator = torch.Generator().manual_seed(0)
    student_BK, teacher_BK = torch.randn(2, 9, 5, generator=generator).double()
    for temperature in (0.1, 1.0, 4.0):
        p_BK, log_q_BK = (teacher_BK / temperature).softmax(1), (student_BK / temperature).log_softmax(1)
        expected = -(temperature**2) * float((p_BK * log_q_BK).sum(1).mean())
        assert float(distillation_loss(student_BK, teacher_BK, temperature)) == pytest.approx(expected, rel=1e-5)
    norms = []
    for temperature in (30.0, 60.0):
        leaf_BK = student_BK.clone().requires_grad_()
        (gradient_BK,) = torch.autograd.grad(distillation_loss(leaf_BK, teacher_BK, temperature), leaf_BK)
        norms.append(float(gradient_BK.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_student_learns_what_the_teacher_says_and_reads_no_label(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another data set with the same images and wrong test labels: the same student, to the last bit."""
    students = []
    for name, data in (("one", small_data), ("two", write_data(tmp_path / "data", shift_test=1))):
        run = write_run(tmp_path / name, data)
        if name == "one":
            assert main(["finetune", str(run.path), *FINETUNE]) == 0
            (teacher,) = run.path.glob("eval/finetune-*/networks/pretrained-0.5.pt")
            assert main(["distill", str(run.path), *DISTILL]) == 0
        else:
            assert main(["distill", str(run.path), *DISTILL, f"teacher={teacher}", "labels_only=false"]) == 0
        (path,) = run.path.glob("eval/distill-*/networks/student.pt")
        students.append((read_network(path), result_of(run, "distill")))
    (one, honest), (two, wrong) = students
    for key, value in one.module.state_dict().items():
        assert torch.equal(two.module.state_dict()[key], value), key
    assert honest["teacher"]["top1"] > 60
    assert honest["student"]["top1"] > wrong["student"]["top1"]
    assert honest["agreement"] == wrong["agreement"] > 60
    assert honest["curves"]["train_loss"][-1] < honest["curves"]["train_loss"][0]
    assert honest["curves"]["test_top1"][-1] == honest["student"]["top1"]
    assert [value is None for value in honest["curves"]["test_top1"]] == [True, False, False]
    assert honest["labels_only"]["images"] == 120
    assert honest["labels_only"]["epochs"] == 6, "as many steps as on all 240 images"
    assert wrong["labels_only"] is None
    assert "student, labels only" in capsys.readouterr().out
    evaluation = open_evaluation("distill", tmp_path / "one", evaluation_config("distill", DISTILL))
    assert previous_result(evaluation) == parse_result(honest, evaluation.directory)
    teacher.write_bytes(teacher.read_bytes() + b" ")
    assert previous_result(evaluation) is None, "another teacher, another student"
    teacher.unlink()
    assert previous_result(evaluation) == parse_result(honest, evaluation.directory), (
        "what nobody can repeat still stands"
    )


def test_student_is_half_as_wide_or_as_wanted() -> None:
    teacher = EncoderConfig(architecture="resnet50", width=2.0)
    assert student_config(DistillConfig(), teacher).width == 1.0
    assert student_config(DistillConfig(), teacher.model_copy(update={"width": 0.125})).width == 0.125
    wanted = EncoderConfig(architecture="resnet18")
    assert student_config(DistillConfig(student=wanted), teacher) == wanted


def test_without_a_teacher_it_says_how_to_get_one(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert main(["distill", str(run.path)]) == 1
    assert "label_fractions=[0.1] first" in capsys.readouterr().err
    for name in "ab":
        path = run.path / f"eval/finetune-{name}/networks/pretrained-0.1.pt"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not a network")
    assert main(["distill", str(run.path)]) == 1
    assert "label_fractions=[0.1] first" in capsys.readouterr().err, "what an unfinished evaluation left is no teacher"
    of_run = {"fingerprint": read_json(run.result)["fingerprint"], "step": 3, "finished": True}
    for name in "ab":
        result = {"task": "finetune", "fingerprint": name, "run": of_run}
        write_json(run.path / f"eval/finetune-{name}/result.json", result)
    assert main(["distill", str(run.path)]) == 1
    assert "which teacher?" in capsys.readouterr().err
    assert main(["distill", str(run.path), f"teacher={path}"]) == 1
    assert "cannot be read as a network" in capsys.readouterr().err
