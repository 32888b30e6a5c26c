"""Fine-tuning from the command to the table: who gets which labels, what is chosen how, what an interruption costs."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from eval import training as trainer
from eval.__main__ import main
from eval.classifier import new_network, read_network, write_network
from eval.config import TrainingSettings
from eval.encoder import new_encoder
from eval.images import ImageSet, crop_and_flip
from eval.metrics import balanced_subset, held_out_mask
from eval.tasks import finetune
from eval.training import Rates, predict, train_network
from pretrain.config import AugmentationConfig, EncoderConfig
from pretrain.dist import Groups
from tests.eval.runs import SIDE, result_of, write_data, write_run

TINY = EncoderConfig(architecture="resnet18", width=0.125, stem="strided")
SETTINGS = [
    "label_fractions=[0.2, 0.6]",
    "epochs=3",
    "encoder_learning_rates=[0.0, 0.5]",
    "head_learning_rates=[2.0]",
    "training={batch_size: 12, test_every_epochs: 2}",
    "l2=[0.1, 0.001]",
]


def test_balanced_subset_takes_equally_many_whatever_the_order() -> None:
    generator = torch.Generator().manual_seed(0)
    y_N = torch.randint(5, (3000,), generator=generator)
    index_N = torch.arange(3000) * 7
    few_n = balanced_subset(y_N, index_N, fraction=0.01, seed=3)
    assert torch.bincount(y_N[few_n]).tolist() == [6] * 5
    many_n = balanced_subset(y_N, index_N, fraction=0.1, seed=3)
    assert set(few_n.tolist()) < set(many_n.tolist())
    order_N = torch.randperm(3000, generator=generator)
    other_n = balanced_subset(y_N[order_N], index_N[order_N], fraction=0.1, seed=3)
    assert set(index_N[order_N][other_n].tolist()) == set(index_N[many_n].tolist())
    assert set(balanced_subset(y_N, index_N, fraction=0.1, seed=4).tolist()) != set(many_n.tolist())
    assert torch.equal(balanced_subset(y_N, index_N, fraction=1.0, seed=3), torch.arange(3000))


def test_small_classes_give_what_they_have_and_every_class_something() -> None:
    y_N = torch.tensor([0] * 96 + [1] * 4 + [3] * 100)
    assert torch.bincount(y_N[balanced_subset(y_N, torch.arange(200), fraction=0.5, seed=0)]).tolist() == [33, 4, 0, 33]
    assert len(balanced_subset(y_N, torch.arange(200), fraction=1e-6, seed=0)) == 3


def test_labelled_images_are_not_the_held_out_ones() -> None:
    index_N = torch.arange(20000)
    few_n = balanced_subset(index_N % 10, index_N, fraction=0.1, seed=0)
    share = float(held_out_mask(few_n, fraction=0.1, seed=0).double().mean())
    assert 0.08 < share < 0.12, "the two hashes are unrelated"


def test_training_is_nesterov_with_a_cosine(small_data: Path) -> None:
    """Against the update written out: v = m v + g + wd w, w -= lr (g + wd w + m v); no decay of biases and norms."""
    train = ImageSet(small_data, "train", images=96)
    images = train.augmented(train.index_N, crop_and_flip(AugmentationConfig(), size_px=SIDE), batch_size=32, seed=5)
    settings, rates = TrainingSettings(batch_size=32), Rates(encoder=0.3, head=1.5, weight_decay=0.01)
    trained = new_network(new_encoder(TINY, seed=1), 6, seed=2)
    curves = train_network(trained, images, rates, settings, epochs=2, groups=Groups())
    expected = new_network(new_encoder(TINY, seed=1), 6, seed=2).train()
    velocity = {name: torch.zeros_like(value) for name, value in expected.named_parameters()}
    losses = []
    for step, batch in enumerate(batch for epoch in range(2) for batch in images.epoch(epoch)):
        loss = nn.functional.cross_entropy(expected(batch.views[:, 0] / 255), batch.labels)
        losses.append(float(loss.detach()))
        expected.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        factor = 32 / 256 * 0.5 * (1 + math.cos(math.pi * step / 6))
        for name, value in expected.named_parameters():
            assert value.grad is not None
            gradient = value.grad + (0.01 * value.detach() if value.dim() > 1 else 0.0)
            velocity[name] = 0.9 * velocity[name] + gradient
            rate = factor * (1.5 if name.startswith("classifier") else 0.3)
            value.data -= rate * (gradient + 0.9 * velocity[name])
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, atol=2e-5, rtol=1e-4, msg=name)
    assert curves.train_loss == pytest.approx([sum(losses[:3]) / 3, sum(losses[3:]) / 3], abs=1e-4)
    train.close()


def test_table_from_start_to_result(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert main(["finetune", str(run.path), *SETTINGS]) == 0
    result = result_of(run, "finetune")
    assert "top1" not in result, "there is no one number of a table"
    assert [(row["name"], row["label_fraction"], row["images"]) for row in result["rows"]] == [
        (name, fraction, images)
        for name in ("random", "supervised", "linear", "fine-tuned")
        for fraction, images in ((0.2, 48), (0.6, 144))
    ]
    by_name = {(row["name"], row["label_fraction"]): row for row in result["rows"]}
    tuned = by_name["fine-tuned", 0.6]
    held_out = {row["encoder_learning_rate"]: row["held_out"] for row in tuned["grid"]}
    assert held_out[0.5] > held_out[0.0], "the colours are easier to tell when the encoder learns too"
    assert tuned["hyperparameters"]["encoder_learning_rate"] == 0.5
    assert tuned["top1"] > 60
    assert [row["held_out"] is not None for row in tuned["grid"]] == [True, True]
    assert tuned["curves"]["epoch"] == [1, 2, 3]
    assert [value is None for value in tuned["curves"]["test_top1"]] == [True, False, False]
    assert tuned["curves"]["test_top1"][-1] == tuned["top1"]
    assert sum(map(sum, tuned["confusion"])) == 60
    assert by_name["linear", 0.6]["hyperparameters"]["l2"] in (0.1, 0.001)
    assert by_name["random", 0.6]["top1"] != by_name["linear", 0.6]["top1"], "another encoder"
    printed = capsys.readouterr().out
    assert f"{tuned['top1']:.2f} (" in printed
    assert "20 %: 48" in printed
    stored = read_network(finetune.network_path(next(run.path.glob("eval/finetune-*")), "pretrained", 0.6))
    test = ImageSet(small_data, "test")
    batches = test.plain(test.index_N, size_px=SIDE, batch_size=60)
    logits_NK, y_N = predict(stored.module, batches, TrainingSettings())
    assert 100 * float((logits_NK.argmax(1) == y_N).double().mean()) == pytest.approx(tuned["top1"])
    assert len(stored.labelled_n) == 144
    test.close()


def test_interrupted_evaluation_goes_on_with_the_rows_it_has(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = write_run(tmp_path / "run", small_data)
    arguments = ["finetune", str(run.path), "label_fractions=[0.1]", "methods=[finetune]", "epochs=1"]
    trained: list[Any] = []

    def counted(network: nn.Module, *rest: Any, **settings: Any) -> Any:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(network)
        return train_network(network, *rest, **settings)  # type: ignore[arg-type]

    monkeypatch.setattr(trainer, "train_network", counted)
    with pytest.raises(KeyboardInterrupt):
        main(arguments)
    assert not list(run.path.glob("eval/finetune-*/result.json"))
    monkeypatch.setattr(trainer, "train_network", lambda *a, **k: trained.append(0) or train_network(*a, **k))
    assert main(arguments) == 0
    assert len(trained) == 2, "one before the interruption, one after it"
    assert [row["name"] for row in result_of(run, "finetune")["rows"]] == ["supervised", "fine-tuned"]


def test_held_out_images_choose_and_are_fitted_only_afterwards(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[Tensor] = []
    augmented = ImageSet.augmented

    def watched(images: ImageSet, index_n: Tensor, *rest: Any, **settings: Any) -> Any:
        fitted.append(index_n)
        return augmented(images, index_n, *rest, **settings)

    monkeypatch.setattr(ImageSet, "augmented", watched)
    run = write_run(tmp_path / "run", small_data)
    arguments = ["methods=[finetune]", "initialisations=[pretrained]", "label_fractions=[0.5]", "epochs=1"]
    assert main(["finetune", str(run.path), *arguments, "head_learning_rates=[0.1, 1.0]"]) == 0
    *choosing, final = fitted
    held_out_n = final[held_out_mask(final, fraction=0.1, seed=0)]
    assert len(final) == 120
    assert len(held_out_n) > 3
    assert len(choosing) == 2
    for index_n in choosing:
        assert set(index_n.tolist()) == set(final.tolist()) - set(held_out_n.tolist())


def test_test_labels_choose_nothing(small_data: Path, tmp_path: Path) -> None:
    """The same training images beside wrongly labelled test images: only what was measured on the test set changes."""
    other = write_data(tmp_path / "data", shift_test=1)
    rows = []
    for name, data in (("one", small_data), ("two", other)):
        run = write_run(tmp_path / name, data)
        chosen = ["initialisations=[pretrained]", "label_fractions=[0.2]", "epochs=1"]
        assert main(["finetune", str(run.path), *SETTINGS, *chosen]) == 0
        rows.append(result_of(run, "finetune")["rows"])
    for one, two in zip(*rows, strict=True):
        for key in ("grid", "hyperparameters", "train_loss", "train_top1"):
            assert one[key] == two[key], (one["method"], key)
        assert one["test_loss"] != two["test_loss"]


def test_divergence_leaves_no_result(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", small_data)
    arguments = ["finetune", str(run.path), "methods=[finetune]", "label_fractions=[1]", "epochs=2"]
    assert main([*arguments, "encoder_learning_rates=[1.0e30]"]) == 1
    assert "encoder_learning_rates 1e+30" in capsys.readouterr().err
    assert not list(run.path.glob("eval/*/result.json"))
    assert main([*arguments, "initialisations=[random]", "encoder_learning_rates=[1.0e30, 0.1]"]) == 0
    (row,) = result_of(run, "finetune")["rows"]
    assert row["hyperparameters"]["encoder_learning_rate"] == 0.1
    assert row["grid"][0]["held_out"] is None


@pytest.mark.parametrize("damage", ["cut", "foreign", "missing", "other weights"])
def test_unusable_network_is_refused(tmp_path: Path, damage: str) -> None:
    from eval.result import EvaluationError

    path = tmp_path / "network.pt"
    network = new_network(new_encoder(TINY, seed=0), 6, seed=0)
    write_network(path, network, TINY, {}, torch.arange(3))
    assert torch.equal(read_network(path).module.classifier.weight, network.classifier.weight)
    match damage:
        case "cut":
            path.write_bytes(path.read_bytes()[:900])
        case "foreign":
            torch.save({"model": {}}, path)
        case "missing":
            path.unlink()
        case _:
            content = torch.load(path, weights_only=True)
            content["model"]["classifier.weight"] = Tensor([1.0])
            torch.save(content, path)
    with pytest.raises(EvaluationError, match=r"network\.pt"):
        read_network(path)
