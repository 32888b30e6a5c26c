"""Files that ffcv reads, written whole or not at all."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import numpy as np
import pytest

from pretrain.data.beton import format as beton
from pretrain.data.catalog import beton_path, manifest_path, read_manifest
from pretrain.data.ffcv_loader import _uncompiled  # imports ffcv
from pretrain.data.renderer import Renderer
from pretrain.data.sources.images import Images
from pretrain.data.sources.synthetic import synthetic
from pretrain.data.write_beton import Storage, main, write_split
from tests.data.conftest import RAW_IMAGES, photographs


def snapshot(directory: Path) -> dict[str, tuple[int, str]]:
    return {
        path.name: (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in directory.iterdir()
    }


@pytest.mark.parametrize("os_cache", [True, False])
@pytest.mark.parametrize("stored_as", ["raw", "jpg"])
def test_stock_ffcv_reads_the_file(tmp_path: Path, stored_as: str, os_cache: bool) -> None:
    """ffcv's own loader, decoders and order, mapped and paged; with its compilation off, to save time."""
    from ffcv.fields.basics import IntDecoder
    from ffcv.fields.rgb_image import SimpleRGBImageDecoder
    from ffcv.loader import Loader, OrderOption
    from ffcv.transforms import ToTensor

    images, side = 40, 300  # raw: 10.8 MB, more than one page
    source = synthetic("train", images, side)
    storage = Storage("raw") if stored_as == "raw" else Storage("jpg", None, 90)
    write_split(source, tmp_path, dataset="synthetic", split="train", storage=storage)
    pipelines = {"image": [SimpleRGBImageDecoder(), ToTensor()], "label": [IntDecoder(), ToTensor()]}
    ours = Renderer(beton.read_table(beton_path(tmp_path, "train")), 1)
    with _uncompiled():
        loader = Loader(
            str(beton_path(tmp_path, "train")), batch_size=8, num_workers=1, os_cache=os_cache, seed=0,
            order=OrderOption.SEQUENTIAL, pipelines=pipelines,
        )  # fmt: skip
        seen = 0
        for pixels, labels in loader:
            for image, label in zip(pixels.numpy(), labels.flatten().tolist(), strict=True):
                wanted = (source.pixels(seen) if stored_as == "raw" else ours.original(seen)).astype(int)
                # ffcv decodes with the faster, rougher DCT.
                assert np.abs(image - wanted).mean() <= (0 if stored_as == "raw" else 3)
                assert label == source.labels[seen]
                seen += 1
    assert seen == images


def test_the_same_bytes_as_ffcvs_own_writer(tmp_path: Path) -> None:
    """Every structure but the header's and the descriptors' unused bytes, compared by reading both with one reader."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    source = photographs(9)
    samples = [(source.pixels(k), int(source.labels[k])) for k in range(9)]
    theirs_path = tmp_path / "theirs.beton"
    writer = DatasetWriter(str(theirs_path), {"image": RGBImageField("raw"), "label": IntField()}, num_workers=1)
    writer.from_indexed_dataset(samples)
    write_split(source, tmp_path, dataset="imagefolder", split="train", storage=Storage("raw"))
    ours, theirs = beton.read_table(beton_path(tmp_path, "train")), beton.read_table(theirs_path)
    for name in ("offset_N", "size_N", "height_N", "width_N", "mode_N", "label_N"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), err_msg=name)
    assert beton_path(tmp_path, "train").read_bytes() == theirs_path.read_bytes()


def test_manifest_says_what_the_file_holds(raw_directory: Path) -> None:
    manifest = read_manifest(raw_directory, "train")
    table = beton.read_table(beton_path(raw_directory, "train"))
    assert (manifest.images, manifest.classes, manifest.side_px, manifest.format) == (RAW_IMAGES, 10, 32, "raw")
    assert manifest.bytes == beton_path(raw_directory, "train").stat().st_size
    assert manifest.labels_sha256 == hashlib.sha256(table.label_N.astype("<i8").tobytes()).hexdigest()
    images = (synthetic("train", RAW_IMAGES).pixels(k).tobytes() for k in range(RAW_IMAGES))
    crc32_N = np.array([zlib.crc32(image) for image in images], "<u4")
    assert manifest.blocks_crc32 == (zlib.crc32(crc32_N.tobytes()),)


def test_the_command_is_idempotent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["synthetic", str(tmp_path)]) == 0
    before = snapshot(tmp_path)
    assert sorted(before) == ["test.beton", "test.json", "train.beton", "train.json"]
    capsys.readouterr()
    assert main(["synthetic", str(tmp_path)]) == 0
    assert snapshot(tmp_path) == before
    assert capsys.readouterr().out.count("already written, skipped") == 2
    assert main(["synthetic", str(tmp_path), "--format", "jpg"]) == 1
    assert "--force replaces it" in capsys.readouterr().err
    manifest_path(tmp_path, "test").unlink()  # as after a crash between the two renames
    assert main(["synthetic", str(tmp_path)]) == 0
    after = snapshot(tmp_path)
    assert {name: digest for name, (_, digest) in after.items()} == {n: digest for n, (_, digest) in before.items()}
    assert after["train.beton"] == before["train.beton"]
    assert after["test.beton"][0] != before["test.beton"][0]
    assert main(["synthetic", str(tmp_path), "--force", "--splits", "train"]) == 0
    assert snapshot(tmp_path)["train.beton"][0] != before["train.beton"][0]


def test_the_command_explains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, wanted in (
        (["cifar_10"], "did you mean 'cifar10'"),
        (["imagefolder"], "--source-dir"),
        (["synthetic", "--splits", "val"], "synthetic has train, test"),
        (["imagefolder", "--source-dir", str(tmp_path / "none")], "no such folder"),
    ):
        assert main([arguments[0], str(tmp_path / "out"), *arguments[1:]]) == 1
        assert wanted in capsys.readouterr().err


def test_threads_and_reduction_keep_order(tmp_path: Path) -> None:
    source = photographs(20)
    storage = Storage("jpg", 60, 90)
    one = write_split(source, tmp_path / "1", dataset="imagefolder", split="train", storage=storage)
    four = write_split(source, tmp_path / "4", dataset="imagefolder", split="train", storage=storage, workers=4)
    assert one == four
    table = beton.read_table(beton_path(tmp_path / "4", "train"))
    assert max(table.height_N.max(), table.width_N.max()) == 60
    for k in range(20):
        height, width = source.pixels(k).shape[:2]
        scale = min(1.0, 60 / max(height, width))
        assert (table.height_N[k], table.width_N[k]) == (round(height * scale), round(width * scale))


def test_damaged_files_are_refused(raw_directory: Path, tmp_path: Path) -> None:
    content = bytearray(beton_path(raw_directory, "train").read_bytes())
    cut = tmp_path / "cut.beton"
    cut.write_bytes(content[:-100])
    with pytest.raises(ValueError, match="cut short"):
        beton.read_table(cut)
    pointer = beton.HEADER.itemsize + 2 * beton.FIELD.itemsize + 5
    content[pointer : pointer + 8] = (len(content) + 5).to_bytes(8, "little")
    cut.write_bytes(content)
    with pytest.raises(ValueError, match="1 samples point to no image"):
        beton.read_table(cut)
    cut.write_bytes(b"PK\3\4" + bytes(100))
    with pytest.raises(ValueError, match=r"expected a \.beton file of version 2"):
        beton.read_table(cut)


def test_labels_may_be_missing(tmp_path: Path) -> None:
    """-1 for unlabelled images survives."""
    source = Images(np.full(4, -1), (), synthetic("train", 4).pixels)
    write_split(source, tmp_path, dataset="stl10", split="unlabeled", storage=Storage("raw"))
    assert read_manifest(tmp_path, "unlabeled").classes == 0
    assert beton.read_table(beton_path(tmp_path, "unlabeled")).label_N.tolist() == [-1] * 4
