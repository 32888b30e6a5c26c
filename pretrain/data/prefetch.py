"""Work ahead of the step: batches made by a thread of their own, and copied to the device beside the step before."""

from __future__ import annotations

import atexit
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

import torch

from pretrain.batch import Batch

T = TypeVar("T")


class PrefetchQueue(Generic[T]):
    """A bounded queue from one producing thread to one consumer; either end can stop it, and neither then hangs.

    At most ``capacity`` items wait. The producer's exception is raised where the consumer waits for an item.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._ended = self._stopped = False
        self._error: BaseException | None = None

    def put(self, item: T) -> bool:
        """Producer: wait for room, then add the item; False when the consumer has stopped and takes no more."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or len(self._items) < self._capacity)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped

    def run(self, produce: Callable[[], None]) -> None:
        """Producer's thread: put items with ``produce``, then say that nothing follows, or what it failed with."""
        try:
            produce()
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def get(self) -> T | None:
        """Consumer: the next item; None at the end. Raises what the producer failed with, after the items before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._ended or self._stopped)
            if self._items:
                item = self._items.popleft()
                self._changed.notify_all()
                return item
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """Consumer: take no more items; those that wait are dropped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()


def in_background(items: Iterator[T], *, ahead: int, name: str) -> Iterator[T]:
    """``items``, made in a thread called ``name``, at most ``ahead`` waiting; leaving early ends the thread."""
    queue: PrefetchQueue[T] = PrefetchQueue(ahead)

    def produce() -> None:
        for item in items:
            if not queue.put(item):
                return

    thread = threading.Thread(target=queue.run, args=(produce,), name=name, daemon=True)

    def end() -> None:
        queue.stop()
        thread.join()

    thread.start()
    with ended_by(end):
        while (item := queue.get()) is not None:
            yield item


@contextlib.contextmanager
def ended_by(end: Callable[[], None]) -> Iterator[None]:
    """Call ``end``, which stops a thread, when the block is left; at the latest when Python exits.

    The iterator that holds the block may never be closed. A thread that is then still inside C++ code of torch when
    the interpreter goes away aborts the process.
    """
    atexit.register(end)
    try:
        yield
    finally:
        atexit.unregister(end)
        end()


def on_device(batches: Iterator[Batch], device: torch.device) -> Generator[Batch]:
    """``batches`` in order, on ``device``; on CUDA copied in a stream of their own, one batch ahead.

    Nothing is overwritten while it is read: torch's allocator of pinned memory keeps a host buffer until the copy from
    it is over, and its allocator of device memory, told by record_stream, a batch until the step that uses it is.
    Leaving early closes ``batches``.
    """
    try:
        if device.type == "cuda":
            yield from _copied_ahead(batches, device)
        else:
            yield from (Batch(*(tensor.to(device) for tensor in batch)) for batch in batches)
    finally:
        if isinstance(batches, Generator):
            batches.close()


def _copied_ahead(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: tuple[Batch, torch.cuda.Event] | None = None
    for batch in batches:
        with torch.cuda.stream(stream):
            copied = Batch(*(tensor.to(device, non_blocking=True) for tensor in batch))
            event = stream.record_event()
        if waiting is not None:
            yield _ready(*waiting, device)
        waiting = copied, event
    if waiting is not None:
        yield _ready(*waiting, device)


def _ready(batch: Batch, event: torch.cuda.Event, device: torch.device) -> Batch:
    """The batch, for the stream that computes: work given to it from now on waits for the copy, the host does not."""
    current = torch.cuda.current_stream(device)
    current.wait_event(event)
    for tensor in batch:
        tensor.record_stream(current)
    return batch
