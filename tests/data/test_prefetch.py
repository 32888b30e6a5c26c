"""Batches reach the device whole, in order, and are not overwritten while they are read."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pretrain.batch import Batch
from pretrain.data.prefetch import on_device
from tests.data.test_loaders import make


def batches(number: int, rows: int = 4) -> Iterator[Batch]:
    pinned = torch.cuda.is_available()
    for k in range(number):
        views = torch.full((rows, 2, 3, 8, 8), k, dtype=torch.uint8, pin_memory=pinned)
        yield Batch(views, torch.full((rows,), k), torch.arange(rows))


def test_in_order_and_all(raw_directory: Path) -> None:
    loader = make(raw_directory, "beton")
    plain, moved = list(loader.epoch(0)), list(on_device(loader.epoch(0), torch.device("cpu")))
    loader.close()
    assert len(plain) == len(moved) > 3
    for first, second in zip(plain, moved, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_leaving_early_ends_the_thread(raw_directory: Path) -> None:
    before = threading.active_count()
    loader = make(raw_directory, "beton")
    for _batch in on_device(loader.epoch(0), torch.device("cpu")):
        break
    loader.close()
    assert threading.active_count() == before


def test_an_exit_in_the_middle_is_an_exit() -> None:
    """A script that took one item and ended was aborted ("terminate called without an active exception")."""
    busy = "(torch.empty(10).add_(1) for _ in itertools.count())"
    script = (
        f"import itertools, torch\nfrom pretrain.data.prefetch import in_background\nitems = in_background({busy}, "
    )
    done = subprocess.run(
        [sys.executable, "-c", script + "ahead=10**6, name='busy')\nnext(items)"], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_slow_steps_read_what_was_meant_for_them() -> None:
    """The host runs far ahead of the device, whose every step first waits and then reads its batch."""
    device, sums = torch.device("cuda"), []
    for batch in on_device(batches(60, rows=512), device):
        torch.cuda._sleep(5_000_000)
        sums.append(batch.views.double().mean() + batch.labels.double().mean())
    assert [float(value) for value in sums] == [2.0 * k for k in range(60)]
