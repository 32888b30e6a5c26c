"""The one table under all sections: a row per run with its settings, plan and results, and what was worked out of them.

Sections group its rows as they need; the analysis of each figure and the list of evaluations are made once per report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from eval.report.factors import views
from eval.report.format import named, setting
from eval.report.records import PointRecord, StudyRecord, grouped, mean
from eval.report.statistics import Condition, QuestionAnalysis, analyse_baseline, analyse_view
from eval.schema import EvaluationResult, finite


@dataclass(frozen=True)
class Row:
    """A run. ``setting``: what sets it apart within its study; ``label``: the same, with the study among several."""

    study: StudyRecord
    record: PointRecord
    setting: str
    label: str
    baseline: bool

    @property
    def seed(self) -> int:
        return self.record.point.seed

    def plan(self, key: str) -> float | None:
        """A number of the plan."""
        return finite(self.record.point.plan.get(key))

    @property
    def ranks(self) -> int:
        return int(self.record.trained("world_size") or self.record.point.world_size)


@dataclass(frozen=True)
class Group:
    """Runs of one setting, which differ in nothing but the seed."""

    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        return self.rows[0]

    def mean(self, key: str) -> float | None:
        """Mean of a number of the runs' results over the seeds that have it."""
        return mean(row.record.trained(key) for row in self.rows)

    @property
    def top1(self) -> float | None:
        return mean(row.record.top1 for row in self.rows)


class Evaluation(NamedTuple):
    """One result of a run, whether the study asked for it or somebody ran it later."""

    row: Row
    result: EvaluationResult


@dataclass(frozen=True)
class ReportData:
    """All that sections are made from."""

    studies: tuple[StudyRecord, ...]

    @property
    def several(self) -> bool:
        return len(self.studies) > 1

    def who(self, study: StudyRecord) -> str:
        """``study: `` in front of what is said of one among several."""
        return f"{study.label}: " if self.several else ""

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """A row for each point, in the studies' order."""
        return tuple(
            Row(study, record, label := settings_label(record, study), self.who(study) + label, study.compared(record))
            for study in self.studies
            for record in study.points.values()
        )

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        """All evaluations, in the rows' order; those of random encoders too."""
        return tuple(Evaluation(row, result) for row in self.rows for result in row.record.evaluations)

    @property
    def of_trained_encoders(self) -> list[Evaluation]:
        return [found for found in self.evaluations if found.result.initialisation == "pretrained"]

    @cached_property
    def asked(self) -> frozenset[str]:
        """Fingerprints of the evaluations that the studies ask for."""
        return frozenset(probe.fingerprint for study in self.studies for probe in study.manifest.probes)

    @cached_property
    def analyses(self) -> dict[str, tuple[QuestionAnalysis, ...]]:
        """Study's label to the analysis of each of its figures, a question's own before those derived from it."""
        return {
            study.label: tuple(analyse_view(study, view) for q in study.manifest.questions for view in views(study, q))
            for study in self.studies
        }

    @cached_property
    def baselines(self) -> tuple[tuple[StudyRecord, Condition], ...]:
        """The references, each with its study; a condition's curve is what it is called."""
        return tuple((study, analyse_baseline(study, b)) for study in self.studies for b in study.manifest.baselines)


def settings_label(record: PointRecord, study: StudyRecord) -> str:
    """What sets a point apart: the baseline's title, else the settings that differ within the study."""
    for baseline in study.manifest.baselines:
        if record.name in baseline.points:
            return baseline.title
    found = [_in_words(key, setting(value)) for key, value in study.label_settings(record).items()]
    if found:
        return ", ".join(found)
    # The base itself, as the question calls it: ``batch 256`` of ``global_batch_size=256,seed=0``.
    parts = [part.partition("=") for part in record.name.partition(",seed=")[0].split(",")]
    return ", ".join(_in_words(key, value) if equals else key for key, equals, value in parts)


def _in_words(key: str, value: str) -> str:
    """``batch 256``, ``objective DCL``."""
    section, _, last = key.rpartition(".")
    last = (section if last == "name" else key).rpartition(".")[2]
    words = {"global_batch_size": "batch", "base_learning_rate": "base LR"}.get(last, last.replace("_", " "))
    return f"{words} {named(value)}"


def groups_of(rows: Sequence[Row]) -> list[Group]:
    """The rows by study and setting."""
    return [Group(tuple(found)) for found in grouped(rows, lambda row: (row.study.label, row.setting)).values()]
