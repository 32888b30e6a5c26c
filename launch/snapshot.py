"""One look at the files of a study: how far every point is, what is missing, whether the report is old. Torch-free.

A command looks once and hands the snapshot on. It looks again only where the study may have changed: when it has got
the lock, which another launcher may have held until then; after jobs have run; and at each round of a watch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from eval.study_manifest import FILE_NAME, REPORT_FILE, StudyManifest, read_manifest
from launch.plan.graph import StudyGraph
from launch.state import PointState, Records, modified, read_record, study_states
from launch.tasks import Task, missing_tasks
from pretrain.errors import ConfigError, Problem, did_you_mean


@dataclass(frozen=True)
class Snapshot:
    """A study and what its files contained at one moment.

    states: of every point, in the order of the graph. missing: the tasks that are left, each after those it needs.
    manifest_is_old: study.json differs from what the study is now. report_is_old: it is missing, or a result or what
    study.json has to say is newer; False where there is nothing to report.
    """

    graph: StudyGraph
    states: tuple[PointState, ...]
    missing: tuple[Task, ...]
    manifest_is_old: bool
    report_is_old: bool

    @property
    def up_to_date(self) -> bool:
        """True when there is nothing to do: all results, study.json and the report are there and current."""
        return not (self.missing or self.report_is_old or self.manifest_is_old or self.problems)

    @property
    def problems(self) -> list[Problem]:
        """Every result file that is damaged or not its point's."""
        return [Problem(state.point.name, state.detail) for state in self.states if state.damaged]


def take_snapshot(graph: StudyGraph, records: Records = read_record) -> Snapshot:
    """Read the study's files, each once. records: where to find the record of a task, e.g. that of a Slurm job."""
    states = tuple(study_states(graph.directory, graph.manifest, records))
    manifest_is_old = not _same_manifest(graph)
    results = [state.newest_result for state in states if state.newest_result is not None]
    report_is_old = bool(results) and (manifest_is_old or _report_is_older(graph, max(results)))
    missing = missing_tasks(graph, states, chosen_points(graph))
    return Snapshot(graph, states, tuple(missing), manifest_is_old, report_is_old)


def chosen_points(graph: StudyGraph) -> frozenset[str] | None:
    """Names of the points that ``only`` asks for, by questions, baselines or (parts of) their own; None for all.

    Raises ConfigError where a name is none of these.
    """
    if not graph.config.only:
        return None
    manifest, chosen = graph.manifest, set[str]()
    groups = {question.name: [p for c in question.curves for p in c.points] for question in manifest.questions}
    groups |= {baseline.name: list(baseline.points) for baseline in manifest.baselines}
    for name in graph.config.only:
        points = groups.get(name) or [point.name for point in manifest.points if name in point.name]
        if not points:
            near = did_you_mean(name, [*groups, *(point.name for point in manifest.points)])
            message = (
                f"got '{name}'{near}, expected a question or baseline ({', '.join(groups)}) or a part of a point's name"
            )
            raise ConfigError(str(graph.directory), [Problem("only", message)])
        chosen.update(points)
    return frozenset(chosen)


def _report_is_older(graph: StudyGraph, newest_result: float) -> bool:
    report = modified(graph.directory / REPORT_FILE)
    return report is None or max(newest_result, modified(graph.directory / FILE_NAME) or 0.0) > report


def _same_manifest(graph: StudyGraph) -> bool:
    """True when study.json differs from the manifest in nothing but the revision of the code."""
    try:
        written = read_manifest(graph.directory)
    except (FileNotFoundError, ValueError):
        return False
    return _content(written) == _content(graph.manifest)


def _content(manifest: StudyManifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json", exclude={"git_revision"})
