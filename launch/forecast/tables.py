"""The forecast of a study as tables for a person. Torch-free."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType

from launch.forecast.forecast import Forecast, forecast, measured_rate, usable_bytes, weak_scaling
from launch.plan.graph import StudyGraph
from launch.plan.targets import Hardware, LocalTarget, Target, visible_gpus
from launch.state import PointState
from launch.tables import TextTable

SHOWN_RANKS = (1, 8, 16, 32, 64, 128, 256, 512, 1024)


def preflight_views(graph: StudyGraph, states: list[PointState]) -> Iterator[RenderableType]:
    """What `launch plan` adds where the target has GPUs: memory, time, communication, scaling."""
    target = graph.config.target
    if not _has_gpus(target):
        return
    hardware = target.hardware
    measured = measured_rate(states)
    rate = hardware.images_per_second or measured
    found = {point.entry.name: forecast(point, target, images_per_second=rate) for point in graph.points}
    yield _table(found, hardware)
    yield from _remarks(found, hardware)
    yield from _not_counted(graph)
    if rate is None:
        yield "GPU-hours and scaling: not known before a run has finished; or give target.hardware.images_per_second"
        return
    source = "given" if hardware.images_per_second else "measured on the study's finished runs"
    hours = sum(one.gpu_hours or 0.0 for one in found.values())
    yield f"{hours:,.1f} GPU-hours in all, at {rate:,.0f} images/s on one GPU ({source})"
    yield from _scaling(graph, target, rate)


def _has_gpus(target: Target) -> bool:
    if isinstance(target, LocalTarget):
        return bool(visible_gpus()) or "hardware" in target.model_fields_set
    return getattr(target, "gpus", 1) > 0 or "hardware" in target.model_fields_set


def _table(found: dict[str, Forecast], hardware: Hardware) -> TextTable:
    table = TextTable(
        "memory and time on one GPU",
        "activations",
        "loss",
        "weights",
        f"of {hardware.gpu_memory_gb:g} GB",
        "micro-batches",
        "gathers",
        "batch norm",
        "gradients",
        "efficiency",
        "GPU-hours",
    )
    for name, one in found.items():
        memory, times = one.memory, one.times
        used = f"{100 * memory.total / usable_bytes(hardware):.0f} %"
        table.add_row(
            name,
            _gigabytes(memory.activations),
            _gigabytes(memory.loss),
            _gigabytes(memory.states),
            used if one.fits else (used, "red"),
            str(one.micro_batches),
            _milliseconds(times.gathers + times.sums),
            _milliseconds(times.batch_norm),
            _milliseconds(times.gradients),
            "–" if one.efficiency is None else f"{100 * one.efficiency:.0f} %",
            "–" if one.gpu_hours is None else f"{one.gpu_hours:,.1f}",
        )
    return table


def _remarks(found: dict[str, Forecast], hardware: Hardware) -> Iterator[str]:
    for name, one in found.items():
        if one.fits:
            continue
        total = _gigabytes(one.memory.total)
        if one.micro_batches_needed is None:
            yield f"{name}: needs {total}, and one image of each rank is too much for {hardware.gpu_memory_gb:g} GB"
        else:
            yield (
                f"{name}: needs {total} of {hardware.gpu_memory_gb:g} GB; {one.micro_batches_needed} micro-batches fit "
                f"(batch.micro_batch_size={_part(found, name)}, which batch norm then sees), or more GPUs"
            )


def _not_counted(graph: StudyGraph) -> Iterator[str]:
    """Own encoders that do not state their layers: what is predicted for them is too little."""
    encoders = {p.config.encoder.architecture for p in graph.points if not p.config.encoder.states_layers}
    for architecture in sorted(encoders):
        yield f"{architecture} does not state its layers: memory and communication are counted without the encoder"


def _part(found: dict[str, Forecast], name: str) -> int:
    one = found[name]
    assert one.micro_batches_needed is not None, "asked only where some number of micro-batches fits"
    return one.global_batch_size // one.micro_batches_needed


def _scaling(graph: StudyGraph, target: Target, rate: float) -> Iterator[RenderableType]:
    """For the point with the largest batch on each rank."""
    point = max(graph.points, key=lambda point: point.plan.batch_size_per_rank)
    table = TextTable(
        "GPUs", "global batch", "gathers", "batch norm", "gradients", "growth of the loss", "efficiency", "images/s"
    )
    for row in weak_scaling(point, target, images_per_second=rate):
        if row.ranks in SHOWN_RANKS:
            times = row.times
            table.add_row(
                f"{row.ranks:,}",
                f"{row.global_batch_size:,}",
                _milliseconds(times.gathers + times.sums),
                _milliseconds(times.batch_norm),
                _milliseconds(times.gradients),
                _milliseconds(row.loss_seconds),
                f"{100 * row.efficiency:.0f} %",
                f"{row.ranks * rate * row.efficiency:,.0f}",
            )
    yield f"predicted weak scaling of {point.entry.name}, {point.plan.batch_size_per_rank:,} images on each GPU"
    yield "(of speed alone: with another global batch it is another experiment)"
    yield table


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:,.2f} GB"


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"
