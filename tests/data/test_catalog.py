"""The catalogue: light to import, right about sizes, helpful when something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from eval.config import FeatureConfig
from eval.features import FeatureSource
from eval.result import EvaluationError
from pretrain.config import AugmentationConfig, DataConfig, PretrainConfig, run_fingerprint
from pretrain.data.beton.format import read_table
from pretrain.data.catalog import beton_path, existing_beton, image_count, manifest_path, read_manifest
from pretrain.data.loader import build_loader
from pretrain.data.renderer import Renderer
from pretrain.data.sources.images import Images
from pretrain.data.sources.registry import SOURCES, source_class
from pretrain.data.sources.synthetic import synthetic
from pretrain.data.write_beton import Storage, write_split
from tests.data.conftest import RAW_IMAGES


def test_importing_it_loads_nothing_heavy() -> None:
    code = "import sys, pretrain.data.catalog; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "numba", "pydantic", "ffcv"} & set(loaded)


def test_counts(raw_directory: Path, tmp_path: Path) -> None:
    assert image_count("synthetic", raw_directory, "train") == RAW_IMAGES  # what is written counts first
    assert image_count("cifar10", tmp_path, "train") == 50_000
    assert image_count("imagefolder", tmp_path, "train") is None
    for info in SOURCES.values():
        assert set(info.images) <= set(info.splits)


def test_missing_or_broken_manifests_are_explained(raw_directory: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"data write cifar10 {tmp_path}$"):
        read_manifest(tmp_path, "train", "cifar10")
    manifest_path(tmp_path, "train").write_text("{")
    with pytest.raises(ValueError, match="not a manifest"):
        read_manifest(tmp_path, "train")
    text = manifest_path(raw_directory, "train").read_text()
    manifest_path(tmp_path, "train").write_text(text.replace('"classes"', '"klasses"'))
    with pytest.raises(ValueError, match="unknown or missing: classes, klasses"):
        read_manifest(tmp_path, "train")
    with pytest.raises(ValueError, match="did you mean 'imagenet'"):
        source_class("imagnet")


def test_classes_numbered_differently_are_noticed_where_splits_meet(tmp_path: Path) -> None:
    """As files are that were written when every split had a numbering of its own. Fewer classes are no other ones."""
    for split, names in (("train", "abc"), ("test", "bc"), ("val", "ab"), ("unlabeled", "")):
        labels = np.arange(4) % len(names) if names else np.full(4, -1)
        images = Images(labels, tuple(names), synthetic("train", 4).pixels)
        write_split(images, tmp_path, dataset="imagefolder", split=split, storage=Storage("raw"))
    with pytest.raises(
        EvaluationError, match=r"train and imagefolder test number .* label 0 is 'a' there and 'b' here"
    ):
        FeatureSource(None, tmp_path, "train", 8, FeatureConfig())
    for test in ("val", "unlabeled"):
        FeatureSource(None, tmp_path, "train", 8, FeatureConfig(test_split=test))


def test_files_of_ffcvs_own_writer_need_no_manifest(tmp_path: Path) -> None:
    """Mixed as its mode `proportion` makes them, too: libturbojpeg then still decodes what is JPEG."""
    from ffcv.fields import IntField, RGBImageField
    from ffcv.writer import DatasetWriter

    source = synthetic("train", 40, side=64)
    field = RGBImageField("proportion", compress_probability=0.5)
    writer = DatasetWriter(str(beton_path(tmp_path, "train")), {"image": field, "label": IntField()}, num_workers=1)
    writer.from_indexed_dataset([(source.pixels(k), int(source.labels[k])) for k in range(40)])
    manifest = read_manifest(tmp_path, "train")
    assert (manifest.images, manifest.classes, manifest.format, manifest.widest_px) == (40, 10, "jpg", 64)
    assert image_count("anything", tmp_path, "train") == 40
    config = DataConfig(dataset="anything", directory=tmp_path, loader="beton")
    loader = build_loader(config, AugmentationConfig(crop_size_px=16), seed=0, global_batch_size=8)
    assert next(iter(loader.epoch(0))).labels.max() < 10
    loader.close()
    renderer = Renderer(read_table(beton_path(tmp_path, "train")), 1)
    assert renderer._turbojpeg
    index_n = np.arange(40)
    pixels, start_n = renderer.decoded(index_n)
    for index, start in zip(index_n, start_n, strict=True):
        np.testing.assert_array_equal(pixels[start : start + 3 * 64 * 64], renderer.original(index).reshape(-1))


def test_a_path_stands_for_a_folder_of_images(tmp_path: Path) -> None:
    """In `data.dataset` as on the command line; where it lies is no part of a run's identity."""
    write_split(synthetic("train", 4), tmp_path / "out", dataset="imagefolder", split="train", storage=Storage("raw"))
    assert existing_beton(str(tmp_path / "photographs"), tmp_path / "out", "train").is_file()
    assert image_count("./photographs", tmp_path / "out", "train") == 4
    assert image_count("./photographs", tmp_path, "train") is None
    paths = ("imagefolder", "/scratch/me/photographs", "./photographs")
    assert len({run_fingerprint(PretrainConfig(data=DataConfig(dataset=path))) for path in paths}) == 1
