"""The catalogue: light to import, right about sizes, helpful when something is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pretrain.data.catalog import image_count, manifest_path, read_manifest
from pretrain.data.sources.registry import SOURCES, source_class
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
    with pytest.raises(FileNotFoundError, match=rf"write_beton cifar10 {tmp_path}$"):
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
