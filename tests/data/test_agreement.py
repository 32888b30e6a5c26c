"""Ranks that do not share one data set out among them find it before the first step, all of them, and say in what."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pretrain.data import sampler as agreement
from pretrain.data.catalog import manifest_path
from tests.data.test_loaders import make


def started(group: Any, directories: list[Path], changes: dict[str, Any]) -> str:
    """What the check on this rank says; ``changes`` of the settings are the last rank's alone."""
    rank, size = group.rank(), group.size()
    own = {"rank": rank, "world_size": size, **(changes if rank == size - 1 else {})}
    try:
        make(directories[rank % len(directories)], "beton", group=group, **own).close()
    except ValueError as error:
        return str(error)
    return "agreed"


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_right_ranks_agree(ranks: Any, raw_directory: Path, world_size: int) -> None:
    assert ranks(world_size).run(started, [raw_directory], {}) == ["agreed"] * world_size


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rank": 0}, "the ranks' parts overlap or leave images out"),
        ({"seed": 7}, "the seed differs: [1, 1, 7]"),
        ({"images": 50}, "the number of images differs: [100, 100, 50]"),
        ({"batch": 24}, "the global batch size differs: [12, 12, 24]"),
    ],
)
def test_wrong_ranks_are_told(ranks: Any, raw_directory: Path, changes: dict[str, Any], problem: str) -> None:
    for said in ranks(3).run(started, [raw_directory], changes):
        assert problem in said


def test_another_copy_of_the_data_is_noticed(ranks: Any, raw_directory: Path, tmp_path: Path) -> None:
    other = tmp_path / "raw"
    shutil.copytree(raw_directory, other)
    manifest = manifest_path(other, "train")
    text = manifest.read_text()
    manifest.write_text(text.replace('"labels_sha256": "', '"labels_sha256": "1'))
    for said in ranks(2).run(started, [raw_directory, other], {}):
        assert "the data file differs" in said
    # A copy that another version of ffcv, or a newer writer, made of the same images is the same.
    manifest.write_text(text.replace('"writer_version": 2', '"writer_version": 3').replace("1.0", "1.1"))
    assert manifest.read_text() != text
    assert ranks(2).run(started, [raw_directory, other], {}) == ["agreed"] * 2


def test_sums_of_hashes_see_what_counts_do_not() -> None:
    numbers = np.arange(1000)
    swapped = numbers.copy()
    swapped[3] = 4
    assert agreement._fingerprint(numbers) == agreement._fingerprint(numbers[::-1].reshape(10, 100))
    assert agreement._fingerprint(numbers) != agreement._fingerprint(swapped)
