"""Speed, time and memory of the runs, and what accuracy they buy. What a run does not record is said to be missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eval.report.evaluations import settings_label
from eval.report.figures.model import Figure, Mark, Panel, Series, category_axis, round_ticks, tick_label, value_axis
from eval.report.format import DASH, count, duration, listed, many, percent, plain, size
from eval.report.records import PointRecord, StudyRecord
from eval.report.sections.base import Cell, Section, Table, cell
from eval.schema import finite

MOST_TARGETS = 4
DESCRIPTION = "Accuracy against training time, one mark for each setting, and images per second against the batch size"
# Runs that differ in these do other work per image: no scaling between them.
SPEED_KEYS = ("encoder.architecture", "encoder.width", "data.dataset", "precision.autocast", "objective.name")
# Accuracy on the way, as a fraction, where the run records it; the final evaluation where it does not.
ONLINE_KEYS = ("online_probe_top1", "probe_top1", "online_top1")


@dataclass(frozen=True)
class Group:
    """Runs that differ in nothing but the seed."""

    study: StudyRecord
    label: str
    records: tuple[PointRecord, ...]

    def mean(self, key: str) -> float | None:
        """Mean of a number of result.json over the seeds that have it."""
        return _mean([record.trained(key) for record in self.records])

    def plan(self, key: str) -> float | None:
        """A number of the plan, the same for all seeds."""
        return finite(self.records[0].point.plan.get(key))

    @property
    def ranks(self) -> int:
        return int(self.records[0].trained("world_size") or self.records[0].point.world_size)

    @property
    def is_baseline(self) -> bool:
        """True for what the study only compares with."""
        return any(self.records[0].name in baseline.points for baseline in self.study.manifest.baselines)

    @property
    def per_rank(self) -> float | None:
        """Images per step and rank."""
        batch = self.plan("global_batch_size")
        return None if batch is None else batch / self.ranks

    @property
    def top1(self) -> float | None:
        return _mean([record.top1 for record in self.records])


def efficiency_section(studies: Sequence[StudyRecord]) -> Section | None:
    """Throughput, time and memory of every setting; None while no run has finished."""
    groups = trained_groups(studies)
    if not groups:
        return None
    several = len(studies) > 1
    tables = [_table(groups, several)]
    scaling = _scaling(groups, several)
    tables += [scaling] if scaling else []
    tables += _targets(groups, several)
    panels = [panel for panel in (_time_panel(groups), _throughput_panel(groups)) if panel]
    return Section(
        anchor="efficiency",
        title="Speed, time and memory",
        findings=tuple(_findings(groups, scaling is not None)),
        figures=(Figure("speed", DESCRIPTION, tuple(panels), 2),) if panels else (),
        tables=tuple(tables),
    )


def trained_groups(studies: Sequence[StudyRecord]) -> list[Group]:
    """Settings with at least one finished training of at least one step."""
    found: dict[tuple[int, str], list[PointRecord]] = {}
    for index, study in enumerate(studies):
        for record in study.points.values():
            if record.trained("train_seconds") and record.trained("total_steps"):
                found.setdefault((index, settings_label(record, study)), []).append(record)
    return [Group(studies[index], label, tuple(records)) for (index, label), records in found.items()]


def _findings(groups: Sequence[Group], scaling: bool) -> list[str]:
    rates = [(rate, group) for group in groups if (rate := group.mean("images_per_second"))]
    sentences = []
    if rates:
        slow, fast = min(rates, key=lambda pair: pair[0]), max(rates, key=lambda pair: pair[0])
        if len(rates) > 1:
            sentences.append(
                f"Training runs at {count(slow[0])} ({slow[1].label}) to {count(fast[0])} ({fast[1].label}) images a "
                "second, data loading included."
            )
        else:
            sentences.append(f"Training runs at {count(fast[0])} images a second, data loading included.")
    machines = {str(r.environment.get("host")) for g in groups for r in g.records if r.environment.get("host")}
    if len(machines) > 1:
        sentences.append(f"The runs come from {len(machines)} machines: compare times with care.")
    if not scaling:
        ranks = sorted({group.ranks for group in groups})
        if len(ranks) == 1:
            said = f"every run used {ranks[0]} rank{'s' if ranks[0] > 1 else ''}"
        else:
            said = "no two numbers of ranks share a batch size per rank"
        sentences.append(f"Weak-scaling efficiency: not known, {said}.")
    absent = [
        text
        for key, text in (
            ("peak_memory_bytes", "peak memory"),
            ("sync_batch_norm_seconds_per_step", "the cost of synchronised batch norm"),
            ("loss_seconds_per_step", "the cost of the loss"),
        )
        if not any(record.trained(key) is not None for g in groups for record in g.records)
    ]
    if absent:
        sentences.append(f"Not recorded by these runs: {listed(absent)}.")
    return sentences


def _table(groups: Sequence[Group], several: bool) -> Table:
    columns: list[tuple[str, Any]] = [
        ("Ranks", lambda g: Cell(str(g.ranks), g.ranks)),
        ("Batch per rank", lambda g: _count(g.per_rank)),
        ("Images/s", lambda g: _count(g.mean("images_per_second"))),
        ("Images/s and rank", lambda g: _count(_over(g.mean("images_per_second"), g.ranks))),
        ("ms/step", lambda g: _number(_step_ms(g), 1)),
        ("Training", lambda g: Cell(duration(g.mean("train_seconds")), g.mean("train_seconds"))),
        ("Images seen", lambda g: _count(g.mean("images_seen"))),
        ("Loss memory/rank", lambda g: Cell(size(g.plan("loss_bytes_per_rank")), g.plan("loss_bytes_per_rank"))),
    ]
    optional: list[tuple[str, str, Any]] = [
        ("peak_memory_bytes", "Peak memory", lambda v, g: Cell(size(v), v)),
        ("sync_batch_norm_seconds_per_step", "Sync batch norm", _share_of_step),
        ("loss_seconds_per_step", "Loss", _share_of_step),
    ]
    rows = []
    kept = [(k, t, f) for k, t, f in optional if any(g.mean(k) is not None for g in groups)]
    columns = [(name, make) for name, make in columns if any(make(group).sort is not None for group in groups)]
    for group in groups:
        cells = [cell(group.study.label)] if several else []
        cells += [cell(group.label), *(make(group) for _, make in columns)]
        cells += [make(group.mean(key), group) for key, _, make in kept]
        rows.append(tuple(cells))
    headers = (("Study",) if several else ()) + ("Setting", *(name for name, _ in columns), *(t for _, t, _ in kept))
    note = "Means over seeds. Peak memory is of the process that wrote the result; the loss's is planned, not measured."
    if any(key.endswith("_seconds_per_step") for key, _, _ in kept):
        note += " What batch norm's communication and the loss take was measured alone, when the runs started."
    return Table("Throughput and cost", headers, tuple(rows), note=note)


def _scaling(groups: Sequence[Group], several: bool) -> Table | None:
    """Images a second and rank at one batch size per rank, against the fewest ranks that have it."""
    kinds: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        record, study = group.records[0], group.study
        kinds.setdefault((group.per_rank, *(repr(study.value(record, key)) for key in SPEED_KEYS)), []).append(group)
    rows = []
    for members in kinds.values():
        first = min(members, key=lambda group: group.ranks)
        base = _over(first.mean("images_per_second"), first.ranks)
        if len({group.ranks for group in members}) < 2 or not base:
            continue
        for group in sorted(members, key=lambda group: group.ranks):
            rate = _over(group.mean("images_per_second"), group.ranks)
            share = None if rate is None else 100 * rate / base
            cells = [cell(group.study.label)] if several else []
            cells += [cell(group.label), _count(group.per_rank), Cell(str(group.ranks), group.ranks), _count(rate)]
            rows.append((*cells, Cell(percent(share, 0), share)))
    if not rows:
        return None
    headers = (("Study",) if several else ()) + (
        "Setting",
        "Batch per rank",
        "Ranks",
        "Images/s and rank",
        "Efficiency",
    )
    return Table("Weak scaling", headers, tuple(rows), note="Against the fewest ranks with the same batch per rank.")


def _targets(groups: Sequence[Group], several: bool) -> list[Table]:
    """Images and time until an accuracy is reached: by the online probe where runs record it, else at their end."""
    reached = [(group, path) for group in groups if (path := _path(group))]
    asked = [max(top for _, _, top in path) for group, path in reached if not group.is_baseline]
    if len(set(asked)) < 2:
        return []
    targets = round_ticks(min(asked), max(asked), MOST_TARGETS)
    online = any(_online(record) for group, _ in reached for record in group.records)
    rows = []
    for group, path in reached:
        cells = [cell(group.study.label)] if several else []
        cells.append(cell(group.label))
        for target in targets:
            first = next(((images, seconds) for images, seconds, top in path if top >= target), None)
            if first is None:
                cells.append(Cell("not reached"))
            else:
                cells.append(Cell(f"{count(first[0])} images, {duration(first[1])}", first[0]))
        rows.append(tuple(cells))
    headers = (("Study",) if several else ()) + ("Setting", *(f"{target:g} %" for target in targets))
    how = (
        "by the online probe, on the way"
        if online
        else "by the evaluation at the end of training: the way is not recorded"
    )
    return [Table("Images and time to accuracy", headers, tuple(rows), note=f"Mean over seeds, {how}.")]


def _path(group: Group) -> list[tuple[float, float, float]]:
    """(images seen, seconds, accuracy in percent) on the way, means over seeds; the end alone if there is no more."""
    online = [path for record in group.records if (path := _online(record))]
    if online and len(online) == len(group.records):
        length = min(map(len, online))
        return [tuple(sum(path[i][k] for path in online) / len(online) for k in range(3)) for i in range(length)]  # type: ignore[misc]
    images, seconds, top1 = group.mean("images_seen"), group.mean("train_seconds"), group.top1
    return [] if images is None or seconds is None or top1 is None else [(images, seconds, top1)]


def _online(record: PointRecord) -> list[tuple[float, float, float]]:
    found, seconds, last = [], 0.0, 0.0
    batch = finite(record.point.plan.get("global_batch_size")) or 0.0
    for row in record.curves:
        step, rate = finite(row.get("step")), finite(row.get("images_per_second"))
        if step is None:
            continue
        seconds += (step - last) * batch / rate if rate else 0.0
        last = step
        top1 = next((value for key in ONLINE_KEYS if (value := finite(row.get(key))) is not None), None)
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
    studies = list(dict.fromkeys(id(group.study) for group, _, _ in places))
    series = []
    for index, owner in enumerate(studies):
        own = [place for place in places if id(place[0].study) == owner]
        marks = tuple(
            Mark(seconds / factor, top1, tip=f"{_who(group, len(studies))}\n{percent(top1)}\n{duration(seconds)}")
            for group, seconds, top1 in own
        )
        series.append(Series(own[0][0].study.label, index, marks, joined=False))
    times, tops = [s / factor for _, s, _ in places], [top1 for _, _, top1 in places]
    return Panel(
        title="Accuracy against training time",
        x=value_axis(times, ticks=4, floor=0.0),
        y=value_axis(tops, ticks=5, floor=0.0, top=100.0),
        x_label=f"Training time ({unit})",
        y_label=places[0][0].study.metric_label,
        series=tuple(series),
    )


def _throughput_panel(groups: Sequence[Group]) -> Panel | None:
    """Images a second against the batch size, for each number of ranks of each study."""
    lines: dict[tuple[int, int], dict[float, list[Group]]] = {}
    order = list(dict.fromkeys(id(group.study) for group in groups))
    for group in groups:
        batch = group.plan("global_batch_size")
        if batch and group.mean("images_per_second"):
            line = lines.setdefault((order.index(id(group.study)), group.ranks), {})
            line.setdefault(batch, []).append(group)
    if not any(len(line) > 1 for line in lines.values()):
        return None
    series = []
    for number_, ((index, ranks), line) in enumerate(lines.items()):
        own = next(group.study for group in groups if id(group.study) == order[index])
        label = f"{own.label}, {ranks} ranks" if len(order) > 1 else f"{ranks} ranks"
        series.append(Series(label, number_, tuple(_rate_mark(batch, line[batch], label) for batch in sorted(line))))
    values = [v for s in series for m in s.marks for v in (m.y, m.low, m.high) if v is not None]
    return Panel(
        title="Throughput",
        x=category_axis((batch for line in lines.values() for batch in line), "log2"),
        y=value_axis([0.0, *values], ticks=5, floor=0.0),
        x_label="Batch size (images)",
        y_label="Images per second",
        series=tuple(series),
        dodge=len(series) > 1,
    )


def _rate_mark(batch: float, groups: Sequence[Group], label: str) -> Mark:
    rates = [rate for g in groups for r in g.records if (rate := r.trained("images_per_second"))]
    mean = sum(rates) / len(rates)
    low, high = (min(rates), max(rates)) if len(rates) > 1 else (None, None)
    tip = f"{label}, batch size = {tick_label(batch)}\n{count(mean)} images/s, mean of {many(len(rates), 'run')}"
    if low is not None and high is not None:
        tip += f"\nfrom {count(low)} to {count(high)}"
    return Mark(batch, mean, low, high, tip)


def _who(group: Group, studies: int) -> str:
    return f"{group.study.label}: {group.label}" if studies > 1 else group.label


def _step_ms(group: Group) -> float | None:
    seconds, steps = group.mean("train_seconds"), group.mean("total_steps")
    return 1000 * seconds / steps if seconds is not None and steps else None


def _share_of_step(seconds: float | None, group: Group) -> Cell:
    step_ms = _step_ms(group)
    if seconds is None or not step_ms:
        return Cell(DASH)
    return Cell(f"{1000 * seconds:.1f} ms, {percent(100_000 * seconds / step_ms, 1)} of a step", seconds)


def _count(value: float | None) -> Cell:
    return Cell(count(value), value)


def _number(value: float | None, digits: int) -> Cell:
    return Cell(plain(value, digits), value)


def _over(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
