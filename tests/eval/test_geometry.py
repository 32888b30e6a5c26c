"""Alignment, uniformity and ranks against their definitions; the picture from the command to the files."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from eval.__main__ import main
from eval.tasks.tsne import alignment, effective_rank, rankme, uniformity
from tests.eval.runs import result_of, write_run


def test_alignment_by_hand() -> None:
    x_ND = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert alignment(x_ND, 5 * x_ND) == pytest.approx(0.0, abs=1e-12)
    assert alignment(x_ND, torch.tensor([[0.0, 1.0], [0.0, -1.0]])) == pytest.approx((2 + 4) / 2)


def test_uniformity_is_the_sum_over_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    x_ND = torch.randn(37, 5, generator=torch.Generator().manual_seed(0))
    unit = [row / row.norm() for row in x_ND.double()]
    pairs = [math.exp(-2 * float((unit[i] - unit[j]).square().sum())) for i in range(37) for j in range(37) if i != j]
    monkeypatch.setattr("eval.tasks.tsne.ROWS_AT_ONCE", 10)
    assert uniformity(x_ND) == pytest.approx(math.log(sum(pairs) / len(pairs)), abs=1e-9)
    assert uniformity(torch.ones(4, 3)) == pytest.approx(0.0, abs=1e-12)
    with pytest.raises(ValueError, match="at least 2"):
        uniformity(torch.ones(1, 3))


def test_ranks_of_known_spectra() -> None:
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(50, 8, generator=generator).double())[0]
    right = torch.linalg.qr(torch.randn(8, 8, generator=generator).double())[0]
    for singular, expected in (([1.0] * 8, 8.0), ([1.0] + [0.0] * 7, 1.0), ([3.0, 1.0] + [0.0] * 6, None)):
        x_ND = left @ torch.diag(torch.tensor(singular, dtype=torch.float64)) @ right.t()
        entropy = -sum(p * math.log(p) for p in (0.75, 0.25))
        assert rankme(x_ND) == pytest.approx(expected or math.exp(entropy), rel=1e-6)
    signs = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 2.0], [0.0, -2.0]])
    entropy = -sum(p * math.log(p) for p in (0.2, 0.8))  # of the variances 2 and 8
    assert effective_rank(signs + 100) == pytest.approx(math.exp(entropy)), "the mean is no direction of variation"
    assert rankme(signs + 100) < 1.2
    assert effective_rank(torch.ones(5, 3)) == 0.0


def test_a_row_and_a_picture_for_each_checkpoint(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", small_data, steps=(3, 6))
    assert main(["tsne", str(run.path), "checkpoints=all", "images=40", "perplexity=5"]) == 0
    result = result_of(run, "tsne")
    assert [row["step"] for row in result["rows"]] == [3, 6]
    assert result["rows"][0]["alignment"] != result["rows"][1]["alignment"]
    for row in result["rows"]:
        assert row["images"] == 40
        assert 0 < row["alignment"] < 4
        assert -4 < row["uniformity"] < 0
        assert 1 <= row["effective_rank"] <= row["features"] == 64
        (folder,) = run.path.glob("eval/tsne-*")
        with Image.open(folder / row["picture"]) as image:
            assert min(image.size) > 500
            assert len(image.convert("RGB").getcolors(10**6) or []) > 50, "six colours and their shades"
        points = list(csv.DictReader((folder / row["points"]).open()))
        assert len(points) == 40
        assert {int(point["label"]) for point in points} == set(range(6))
    assert result["rankme"] == result["rows"][1]["rankme"], "the newest stands at the top"
    assert "alignment" in capsys.readouterr().out
    assert main(["tsne", str(run.path), "images=20", "perplexity=20"]) == 1
    assert "expected less than the 20 images" in capsys.readouterr().err
