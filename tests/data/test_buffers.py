"""Memory is used again only when nobody can see it any more."""

from __future__ import annotations

import gc
import threading

import pytest
import torch

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
