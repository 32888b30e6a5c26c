"""Speed, time and memory of the runs, and what accuracy they buy. What a run does not record is said to be missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, round_ticks, tick_label, value_axis
from eval.report.format import DASH, count, duration, listed, many, percent, plain, size
from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.table import Group, ReportData, Row, grouped, groups_of
from eval.schema import finite

MOST_TARGETS = 4
DESCRIPTION = "Accuracy against training time, one mark for each setting, and images per second against the batch size"
# Runs that differ in these do other work per image: no scaling between them.
SPEED_KEYS = ("encoder.architecture", "encoder.width", "data.dataset", "precision.autocast", "objective.name")
# Accuracy on the way, as a fraction, where the run records it; the final evaluation where it does not.
ONLINE_KEYS = ("online_probe_top1", "probe_top1", "online_top1")


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
    scaling = _scaling(groups, data.several)
    panels = [panel for panel in (_time_panel(groups), _throughput_panel(groups)) if panel]
    yield Section(
        anchor="efficiency",
        title="Speed, time and memory",
        findings=tuple(_findings(groups, bool(scaling))),
        figures=(Figure("speed", DESCRIPTION, tuple(panels), 2),) if panels else (),
        tables=(_table(groups, data.several), *scaling, *_targets(groups, data.several)),
    )


def _findings(groups: Sequence[Group], scaling: bool) -> Iterator[str]:
    rates = [(rate, g.first.setting) for g in groups if (rate := g.mean("images_per_second"))]
    rates.sort(key=lambda pair: pair[0])
    if len(rates) > 1:
        ends = (f"{count(rate)} ({setting})" for rate, setting in (rates[0], rates[-1]))
        yield f"Training runs at {' to '.join(ends)} images a second, data loading included."
    elif rates:
        yield f"Training runs at {count(rates[0][0])} images a second, data loading included."
    records = [row.record for group in groups for row in group.rows]
    machines = {str(record.environment["host"]) for record in records if record.environment.get("host")}
    if len(machines) > 1:
        yield f"The runs come from {len(machines)} machines: compare times with care."
    if not scaling:
        ranks = {group.first.ranks for group in groups}
        why = "no two numbers of ranks share a batch size per rank"
        if len(ranks) == 1:
            why = f"every run used {many(ranks.pop(), 'rank')}"
        yield f"Weak-scaling efficiency: not known, {why}."
    absent = [text for key, text in NOT_RECORDED.items() if all(record.trained(key) is None for record in records)]
    if absent:
        yield f"Not recorded by these runs: {listed(absent)}."


def _table(groups: Sequence[Group], several: bool) -> Table:
    columns: dict[str, Callable[[Group], Cell]] = {
        "Ranks": lambda g: Cell(str(g.first.ranks), g.first.ranks),
        "Batch per rank": lambda g: _count(_batch_per_rank(g)),
        "Images/s": lambda g: _count(g.mean("images_per_second")),
        "Images/s and rank": lambda g: _count(_rate_per_rank(g)),
        "ms/step": lambda g: Cell(plain(_step_ms(g), 1), _step_ms(g)),
        "Training": lambda g: Cell(duration(g.mean("train_seconds")), g.mean("train_seconds")),
        "Images seen": lambda g: _count(g.mean("images_seen")),
        "Loss memory/rank": lambda g: _size(g.first.plan("loss_bytes_per_rank")),
        "Peak memory": lambda g: _size(g.mean("peak_memory_bytes")),
        "Sync batch norm": lambda g: _share_of_step(g.mean("sync_batch_norm_seconds_per_step"), g),
        "Loss": lambda g: _share_of_step(g.mean("loss_seconds_per_step"), g),
    }
    known = {name: make for name, make in columns.items() if any(make(group).sort is not None for group in groups)}
    rows = tuple((*_who(group, several), *(make(group) for make in known.values())) for group in groups)
    note = "Means over seeds. Peak memory is of the process that wrote the result; the loss's is planned, not measured."
    if known.keys() & {"Sync batch norm", "Loss"}:
        note += " What batch norm's communication and the loss take was measured alone, when the runs started."
    return Table("Throughput and cost", (*_who_headers(several), *known), rows, note=note)


def _scaling(groups: Sequence[Group], several: bool) -> list[Table]:
    """Images a second and rank at one batch size per rank, against the fewest ranks that have it."""

    def kind(group: Group) -> tuple[object, ...]:
        run = group.first
        return _batch_per_rank(group), *(repr(run.study.value(run.record, key)) for key in SPEED_KEYS)

    rows = []
    for members in grouped(groups, kind).values():
        ordered = sorted(members, key=lambda group: group.first.ranks)
        base = _rate_per_rank(ordered[0])
        if len({group.first.ranks for group in members}) < 2 or not base:
            continue
        for group in ordered:
            rate, ranks = _rate_per_rank(group), group.first.ranks
            share = None if rate is None else 100 * rate / base
            cells = [_count(_batch_per_rank(group)), Cell(str(ranks), ranks), _count(rate)]
            rows.append((*_who(group, several), *cells, Cell(percent(share, 0), share)))
    headers = (*_who_headers(several), "Batch per rank", "Ranks", "Images/s and rank", "Efficiency")
    note = "Against the fewest ranks with the same batch per rank."
    return [Table("Weak scaling", headers, tuple(rows), note=note)] if rows else []


def _targets(groups: Sequence[Group], several: bool) -> list[Table]:
    """Images and time until an accuracy is reached: by the online probe where runs record it, else at their end."""
    reached = [(group, path) for group in groups if (path := _path(group))]
    asked = [max(top for _, _, top in path) for group, path in reached if not group.first.baseline]
    if len(set(asked)) < 2:
        return []
    targets = round_ticks(min(asked), max(asked), MOST_TARGETS)
    rows = []
    for group, path in reached:
        cells = list(_who(group, several))
        for target in targets:
            first = next(((images, seconds) for images, seconds, top in path if top >= target), None)
            text = "not reached" if first is None else f"{count(first[0])} images, {duration(first[1])}"
            cells.append(Cell(text, None if first is None else first[0]))
        rows.append(tuple(cells))
    online = any(_online(row) for group, _ in reached for row in group.rows)
    end = "by the evaluation at the end of training: the way is not recorded"
    note = f"Mean over seeds, {'by the online probe, on the way' if online else end}."
    headers = (*_who_headers(several), *(f"{target:g} %" for target in targets))
    return [Table("Images and time to accuracy", headers, tuple(rows), note=note)]


def _path(group: Group) -> list[tuple[float, float, float]]:
    """(images seen, seconds, accuracy in percent) on the way, means over seeds; the end alone if there is no more."""
    online = [path for row in group.rows if (path := _online(row))]
    if online and len(online) == len(group.rows):
        length = min(map(len, online))
        return [tuple(sum(path[i][k] for path in online) / len(online) for k in range(3)) for i in range(length)]  # type: ignore[misc]
    images, seconds, top1 = group.mean("images_seen"), group.mean("train_seconds"), group.top1
    return [] if images is None or seconds is None or top1 is None else [(images, seconds, top1)]


def _online(row: Row) -> list[tuple[float, float, float]]:
    found, seconds, last = [], 0.0, 0.0
    batch = row.plan("global_batch_size") or 0.0
    for values in row.record.curves:
        step, rate = finite(values.get("step")), finite(values.get("images_per_second"))
        if step is None:
            continue
        seconds += (step - last) * batch / rate if rate else 0.0
        last = step
        top1 = next((value for key in ONLINE_KEYS if (value := finite(values.get(key))) is not None), None)
        if top1 is not None:
            found.append((step * batch, seconds, 100 * top1))
    return found


def _time_panel(groups: Sequence[Group]) -> Panel | None:
    """Accuracy against training time, one mark a setting: what is bought, and what it costs."""
    places = [(g, s, t) for g in groups if (s := g.mean("train_seconds")) is not None and (t := g.top1) is not None]
    if len({round(seconds, 6) for _, seconds, _ in places}) < 2:
        return None
    longest = max(seconds for _, seconds, _ in places)
    unit, factor = ("hours", 3600.0) if longest > 5400 else ("minutes", 60.0) if longest > 90 else ("seconds", 1.0)
    series = [
        Series(
            study,
            index,
            tuple(
                Mark(seconds / factor, top1, tip=f"{g.first.label}\n{percent(top1)}\n{duration(seconds)}")
                for g, seconds, top1 in own
            ),
            joined=False,
        )
        for index, (study, own) in enumerate(grouped(places, lambda place: place[0].first.study.label).items())
    ]
    return Panel(
        title="Accuracy against training time",
        x=value_axis([s / factor for _, s, _ in places], ticks=4, floor=0.0),
        y=value_axis([top1 for _, _, top1 in places], ticks=5, floor=0.0, top=100.0),
        x_label=f"Training time ({unit})",
        y_label=groups[0].first.study.metric_label,
        series=tuple(series),
    )


def _throughput_panel(groups: Sequence[Group]) -> Panel | None:
    """Images a second against the batch size, for each number of ranks of each study."""
    known = [g for g in groups if g.first.plan("global_batch_size") and g.mean("images_per_second")]
    several = len({group.first.study.label for group in groups}) > 1
    series: list[Series] = []
    for (study, ranks), own in grouped(known, lambda g: (g.first.study.label, g.first.ranks)).items():
        label = f"{study}, {ranks} ranks" if several else f"{ranks} ranks"
        batches = grouped(own, lambda g: g.first.plan("global_batch_size") or 0.0)
        marks = tuple(_rate_mark(batch, batches[batch], label) for batch in sorted(batches))
        series.append(Series(label, len(series), marks))
    if not any(len(s.marks) > 1 for s in series):
        return None
    values = [v for s in series for m in s.marks for v in (m.y, m.low, m.high) if v is not None]
    return Panel(
        title="Throughput",
        x=category_axis((mark.x for s in series for mark in s.marks), "log2"),
        y=value_axis([0.0, *values], ticks=5, floor=0.0),
        x_label="Batch size (images)",
        y_label="Images per second",
        series=tuple(series),
        dodge=len(series) > 1,
    )


def _rate_mark(batch: float, groups: Sequence[Group], label: str) -> Mark:
    rates = [rate for g in groups for row in g.rows if (rate := row.record.trained("images_per_second"))]
    mean = sum(rates) / len(rates)
    low, high = (min(rates), max(rates)) if len(rates) > 1 else (None, None)
    tip = f"{label}, batch size = {tick_label(batch)}\n{count(mean)} images/s, mean of {many(len(rates), 'run')}"
    if low is not None and high is not None:
        tip += f"\nfrom {count(low)} to {count(high)}"
    return Mark(batch, mean, low, high, tip)


def _who(group: Group, several: bool) -> tuple[Cell, ...]:
    study = (cell(group.first.study.label),) if several else ()
    return (*study, cell(group.first.setting))


def _who_headers(several: bool) -> tuple[str, ...]:
    return ("Study", "Setting") if several else ("Setting",)


def _batch_per_rank(group: Group) -> float | None:
    batch = group.first.plan("global_batch_size")
    return None if batch is None else batch / group.first.ranks


def _rate_per_rank(group: Group) -> float | None:
    rate = group.mean("images_per_second")
    return None if rate is None else rate / group.first.ranks


def _step_ms(group: Group) -> float | None:
    seconds, steps = group.mean("train_seconds"), group.mean("total_steps")
    return 1000 * seconds / steps if seconds is not None and steps else None


def _share_of_step(seconds: float | None, group: Group) -> Cell:
    step_ms = _step_ms(group)
    if seconds is None or not step_ms:
        return Cell(DASH)
    return Cell(f"{1000 * seconds:.1f} ms, {percent(100_000 * seconds / step_ms, 1)} of a step", seconds)


def _size(value: float | None) -> Cell:
    return Cell(size(value), value)


def _count(value: float | None) -> Cell:
    return Cell(count(value), value)
