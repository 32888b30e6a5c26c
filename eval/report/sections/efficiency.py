"""Speed, time and memory of the runs, and what accuracy they buy. What a run does not record is said to be missing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, round_ticks, tick_label, value_axis
from eval.report.format import DASH, count, duration, listed, percent, plain, size
from eval.report.records import grouped
from eval.report.sections.base import Cell, Column, Section, Table, cell, num, tabulate
from eval.report.table import Group, ReportData, Row, groups_of
from eval.schema import finite
from pretrain.format import plural

MOST_TARGETS = 4
DESCRIPTION = "Accuracy against training time, one mark for each setting, and images per second against the batch size"
# Runs that differ in these do other work per image: no scaling between them.
SPEED_KEYS = ("encoder.architecture", "encoder.width", "data.dataset", "precision.autocast", "objective.name")
ONLINE = "online_probe_top1"  # accuracy during training, as a fraction, where the run records it
# Relative: float32 sums in another order part two runs by this much long after they have begun.
EQUAL_LOSSES = 1e-4
NOT_RECORDED = {
    "peak_memory_bytes": "peak memory",
    "sync_batch_norm_seconds_per_step": "the cost of synchronised batch norm",
    "loss_seconds_per_step": "the cost of the loss",
}


def sections(data: ReportData) -> Iterator[Section]:
    """Throughput, time and memory of every setting with a finished training of at least one step."""
    trained = [r for r in data.rows if r.record.trained("train_seconds") and r.record.trained("total_steps")]
    groups = groups_of(trained)
    if not groups:
        return
    scaling = _scaling(groups)
    panels = tuple(panel for panel in (_time_panel(groups), _throughput_panel(groups, data.several)) if panel)
    yield Section(
        anchor="efficiency",
        title="Speed, time and memory",
        findings=tuple(_findings(groups, bool(scaling))),
        figures=(Figure("speed", DESCRIPTION, panels, 2),) if panels else (),
        tables=(_table(groups), *scaling, *_targets(groups)),
    )
    yield from repeated(data)


def _findings(groups: Sequence[Group], scaling: bool) -> Iterator[str]:
    rates = sorted((rate, g.first.setting) for g in groups if (rate := g.mean("images_per_second")))
    if rates:
        ends = (
            [count(rates[0][0])] if len(rates) == 1 else [f"{count(rate)} ({s})" for rate, s in (rates[0], rates[-1])]
        )
        yield f"Training runs at {' to '.join(ends)} images a second, data loading included."
    records = [row.record for group in groups for row in group.rows]
    machines = {str(record.environment["host"]) for record in records if record.environment.get("host")}
    if len(machines) > 1:
        yield f"The runs come from {len(machines)} machines: compare times with care."
    if not scaling:
        ranks = {group.first.ranks for group in groups}
        why = "no two numbers of ranks share a batch size per rank"
        if len(ranks) == 1:
            why = f"every run used {plural(ranks.pop(), 'rank')}"
        yield f"Weak-scaling efficiency: not known, {why}."
    absent = [text for key, text in NOT_RECORDED.items() if all(record.trained(key) is None for record in records)]
    if absent:
        yield f"Not recorded by these runs: {listed(absent)}."


def _table(groups: Sequence[Group]) -> Table:
    columns: dict[str, Column[Group]] = {
        "Setting": lambda g: cell(g.first.label),
        "Ranks": lambda g: num(g.first.ranks, count),
        "Batch per rank": lambda g: num(_batch_per_rank(g), count),
        "Images/s": lambda g: num(g.mean("images_per_second"), count),
        "Images/s and rank": lambda g: num(_rate_per_rank(g), count),
        "ms/step": lambda g: num(_step_ms(g), lambda value: plain(value, 1)),
        "Training": lambda g: num(g.mean("train_seconds"), duration),
        "Images seen": lambda g: num(g.mean("images_seen"), count),
        "Loss memory/rank": lambda g: num(g.first.plan("loss_bytes_per_rank"), size),
        "Peak memory": lambda g: num(g.mean("peak_memory_bytes"), size),
        "Sync batch norm": _part_of_step("sync_batch_norm_seconds_per_step"),
        "Loss": _part_of_step("loss_seconds_per_step"),
    }
    known = {name: make for name, make in columns.items() if any(make(group).sort is not None for group in groups)}
    note = "Means over seeds. Peak memory is of the process that wrote the result; the loss's is planned, not measured."
    if known.keys() & {"Sync batch norm", "Loss"}:
        note += (
            " Batch norm's communication and the loss were timed when the runs started, under whatever load there was."
        )
    return tabulate("Throughput and cost", groups, known, note=note)


def _scaling(groups: Sequence[Group]) -> list[Table]:
    """Images a second and rank at one batch size per rank, against the fewest ranks that have it."""

    def kind(group: Group) -> tuple[object, ...]:
        run = group.first
        return _batch_per_rank(group), *(repr(run.study.value(run.record, key)) for key in SPEED_KEYS)

    rows = []
    for members in grouped(groups, kind).values():
        ordered = sorted(members, key=lambda group: group.first.ranks)
        base = _rate_per_rank(ordered[0])
        if len({group.first.ranks for group in members}) > 1 and base:
            rows += [(g, None if (rate := _rate_per_rank(g)) is None else 100 * rate / base) for g in ordered]
    columns: dict[str, Column[tuple[Group, float | None]]] = {
        "Setting": lambda row: cell(row[0].first.label),
        "Batch per rank": lambda row: num(_batch_per_rank(row[0]), count),
        "Ranks": lambda row: num(row[0].first.ranks, count),
        "Images/s and rank": lambda row: num(_rate_per_rank(row[0]), count),
        "Efficiency": lambda row: num(row[1], lambda share: percent(share, 0)),
    }
    note = "Against the fewest ranks with the same batch per rank."
    return [tabulate("Weak scaling", rows, columns, note=note)] if rows else []


def _targets(groups: Sequence[Group]) -> list[Table]:
    """Images and time until an accuracy is reached: by the online probe where runs record it, else at their end."""
    reached = [(group, path) for group in groups if (path := _path(group))]
    asked = [max(top for _, _, top in path) for group, path in reached if not group.first.baseline]
    if len(set(asked)) < 2:
        return []
    targets = round_ticks(min(asked), max(asked), MOST_TARGETS)
    rows = []
    for group, path in reached:
        cells = [cell(group.first.label)]
        for target in targets:
            first = next(((images, seconds) for images, seconds, top in path if top >= target), None)
            text = "not reached" if first is None else f"{count(first[0])} images, {duration(first[1])}"
            cells.append(Cell(text, None if first is None else first[0]))
        rows.append(tuple(cells))
    online = any(_online(row) for group, _ in reached for row in group.rows)
    how = "by the online probe, during training" if online else "by the evaluation at the end: the way is not recorded"
    headers = ("Setting", *(f"{target:g} %" for target in targets))
    return [Table("Images and time to accuracy", headers, tuple(rows), note=f"Mean over seeds, {how}.")]


def _path(group: Group) -> list[tuple[float, float, float]]:
    """(images seen, seconds, accuracy in percent) during training, means over seeds; else the end alone."""
    online = [_online(row) for row in group.rows]
    if all(online):
        return [(sum(i) / len(i), sum(s) / len(s), sum(t) / len(t)) for i, s, t in (zip(*at) for at in zip(*online))]
    images, seconds, top1 = group.mean("images_seen"), group.mean("train_seconds"), group.top1
    return [] if images is None or seconds is None or top1 is None else [(images, seconds, top1)]


def _online(row: Row) -> list[tuple[float, float, float]]:
    found, seconds, last = [], 0.0, 0.0
    batch = row.plan("global_batch_size") or 0.0
    for values in row.record.curves:
        step, rate, top1 = (finite(values.get(key)) for key in ("step", "images_per_second", ONLINE))
        if step is not None:
            seconds += (step - last) * batch / rate if rate else 0.0
            last = step
            found += [] if top1 is None else [(step * batch, seconds, 100 * top1)]
    return found


def _time_panel(groups: Sequence[Group]) -> Panel | None:
    """Accuracy against training time, one mark a setting: what is bought, and what it costs."""
    places = [(g, s, t) for g in groups if (s := g.mean("train_seconds")) is not None and (t := g.top1) is not None]
    if len({round(seconds, 6) for _, seconds, _ in places}) < 2:
        return None
    longest = max(seconds for _, seconds, _ in places)
    unit, factor = ("hours", 3600.0) if longest > 5400 else ("minutes", 60.0) if longest > 90 else ("seconds", 1.0)
    studies = grouped(places, lambda place: place[0].first.study.label)
    series: list[Series] = []
    for study, own in studies.items():
        marks = (Mark(s / factor, t, tip=f"{g.first.label}\n{percent(t)}\n{duration(s)}") for g, s, t in own)
        series.append(Series(study, len(series), tuple(marks), joined=False))
    return Panel(
        title="Accuracy against training time",
        x=value_axis([s / factor for _, s, _ in places], ticks=4, floor=0.0),
        y=value_axis([top1 for _, _, top1 in places], ticks=5, floor=0.0, top=100.0),
        x_label=f"Training time ({unit})",
        y_label=groups[0].first.study.metric_label,
        series=tuple(series),
    )


def _throughput_panel(groups: Sequence[Group], several: bool) -> Panel | None:
    """Images a second against the batch size, for each number of ranks of each study."""
    known = [g for g in groups if g.first.plan("global_batch_size") and g.mean("images_per_second")]
    series: list[Series] = []
    for (study, ranks), own in grouped(known, lambda g: (g.first.study.label, g.first.ranks)).items():
        label = f"{study}, {plural(ranks, 'rank')}" if several else plural(ranks, "rank")
        batches = grouped(own, lambda g: g.first.plan("global_batch_size") or 0.0)
        marks = tuple(_rate_mark(batch, batches[batch], label) for batch in sorted(batches))
        series.append(Series(label, len(series), marks))
    if not any(len(s.marks) > 1 for s in series):
        return None
    marks = tuple(mark for s in series for mark in s.marks)
    return Panel(
        title="Throughput",
        x=category_axis((mark.x for mark in marks), "log2"),
        y=value_axis([0.0, *(value for mark in marks for value in mark.heights)], ticks=5, floor=0.0),
        x_label="Batch size (images)",
        y_label="Images per second",
        series=tuple(series),
        dodge=len(series) > 1,
    )


def _rate_mark(batch: float, groups: Sequence[Group], label: str) -> Mark:
    rates = [rate for g in groups for row in g.rows if (rate := row.record.trained("images_per_second"))]
    mean = sum(rates) / len(rates)
    tip = f"{label}, batch size = {tick_label(batch)}\n{count(mean)} images/s, mean of {plural(len(rates), 'run')}"
    if len(rates) == 1:
        return Mark(batch, mean, tip=tip)
    low, high = min(rates), max(rates)
    return Mark(batch, mean, low, high, f"{tip}\nfrom {count(low)} to {count(high)}")


def _batch_per_rank(group: Group) -> float | None:
    batch = group.first.plan("global_batch_size")
    return None if batch is None else batch / group.first.ranks


def _rate_per_rank(group: Group) -> float | None:
    rate = group.mean("images_per_second")
    return None if rate is None else rate / group.first.ranks


def _step_ms(group: Group) -> float | None:
    seconds, steps = group.mean("train_seconds"), group.mean("total_steps")
    return 1000 * seconds / steps if seconds is not None and steps else None


def _part_of_step(key: str) -> Callable[[Group], Cell]:
    """Milliseconds, and what part of a step they are."""

    def make(group: Group) -> Cell:
        seconds, step_ms = group.mean(key), _step_ms(group)
        if seconds is None or not step_ms:
            return Cell(DASH)
        return Cell(f"{1000 * seconds:.1f} ms, {percent(100_000 * seconds / step_ms, 1)} of a step", seconds)

    return make


def repeated(data: ReportData) -> Iterator[Section]:
    """A sentence for each run that was repeated on other ranks: how far the two agree, and how much seeds differ."""
    runs = grouped(data.rows, lambda row: (row.study.label, row.record.point.fingerprint))
    pairs = [(first, other) for first, *others in runs.values() for other in others if other.ranks != first.ranks]
    findings = tuple(_agreement(data, first, other) for first, other in pairs)
    if findings:
        remark = "The number of ranks is no part of a run's configuration: whatever differs here is rounding."
        yield Section("ranks", "The same run on other ranks", findings, remark)


def _agreement(data: ReportData, first: Row, other: Row) -> str:
    where = f"{first.label}, seed {first.seed}, on {plural(first.ranks, 'rank')} and on {other.ranks}"
    parts = [_losses(first, other)]
    if first.record.top1 is not None and other.record.top1 is not None:
        apart = abs(first.record.top1 - other.record.top1)
        text = f"{percent(first.record.top1)} and {percent(other.record.top1)} accuracy, {apart:.2f} points apart"
        alike = [r.record.top1 for r in data.rows if (r.label, r.ranks) == (first.label, first.ranks)]
        seeds = [top1 for top1 in alike if top1 is not None]
        if len(seeds) > 1:
            text += f" (seeds differ by {statistics.stdev(seeds):.2f}, their standard deviation)"
        parts.append(text)
    said = [part for part in parts if part]
    return f"{where}: {'; '.join(said)}." if said else f"{where}: not measured yet."


def _losses(first: Row, other: Row) -> str:
    """Up to which recorded step the losses are the same."""
    found = {row["step"]: finite(row.get("loss")) for row in first.record.curves}
    both = [(row["step"], found.get(row["step"]), finite(row.get("loss"))) for row in other.record.curves]
    errors = [(step, abs(a - b) / abs(b)) for step, a, b in both if a is not None and b]
    if not errors:
        return ""
    parted = next((n for n, (_, error) in enumerate(errors) if error > EQUAL_LOSSES), len(errors))
    if parted == len(errors):
        return f"every recorded loss agrees to {max(error for _, error in errors):.0e}"
    until = (
        f"the losses agree to {EQUAL_LOSSES:g} up to step {errors[parted - 1][0]:,}" if parted else "the losses differ"
    )
    return f"{until} and are {percent(100 * errors[-1][1])} apart at the last recorded step, {errors[-1][0]:,}"
