"""A folder of images, however it is made: its splits, classes and parts, and what is passed over."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.data.catalog import read_manifest
from pretrain.data.sources.registry import open_images, open_source, source_config
from pretrain.data.sources.scan import find_images
from pretrain.data.write_beton import main


def images_in(folder: Path, *names: str, salt: int = 0) -> None:
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng((salt, k)).integers(0, 256, (9, 10 + k % 5, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)


def names_of(folder: Path, split: str, *settings: str) -> list[str]:
    config = source_config("imagefolder", settings)
    source = open_images("imagefolder", split, folder, config=config)
    return sorted(str(Path(path).relative_to(folder)) for path in source.paths or ())


def test_labels_mean_the_same_in_every_split(tmp_path: Path) -> None:
    """Also where the test images have none of the first class, or one that training has not seen."""
    images_in(tmp_path / "train", "a/0.png", "b/0.png", "c/0.png")
    images_in(tmp_path / "val", "b/1.png", "c/1.png", "d/1.png")
    train, test = (open_images("imagefolder", split, tmp_path) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("a", "b", "c", "d")
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [1, 2, 3])
    train, test = (open_images("imagenet", split, tmp_path) for split in ("train", "test"))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [1, 2, 3])


def test_unlabelled_test_images_do_not_pass_for_the_test_split(tmp_path: Path) -> None:
    """Kaggle's ImageNet has test/ beside val/, its images without labels."""
    images_in(tmp_path / "train", "a/0.png", "b/0.png")
    images_in(tmp_path / "val", "a/1.png", "b/1.png")
    images_in(tmp_path / "test", "unlabelled/2.png")
    for name in ("imagenet", "imagefolder"):
        test = open_images(name, "test", tmp_path)
        assert [Path(path).name for path in test.paths or ()] == ["1.png", "1.png"]
    shutil.rmtree(tmp_path / "val")
    images_in(tmp_path / "val", "1.png")
    with pytest.raises(ValueError, match="expected one folder per class in it, got 1 images and none"):
        open_images("imagenet", "test", tmp_path)


def test_a_path_is_enough(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Flat: no labels. Folders: classes, in a lone folder too. No test split: said before, and no failure."""
    images_in(tmp_path / "flat", "0.png", "1.jpg")
    assert main([str(tmp_path / "flat"), str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert said.index("no test split") < said.index("train.beton")
    manifest = read_manifest(tmp_path / "out", "train")
    assert (manifest.dataset, manifest.images, manifest.classes) == ("imagefolder", 2, 0)
    images_in(tmp_path / "nested" / "photographs", "a/0.png", "b/deep/er/1.png")
    nested = open_images("imagefolder", "train", tmp_path / "nested")
    assert (nested.labels.tolist(), nested.class_names) == ([0, 1], ("a", "b"))
    config = source_config("imagefolder", ["labels=false"])
    assert open_images("imagefolder", "train", tmp_path / "nested", config=config).labels.tolist() == [-1, -1]
    with pytest.raises(FileNotFoundError, match="no split 'test', it has train; --hold-out"):
        open_images("imagefolder", "test", tmp_path / "nested")


def test_classes_called_train_and_car_are_no_splits(tmp_path: Path) -> None:
    images_in(tmp_path, "train/0.png", "car/0.png", "ship/0.png")
    assert open_images("imagefolder", "train", tmp_path).class_names == ("car", "ship", "train")
    images_in(tmp_path / "three", "training/a/0.png", "Testing/a/1.png", "valid/a/2.png")
    assert open_source("imagefolder", tmp_path / "three").available() == ("train", "test", "val")
    assert names_of(tmp_path / "three", "val") == ["valid/a/2.png"]


def test_a_test_split_is_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A part of each class, the same however many images join, and copies of an image stay together."""
    images_in(tmp_path / "images", *(f"a/{k}.png" for k in range(40)), *(f"b/{k}.png" for k in range(3)))
    images_in(tmp_path / "images", "c/alone.png", salt=7)
    train, test = (names_of(tmp_path / "images", split, "hold_out=0.2") for split in ("train", "test"))
    assert (len(train), len(test), len(set(train) & set(test))) == (35, 9, 0)
    assert sum(name.startswith("a/") for name in test) == 8
    assert sum(name.startswith("b/") for name in test) == 1
    for k in range(40):
        shutil.copy(tmp_path / f"images/a/{k}.png", tmp_path / f"images/b/copy of {k}.png")
    train, test = (names_of(tmp_path / "images", split, "hold_out=0.2") for split in ("train", "test"))
    for k in range(40):
        assert (f"a/{k}.png" in test) == (f"b/copy of {k}.png" in test)
    command = [str(tmp_path / "images"), str(tmp_path / "out"), "--split", "0.8/0.2"]
    assert main(command) == 0
    assert read_manifest(tmp_path / "out", "train").images == len(train)
    assert main([*command[:2], "--hold-out", "0.2"]) == 0
    assert main([*command[:2], "--hold-out", "0.3"]) == 1
    assert "'hold_out': 0.2" in capsys.readouterr().err
    assert main([str(tmp_path / "images"), str(tmp_path / "out"), "--split", "0.8"]) == 1
    assert "expected two parts, for example 0.9/0.1" in capsys.readouterr().err


def test_what_is_passed_over_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Hidden files and folders, links that lead back or to nothing, other files; an image counts once."""
    images = tmp_path / "images"
    images_in(images, "a/0.png", "a/1.JPG", "b/2.gif", "b/3.jfif", ".ipynb_checkpoints/0.png", "a/._0.png", "logo.png")
    (images / "a/notes.txt").write_text("")
    (images / "a/README").write_text("")
    (images / "a/back").symlink_to(images)
    (images / "a/none.png").symlink_to("nothing.png")
    (images / "0 link.png").symlink_to(images / "a/0.png")
    (images / "b/link.png").symlink_to(images / "a/0.png")
    found = find_images(images)
    assert found.files == ["logo.png", "a/0.png", "a/1.JPG", "b/2.gif", "b/3.jfif"]
    assert found.left_out == {
        "hidden": 2, "links to a folder above": 1, "links to nothing": 1, ".txt files": 1, "files without a suffix": 1,
        "links to images that are here already": 2,
    }  # fmt: skip
    assert main([str(images), str(tmp_path / "out")]) == 0
    manifest = read_manifest(tmp_path / "out", "train")
    assert (manifest.images, manifest.class_names) == (4, ("a", "b"))
    assert manifest.left_out == {**found.left_out, "images beside the folders of classes": 1}
    said = capsys.readouterr().out
    assert "left out: 2 hidden" in said or "2 links to images that are here already" in said


def test_the_order_is_torchvisions(tmp_path: Path) -> None:
    """So that data sets which were written before stay the same."""
    from torchvision import datasets

    names = (
        "a/1.png",
        "a/b/0.png",
        "a b/2.png",
        "a/b c/0.png",
        "A/0.png",
        "a/b.png",
        "a-b/x.PNG",
        "10/a.png",
        "9/b.png",
    )
    images_in(tmp_path / "train", *names)
    ours, theirs = open_images("imagefolder", "train", tmp_path), datasets.ImageFolder(str(tmp_path / "train"))
    assert list(zip(map(str, ours.paths or ()), ours.labels.tolist(), strict=True)) == theirs.samples


def test_only_takes_what_a_line_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in its folder and not its namesake; a class of two words; nothing that is not there."""
    names = [f"{name}/{k}.png" for name in ("cat", "dog", "golden", "golden retriever") for k in range(2)]
    images_in(tmp_path / "train", *names, "dog/alone.png")

    def taken(*lines: str) -> list[str]:
        source = open_images("imagefolder", "train", tmp_path, frozenset(lines))
        return [str(Path(path).relative_to(tmp_path / "train")) for path in source.paths or ()]

    assert taken("cat/0.png") == ["cat/0.png"]
    assert taken("train/cat/0.png", "alone.png") == ["cat/0.png", "dog/alone.png"]
    assert taken("golden retriever") == ["golden retriever/0.png", "golden retriever/1.png"]
    with pytest.raises(ValueError, match=r"'0\.png' \(several files: cat/0\.png, dog/0\.png\)"):
        taken("0.png")
    with pytest.raises(ValueError, match="none of its images is in a class and a file that --only names"):
        taken("cat", "golden retriever/1.png")
    (tmp_path / "names").write_text("cat\ndog/0.png\n")
    command = ["imagefolder", str(tmp_path / "out"), "--source-dir", str(tmp_path), "--only", str(tmp_path / "names")]
    assert main(command) == 1
    assert "--only names" in capsys.readouterr().err
