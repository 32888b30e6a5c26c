"""Many heads at once against one torch optimizer each; SimCLR's protocol from the command to the result."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from eval.__main__ import main
from eval.config import LinearConfig, SgdSettings
from eval.features import Features
from eval.metrics import held_out_mask
from eval.result import EvaluationError
from eval.tasks.linear_sgd import _cached, fit_heads
from eval.tasks.sgd_heads import Heads, HeadSettings, with_ones
from tests.eval.runs import result_of, write_run

GRID = [(0.05, 0.0), (0.5, 0.0), (0.5, 0.01), (2.0, 0.1)]


def data(images: int, *, seed: int = 0, scale: float = 1.0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    y_N = torch.randint(4, (images,), generator=generator)
    centres_KD = torch.randn(4, 7, generator=torch.Generator().manual_seed(9))
    x_ND = scale * (centres_KD[y_N] + torch.randn(images, 7, generator=generator))
    return Features(x_ND, y_N, torch.arange(images))


@pytest.mark.parametrize("masked", [False, True])
def test_every_head_is_a_torch_optimizer_of_its_own(masked: bool) -> None:
    train = data(120)
    held_out_N = held_out_mask(train.indices_N, fraction=0.3, seed=0)
    settings = [HeadSettings(rate, decay, not masked or i == 0) for i, (rate, decay) in enumerate(GRID)]
    heads = Heads(settings, features=7, classes=4, momentum=0.9, device=torch.device("cpu"))
    factors = [1.0, 0.7, 0.3]
    batches = list(torch.arange(120).view(3, 40))
    for index_B, factor in zip(batches, factors):
        heads.step(with_ones(train.x_ND[index_B]), train.labels_N[index_B], held_out_N[index_B], factor=factor)
    loss_H, _ = heads.end_epoch()
    for h, setting in enumerate(settings):
        reference = nn.Linear(7, 4).requires_grad_()
        nn.init.zeros_(reference.weight)
        nn.init.zeros_(reference.bias)
        groups = [
            {"params": [reference.weight], "weight_decay": setting.weight_decay},
            {"params": [reference.bias], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
        losses, right, seen = 0.0, 0, 0
        for index_B, factor in zip(batches, factors):
            used_B = index_B if setting.fits_held_out else index_B[~held_out_N[index_B]]
            for group in optimizer.param_groups:
                group["lr"] = factor * setting.learning_rate
            logits_BK = reference(train.x_ND[used_B])
            loss = nn.functional.cross_entropy(logits_BK, train.labels_N[used_B])
            losses += float(loss.detach()) * len(used_B)
            right += int((logits_BK.argmax(1) == train.labels_N[used_B]).sum())
            seen += len(used_B)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        expected_NK = reference(train.x_ND).detach()
        torch.testing.assert_close(heads.logits(h, with_ones(train.x_ND)), expected_NK, atol=1e-4, rtol=1e-4)
        assert float(loss_H[h]) == pytest.approx(losses / seen, abs=1e-5)
        if h:  # at zero all classes are equal, and which of equals is the guess is not the point
            measured_loss_H, measured_H = heads.measure(with_ones(train.x_ND), train.labels_N)
            expected = float(nn.functional.cross_entropy(expected_NK, train.labels_N))
            assert float(measured_loss_H[h]) == pytest.approx(expected, abs=1e-5)
            accuracy = 100 * float((expected_NK.argmax(1) == train.labels_N).double().mean())
            assert float(measured_H[h]) == pytest.approx(accuracy, abs=1e-6)


def test_the_first_batch_is_at_chance_not_all_right() -> None:
    train = data(400)
    heads = Heads([HeadSettings(0.1, 0.0)], features=7, classes=4, momentum=0.9, device=torch.device("cpu"))
    heads.step(with_ones(train.x_ND), train.labels_N, None, factor=1.0)
    assert float(heads.end_epoch()[1][0]) == pytest.approx(25, abs=8)


def test_one_setting_has_its_held_out_accuracy_too() -> None:
    """Base learning rates of pretraining are compared by it, not by the test set."""
    config = LinearConfig(sgd=SgdSettings(epochs=3, batch_size=50, augmented=False))
    alone = fit(data(200), data(80, seed=1), config)
    wrong = data(80, seed=1)
    again = fit(data(200), Features(wrong.x_ND, (wrong.labels_N + 1) % 4, wrong.indices_N), config)
    assert 0 < alone["held_out_top1"] == again["held_out_top1"] == alone["grid"][0]["held_out"]


def test_a_diverged_head_is_never_chosen_and_spoils_no_other() -> None:
    train, test = data(200, scale=1e3), data(80, seed=1, scale=1e3)
    config = LinearConfig(sgd=SgdSettings(learning_rates=(1e36, 1e-4), epochs=3, batch_size=50, augmented=False))
    measured = fit(train, test, config)
    assert [row["held_out"] is None for row in measured["grid"]] == [True, False]
    assert measured["learning_rate"] == 1e-4
    assert math.isfinite(measured["test_loss"])
    with pytest.raises(EvaluationError, match="diverged"):
        fit(train, test, LinearConfig(sgd=SgdSettings(learning_rates=(1e36,), epochs=3, augmented=False)))


def test_one_setting_of_a_grid_is_what_it_is_alone() -> None:
    train, test = data(300), data(100, seed=1)

    def trained(rates: tuple[float, ...], decays: tuple[float, ...]) -> dict:  # type: ignore[type-arg]
        sgd = SgdSettings(learning_rates=rates, weight_decays=decays, epochs=4, batch_size=50, augmented=False)
        return fit(train, test, LinearConfig(sgd=sgd))

    grid = trained((1e-4, 1.0), (0.0, 0.01))
    best = max(row["held_out"] for row in grid["grid"])
    assert next(row for row in grid["grid"] if row["held_out"] == best)["learning_rate"] == grid["learning_rate"]
    alone = trained((grid["learning_rate"],), (grid["weight_decay"],))
    assert (grid["heads"], alone["heads"], len(alone["grid"])) == (4, 1, 1)
    assert grid["test_loss"] == pytest.approx(alone["test_loss"], abs=1e-5)
    assert grid["curves"]["test_loss"] == pytest.approx(alone["curves"]["test_loss"], abs=1e-5)
    assert grid["curves"]["epoch"] == [1, 2, 3, 4]
    assert grid["curves"]["test_top1"][-1] == pytest.approx(grid["top1"])
    assert grid["curves"]["train_loss"][-1] == grid["train_loss"] < grid["curves"]["train_loss"][0]


def test_test_labels_choose_nothing_and_held_out_ones_do() -> None:
    train, test = data(300), data(100, seed=1)
    rates = (1e-3, 0.1, 1.0, 5.0)
    config = LinearConfig(sgd=SgdSettings(learning_rates=rates, epochs=3, batch_size=50, augmented=False))
    honest = fit(train, test, config)
    wrong = fit(train, Features(test.x_ND, (test.labels_N + 1) % 4, test.indices_N), config)
    for key in ("grid", "hyperparameters", "train_loss"):
        assert honest[key] == wrong[key]
    assert wrong["top1"] < honest["top1"]
    held_out_N = held_out_mask(train.indices_N, fraction=0.1, seed=0)
    twisted_N = torch.where(held_out_N, (train.labels_N + 1) % 4, train.labels_N)
    twisted = fit(Features(train.x_ND, twisted_N, train.indices_N), test, config)
    for one, two in zip(honest["grid"], twisted["grid"]):
        assert one["train_loss"] == two["train_loss"], "held-out images are not fitted while settings are chosen"
        assert one["held_out_loss"] != two["held_out_loss"]


@pytest.mark.parametrize("augmented", [False, True])
def test_simclr_protocol_from_start_to_result(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], augmented: bool
) -> None:
    run = write_run(tmp_path / "run", small_data)
    sgd = f"sgd={{learning_rates: [0.001, 3.0], epochs: 4, batch_size: 32, augmented: {str(augmented).lower()}}}"
    assert main(["linear", str(run.path), "protocol=sgd", sgd]) == 0
    result = result_of(run, "linear")
    assert result["learning_rate"] == 3.0
    assert result["top1"] > 60
    assert len(result["curves"]["train_loss"]) == 4
    assert result["augmented"] is augmented
    assert "l2" not in result["settings"], "settings of the other protocol say nothing about this result"
    assert result["data"]["class_names"][1] == "class 1"
    assert "3, 0 out of 2 by held-out" in capsys.readouterr().out


def fit(train: Features, test: Features, config: LinearConfig) -> dict:  # type: ignore[type-arg]
    batches, steps, size = _cached(train, config)
    return fit_heads(batches, steps, size, train, test, config, classes=4)


def test_cached_batches_are_an_epoch_in_another_order_each_time() -> None:
    train = data(90)
    shuffled = torch.randperm(90, generator=torch.Generator().manual_seed(1))
    moved = Features(train.x_ND[shuffled], train.labels_N[shuffled], train.indices_N[shuffled])
    config = LinearConfig(sgd=SgdSettings(batch_size=30))
    seen: list[Tensor] = []
    for epoch in (0, 1):
        pairs = zip(_cached(train, config)[0](epoch), _cached(moved, config)[0](epoch), strict=True)
        for (x_BD, y_B, index_B), (other_x_BD, other_y_B, other_index_B) in pairs:
            assert torch.equal(x_BD, other_x_BD)
            assert torch.equal(y_B, other_y_B)
            assert torch.equal(index_B, other_index_B)
            assert torch.equal(x_BD, train.x_ND[index_B])
            seen.append(index_B)
    first, second = torch.cat(seen[:3]), torch.cat(seen[3:])
    assert torch.equal(first.sort().values, second.sort().values)
    assert not torch.equal(first, second)
