"""Sources read the official formats, written here in miniature, and explain what is missing."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from pretrain.data.catalog import beton_path, read_manifest
from pretrain.data.sources.images import Images
from pretrain.data.sources.registry import SOURCES, open_images
from pretrain.data.write_beton import main


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def save_images(folder: Path, *names: str, side: int = 12) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(noise(side, side + k, 3)).save(folder / name)


def write_idx(path: Path, array: np.ndarray) -> None:
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def known(monkeypatch: pytest.MonkeyPatch, dataset: Any, attribute: str, folder: Path) -> None:
    """Let torchvision take the files of ``folder`` for the official ones."""
    rows = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name, *_ in getattr(dataset, attribute)]
    monkeypatch.setattr(dataset, attribute, rows)


@pytest.mark.parametrize(("name", "split"), [("cifar10", "train"), ("cifar10", "test"), ("cifar100", "train")])
def test_cifar(name: str, split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pickled batches: rows of 3072 bytes, the red plane first; fine labels for CIFAR-100."""
    dataset: Any = datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100
    folder = tmp_path / dataset.base_folder
    folder.mkdir()
    key, meta_key = ("labels", "label_names") if name == "cifar10" else ("fine_labels", "fine_label_names")
    files = [row[0] for row in (dataset.train_list if split == "train" else dataset.test_list)]
    rows = noise(4 * len(files), 3072)
    for k, file in enumerate(files):
        batch = {"data": rows[4 * k : 4 * k + 4], key: [k, 1, 2, 3], "coarse_labels": [9] * 4}
        (folder / file).write_bytes(pickle.dumps(batch))
    for other in {row[0] for row in dataset.train_list + dataset.test_list} - set(files):
        (folder / other).write_bytes(b"")
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps({meta_key: [f"class {k}" for k in range(10)]}))
    digest = hashlib.md5((folder / dataset.meta["filename"]).read_bytes()).hexdigest()
    monkeypatch.setattr(dataset, "meta", {**dataset.meta, "md5": digest})
    for attribute in ("train_list", "test_list"):
        known(monkeypatch, dataset, attribute, folder)
    source = open_images(name, split, tmp_path)
    assert source.labels.tolist() == [label for k in range(len(files)) for label in (k, 1, 2, 3)]
    assert source.class_names[3] == "class 3"
    for index in (0, len(rows) - 1):
        np.testing.assert_array_equal(source.pixels(index), rows[index].reshape(3, 32, 32).transpose(1, 2, 0))


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Binary files, images by columns, labels from 1; 100,000 unlabelled ones."""
    folder = tmp_path / datasets.STL10.base_folder
    folder.mkdir()
    images = {"train": noise(3, 3, 96, 96), "test": noise(2, 3, 96, 96)[::-1], "unlabeled": noise(4, 3, 96, 96)}
    for split, array in images.items():
        (folder / f"{split}_X.bin").write_bytes(array.tobytes())
    (folder / "train_y.bin").write_bytes(bytes([1, 10, 3]))
    (folder / "test_y.bin").write_bytes(bytes([2, 2]))
    (folder / "class_names.txt").write_text("\n".join(f"class {k}" for k in range(10)))
    (folder / "fold_indices.txt").write_text("")
    for attribute in ("train_list", "test_list"):
        known(monkeypatch, datasets.STL10, attribute, folder)
    for split, labels in (("train", [0, 9, 2]), ("test", [1, 1]), ("unlabeled", [-1] * 4)):
        source = open_images("stl10", split, tmp_path)
        assert source.labels.tolist() == labels
        np.testing.assert_array_equal(source.pixels(1), images[split][1].transpose(2, 1, 0))
    assert source.class_names[9] == "class 9"


def test_tiny_imagenet(tmp_path: Path) -> None:
    for wnid in ("n02", "n01"):
        save_images(tmp_path / "train" / wnid / "images", f"{wnid}_0.JPEG", f"{wnid}_1.JPEG")
        (tmp_path / "train" / wnid / f"{wnid}_boxes.txt").write_text("")
    save_images(tmp_path / "val" / "images", "val_0.JPEG", "val_1.JPEG")
    annotations = tmp_path / "val" / "val_annotations.txt"
    annotations.write_text("val_0.JPEG\tn02\t0\t0\t62\t63\nval_1.JPEG\tn01\t1\t2\t3\t4\n")
    train, test = (open_images("tiny_imagenet", split, tmp_path) for split in ("train", "test"))
    assert (train.class_names, train.labels.tolist()) == (("n01", "n02"), [0, 0, 1, 1])
    assert (test.class_names, test.labels.tolist()) == (("n01", "n02"), [1, 0])
    assert test.pixels(1).shape == (12, 13, 3)
    annotations.write_text("val_0.JPEG\tn03\t0\t0\t62\t63\n")
    with pytest.raises(ValueError, match="'n03' is none of the 2 classes"):
        open_images("tiny_imagenet", "test", tmp_path)


def tar(path: Path, files: dict[str, bytes]) -> bytes:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path.read_bytes()


def test_imagenet_from_its_archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar of tars for training, a flat tar for validation, labels and names from the development kit."""
    save_images(tmp_path / "images", *(f"{k}.JPEG" for k in range(4)))
    jpeg = [(tmp_path / "images" / f"{k}.JPEG").read_bytes() for k in range(4)]
    wnids = ("n07", "n03")  # numbered 1, 2 in the kit, sorted by name in the folders
    inner = {f"{w}.tar": tar(tmp_path / "x.tar", {f"{w}_5.JPEG": jpeg[k]}) for k, w in enumerate(wnids)}
    synsets = np.zeros((2, 1), [(n, object) for n in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children")])
    for k, wnid in enumerate(wnids):
        synsets[k, 0] = (k + 1, wnid, f"thing {k}, stuff", "", 0)
    savemat(tmp_path / "meta.mat", {"synsets": synsets})
    kit, data = "ILSVRC2012_devkit_t12", tmp_path / "official"
    data.mkdir()
    files = {
        "train": ("ILSVRC2012_img_train.tar", inner),
        "val": ("ILSVRC2012_img_val.tar", {f"ILSVRC2012_val_0000000{k}.JPEG": jpeg[k] for k in (1, 2, 3)}),
        "devkit": (f"{kit}.tar.gz", {
            f"{kit}/data/meta.mat": (tmp_path / "meta.mat").read_bytes(),
            f"{kit}/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n1\n",
        }),
    }  # fmt: skip
    meta = {
        key: (name, hashlib.md5(tar(data / name, content)).hexdigest()) for key, (name, content) in files.items()
    }  # fmt: skip
    monkeypatch.setattr("torchvision.datasets.imagenet.ARCHIVE_META", meta)
    for _ in range(2):  # from the archives, then from the folders they became
        train, test = (open_images("imagenet", split, data) for split in ("train", "test"))
        assert (train.class_names, train.labels.tolist()) == (("n03", "n07"), [0, 1])
        assert test.labels.tolist() == [0, 1, 1]
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "ILSVRC2012_img_val.tar").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match="archives cannot be unpacked"):
        open_images("imagenet", "test", tmp_path / "alone")


@pytest.fixture
def three_classes(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for wnid in ("n01", "n02", "n03"):
            save_images(tmp_path / split / wnid, *(f"{wnid}_{split}_{k}.JPEG" for k in range(3)))
    return tmp_path


def test_classes_by_name(three_classes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As ImageNet-100 is given: the other classes vanish, from both splits, and the numbers close ranks."""
    names = three_classes / "imagenet2.txt"
    names.write_text("n03\nn01 tench, Tinca tinca\n\n")
    out = str(three_classes / "out")
    command = ["imagenet", out, "--source-dir", str(three_classes), "--only", str(names)]
    assert main(command) == 0
    for split in ("train", "test"):
        manifest = read_manifest(out, split)
        assert (manifest.images, manifest.classes, manifest.class_names) == (6, 2, ("n01", "n03"))
    assert main(command) == 0
    assert capsys.readouterr().out.count("already written, skipped") == 2
    assert main(command[:4]) == 1  # all of ImageNet is something else
    assert "--only names; --force replaces it" in capsys.readouterr().err


def test_files_by_name(three_classes: Path) -> None:
    """As SimCLR's 1 % and 10 % lists are given: all classes stay, and their numbers."""
    only = frozenset({"n02_train_1.JPEG", "n03_train_0.JPEG"})
    source = open_images("imagenet", "train", three_classes, only)
    assert (source.labels.tolist(), len(source.class_names)) == ([1, 2], 3)
    assert source.paths is not None
    assert {Path(path).name for path in source.paths} == only
    with pytest.raises(ValueError, match="1 of 2 names are neither classes nor files there: 'n20'"):
        open_images("imagenet", "train", three_classes, frozenset({"n02", "n20"}))
    with pytest.raises(ValueError, match="cifar10 is not a folder of files"):
        open_images("cifar10", "train", three_classes, only)


def test_image_folders(tmp_path: Path) -> None:
    """Grey and palette images too; the test split may be called val."""
    for split in ("train", "val"):
        for label, name in enumerate(("cat", "dog")):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            Image.new("L" if label else "P", (20, 10 + label), 7).save(folder / "a.png")
    source = open_images("imagefolder", "test", tmp_path)
    assert (source.class_names, source.labels.tolist()) == (("cat", "dog"), [0, 1])
    assert source.pixels(1).shape == (11, 20, 3)
    (tmp_path / "val" / "cat" / "a.png").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cat/a\.png: not an image"):
        open_images("imagefolder", "test", tmp_path).pixels(0)


@pytest.mark.parametrize("shape", [(5, 8, 9), (5, 8, 9, 1), (5, 8, 9, 3)])
def test_a_pair_of_numpy_files(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = noise(*shape)
    np.save(tmp_path / "train_images.npy", images)
    np.save(tmp_path / "train_labels.npy", np.array([3, 0, 1, 1, 0], np.uint8))
    source = open_images("arrays", "train", tmp_path)
    assert (source.labels.tolist(), source.class_names) == ([3, 0, 1, 1, 0], ("0", "1", "2", "3"))
    np.testing.assert_array_equal(source.pixels(4), np.broadcast_to(images.reshape(5, 8, 9, -1)[4], (8, 9, 3)))
    (tmp_path / "train_labels.npy").unlink()
    assert open_images("arrays", "train", tmp_path).labels.tolist() == [-1] * 5


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_pair_of_idx_files(tmp_path: Path, end: str) -> None:
    images = noise(3, 28, 28)
    write_idx(tmp_path / f"t10k-images-idx3-ubyte{end}", images)
    write_idx(tmp_path / f"t10k-labels-idx1-ubyte{end}", np.array([4, 0, 9], np.uint8))
    source = open_images("arrays", "test", tmp_path)
    assert source.labels.tolist() == [4, 0, 9]
    np.testing.assert_array_equal(source.pixels(2), np.repeat(images[2][:, :, None], 3, axis=2))
    assert main(["arrays", str(tmp_path / "out"), "--source-dir", str(tmp_path), "--splits", "test"]) == 0
    assert beton_path(tmp_path / "out", "test").is_file()


def test_wrong_arrays_are_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"expected train_images\.npy and .*or train-images-idx3"):
        open_images("arrays", "train", tmp_path)
    np.save(tmp_path / "train_images.npy", noise(5, 3, 8, 9))
    with pytest.raises(ValueError, match=r"got uint8 of shape \(5, 3, 8, 9\), expected uint8 \(N, H, W\)"):
        open_images("arrays", "train", tmp_path)
    np.save(tmp_path / "train_images.npy", noise(5, 8, 9))
    np.save(tmp_path / "train_labels.npy", np.zeros(4, int))
    with pytest.raises(ValueError, match=r"5 images, but labels are int64 of shape \(4,\)"):
        open_images("arrays", "train", tmp_path)
    for content in (b"no idx", struct.pack(">BBBBI", 0, 0, 8, 1, 9) + b"123"):
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(content)
        with pytest.raises(ValueError, match="t10k-images-idx3-ubyte: damaged, or not an idx file"):
            open_images("arrays", "test", tmp_path)


def fashion(split: str, folder: Path, monkeypatch: pytest.MonkeyPatch, variable: bool) -> Images:
    if variable:
        monkeypatch.setenv("BIGBATCH_FASHION_MNIST", str(folder))
    return open_images("fashion_mnist", split, None if variable else folder)


@pytest.mark.parametrize("variable", [True, False])
@pytest.mark.parametrize("layout", ["package", "torchvision"])
def test_fashion_mnist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, variable: bool) -> None:
    """As Debian packages it, or as torchvision has downloaded it."""
    if layout == "torchvision" and variable:
        monkeypatch.setenv("HOME", str(tmp_path))
    cache = tmp_path / ".cache" / "bigbatch" if variable else tmp_path
    folder = tmp_path if layout == "package" else cache / "FashionMNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, images in (("train", noise(5, 28, 28)), ("t10k", noise(3, 28, 28))):
        end = ".gz" if layout == "package" else ""
        write_idx(folder / f"{prefix}-images-idx3-ubyte{end}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{end}", np.arange(len(images), dtype=np.uint8))
    source = fashion("test", tmp_path, monkeypatch, variable)
    assert (source.labels.tolist(), source.class_names[9]) == (
        [0, 1, 2],
        "ankle boot" if layout == "package" else "Ankle boot",
    )
    np.testing.assert_array_equal(source.pixels(2)[:, :, 1], noise(3, 28, 28)[2])


def test_what_cannot_be_had_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", unreachable)
    with pytest.raises(FileNotFoundError, match=rf"cifar10: not in {tmp_path}.*no route to host.*--source-dir"):
        open_images("cifar10", "train", tmp_path)
    for name in ("imagenet", "imagefolder", "tiny_imagenet", "arrays"):
        with pytest.raises(FileNotFoundError, match="--source-dir"):
            open_images(name, "train", None)
    assert {"imagenet", "arrays", "synthetic"} <= set(SOURCES)
