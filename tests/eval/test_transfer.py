"""Transfer to other data sets: rows, the choice of L2 on a validation split, and what is refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from eval.__main__ import main
from eval.config import WIDE_L2, TransferConfig
from eval.features import Features
from eval.metrics import accuracy_percent
from eval.tasks.linear import fit_logistic
from eval.tasks.probe import measure_linear
from pretrain.data.write_beton import Storage, write_split
from tests.eval.runs import coloured, result_of, write_data, write_run


def test_a_row_for_each_data_set(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_data(tmp_path / "other", train=120, test=48)
    source = coloured(60, seed=3)
    write_split(source, other, dataset="synthetic", split="validation", storage=Storage("raw"))
    run = write_run(tmp_path / "run", small_data)
    arguments = ["transfer", str(run.path), "l2=[0.1, 0.001]"]
    assert main([*arguments, f"directories=[{small_data}, {other}]"]) == 0
    result = result_of(run, "transfer")
    assert [(row["train_images"], row["test_images"], row["validation"]) for row in result["rows"]] == [
        (240, 60, "held out"),
        (120, 48, "held out"),
    ]
    assert result["mean_top1"] == pytest.approx(sum(row["top1"] for row in result["rows"]) / 2)
    assert result["mean_top1"] > 60
    assert "mean of top-1" in capsys.readouterr().out
    first = set(run.path.glob("eval/transfer-*"))
    assert main([*arguments, f"directories=[{other}]", "validation_split=validation"]) == 0
    (path,) = set(run.path.glob("eval/transfer-*")) - first
    assert '"validation": "validation"' in (path / "result.json").read_text()
    assert '"train_images": 180' in (path / "result.json").read_text(), "the chosen L2 is fitted to both"


def test_validation_split_chooses_and_only_it() -> None:
    generator = torch.Generator().manual_seed(0)
    y_N = torch.randint(3, (400,), generator=generator)
    x_ND = torch.randn(3, 8, generator=generator)[y_N] + 1.5 * torch.randn(400, 8, generator=generator)
    everything = Features(x_ND, y_N, torch.arange(400))
    validation_N = torch.arange(400) >= 250
    config = TransferConfig(directories=(Path("x"),), l2=(3.0, 0.1, 1e-6), standardize=False)
    measured = measure_linear(everything, everything, config, classes=3, held_out_N=validation_N)
    for row in measured["grid"]:
        fit = fit_logistic(x_ND[:250], y_N[:250], classes=3, l2=row["l2"])
        expected = accuracy_percent(fit.logits(x_ND[250:]), y_N[250:])
        assert row["held_out"] == pytest.approx(expected, abs=1.4)
    best = max(row["held_out"] for row in measured["grid"])
    assert measured["l2"] == next(row["l2"] for row in measured["grid"] if row["held_out"] == best)


def test_wide_grid_is_a_quarter_decade_apart() -> None:
    assert (len(WIDE_L2), WIDE_L2[0], WIDE_L2[-1]) == (45, 1e2, 1e-9)
    assert all(1.7 < one / two < 1.9 for one, two in itertools.pairwise(WIDE_L2))


def test_refusals(small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", small_data)
    assert main(["transfer", str(run.path)]) == 2
    assert "directories: is required" in capsys.readouterr().err
    assert main(["transfer", str(run.path), f"directories=[{small_data}]", "validation_split=test"]) == 2
    assert "expected a third one" in capsys.readouterr().err
    assert main(["transfer", str(run.path), f"directories=[{tmp_path / 'nowhere'}]"]) == 1
    assert "bigbatch data write" in capsys.readouterr().err
