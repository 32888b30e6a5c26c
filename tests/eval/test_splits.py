"""Which images may measure an encoder: labelled ones that nothing was trained on; the rest is told what it can have."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from eval.__main__ import main
from pretrain.data.catalog import beton_path, manifest_path
from pretrain.data.sources.images import Images
from pretrain.data.write_beton import Storage, write_split
from tests.eval.runs import coloured, result_of, write_run

QUICK = {
    "linear": ["l2=[0.01]"],
    "knn": [],
    "finetune": ["label_fractions=[0.5]", "epochs=1"],
    "transfer": ["l2=[0.01]"],
}


def unlabelled(images: int, *, seed: int) -> Images:
    source = coloured(images, seed=seed)
    return Images(np.full(images, -1), (), source.pixels)


@pytest.mark.parametrize("task", QUICK)
def test_test_on_train_is_refused(
    small_data: Path, tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", small_data)
    own = [f"directories=[{small_data}]"] if task == "transfer" else []
    assert main([task, str(run.path), *QUICK[task], *own, "test_split=train", "train_split=test"]) == 1
    assert "test_split: got 'train'" in capsys.readouterr().err
    if task != "transfer":
        assert main([task, str(run.path), *QUICK[task], "test_split=train"]) == 1
        assert "that a classifier learns from" in capsys.readouterr().err
    assert not list(run.path.glob("eval/*/result.json"))


def test_a_copy_of_the_training_images_is_no_test_set(
    small_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    for path in (beton_path, manifest_path):
        shutil.copy(path(data, "train"), path(data, "validation"))
    run = write_run(tmp_path / "run", data)
    assert main(["knn", str(run.path), "test_split=validation"]) == 1
    assert "the same images as the split 'train'" in capsys.readouterr().err


def test_images_without_labels_are_told_what_can_be_measured(
    tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Path(shutil.copytree(small_data, tmp_path / "data"))
    write_split(unlabelled(60, seed=5), data, dataset="synthetic", split="unlabeled", storage=Storage("raw"))
    run = write_run(tmp_path / "run", data)
    assert main(["linear", str(run.path), "train_split=unlabeled"]) == 1
    error = capsys.readouterr().err
    assert "no labels in its split 'unlabeled': expected another split (test, train have labels)" in error
    assert "bigbatch eval tsne" in error


def test_a_flat_folder_has_measures_without_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No test split, no labels: alignment, uniformity and ranks are measured, and it is said on which images."""
    data = tmp_path / "data"
    write_split(unlabelled(90, seed=5), data, dataset="synthetic", split="train", storage=Storage("raw"))
    run = write_run(tmp_path / "run", data)
    assert main(["linear", str(run.path)]) == 1
    assert "has no split 'test': expected test_split= one of train" in capsys.readouterr().err
    assert main(["tsne", str(run.path), "perplexity=10"]) == 0
    result = result_of(run, "tsne")
    assert result["data"]["test_split"] == "train"
    assert all(result[name] is not None for name in ("alignment", "uniformity", "rankme", "effective_rank"))
    assert "90 of train" in capsys.readouterr().out
