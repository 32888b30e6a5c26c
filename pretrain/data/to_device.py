"""Batches on the device that trains: on CUDA each is copied beside the step before it."""

from __future__ import annotations

from collections.abc import Generator, Iterator

import torch

from pretrain.data.batch import Batch


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
