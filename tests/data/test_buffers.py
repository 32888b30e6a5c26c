"""Memory is used again only when nobody can see it any more."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
import torch

from pretrain.data import buffers
from pretrain.data.buffers import BatchMemory


@pytest.fixture(autouse=True)
def _without_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # pinned memory is torch's own affair


def test_memory_comes_back_when_the_last_view_is_gone() -> None:
    memory = BatchMemory()
    first = memory.take(4, 5)
    address = first.data_ptr()
    assert memory.take(4, 5).data_ptr() != address
    view, array = first[1:3, 2], first.numpy()
    del first
    for holder in (view, array):
        assert memory.take(20).data_ptr() != address
        del holder
    del view
    assert memory.take(20).data_ptr() != address
    del array
    assert memory.take(2, 10).data_ptr() == address


def test_memory_of_another_size_is_dropped() -> None:
    memory = BatchMemory(keep=3)
    batches = [memory.take(10) for _ in range(6)]
    del batches
    assert len(memory._unused) == 3
    other = memory.take(11)
    assert (other.shape, len(memory._unused)) == ((11,), 0)


def test_many_threads() -> None:
    """Each writes its own number into what it was given, and finds it there."""
    memory, wrong = BatchMemory(), []

    def work(number: int) -> None:
        for _ in range(300):
            tensor = memory.take(1000)
            tensor.fill_(number)
            gc.collect(0)
            if not bool((tensor == number).all()):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    """Of the group and of those above it, as Slurm and containers set them; what is cached of files can be had."""
    monkeypatch.setattr(buffers, "_PROC", tmp_path / "proc")
    monkeypatch.setattr(buffers, "_GROUPS", tmp_path / "groups")
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 900 kB\nMemAvailable:    800 kB\n")
    assert buffers.available_bytes() == 800 * 1024
    (tmp_path / "proc/self/cgroup").write_text("0::/job/step\n" if version == 2 else "9:memory:/job/step\n5:cpu:/\n")
    job = tmp_path / "groups" / ("" if version == 2 else "memory") / "job"
    (job / "step").mkdir(parents=True)
    limit, used, cached = {
        1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        2: ("memory.max", "memory.current", "inactive_file"),
    }[version]
    for folder, figures in ((job, ("500000", "300000", "100000")), (job / "step", ("max", "300000", "0"))):
        (folder / limit).write_text(figures[0])
        (folder / used).write_text(figures[1])
        (folder / "memory.stat").write_text(f"anon 7\n{cached} {figures[2]}\n")
    assert buffers.available_bytes() == 300_000
