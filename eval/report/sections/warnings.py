"""What a reader should know before trusting the accuracies: evaluations that another setting might improve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from eval.describe import Edge, edges_of
from eval.report.evaluations import Found
from eval.report.format import many
from eval.report.records import PointRecord, StudyRecord
from eval.schema import Choice, EvaluationResult


def cautions(studies: Sequence[StudyRecord], found: Found) -> tuple[str, ...]:
    """One sentence for each kind of caution, over the evaluations that the studies asked for."""
    asked = {probe.fingerprint for study in studies for probe in study.manifest.probes}
    choices = [choice for _, _, result in found if result.fingerprint in asked for choice in _choices(result)]
    edges = Counter(edge for choice in choices for edge in edges_of(choice))
    sentences = [_edge(edge, number, len(choices)) for edge, number in edges.most_common()]
    unfinished = sum(choice.converged is False for choice in choices)
    if unfinished:
        sentences.append(
            f"{_of(unfinished, len(choices))} had not converged when their iterations ended: raise max_iterations."
        )
    sentences += [_refused(study, record) for study in studies for record in study.points.values() if record.refused]
    return tuple(sentences)


def _refused(study: StudyRecord, record: PointRecord) -> str:
    """Results that are there and do not count."""
    who = f"{study.label}: {record.name}" if study.label else record.name
    reasons = (f"{found.path.parent.name}/{found.path.name} {found.why}" for found in record.refused)
    return f"Not counted, of {who}: {'; '.join(reasons)}."


def _choices(result: EvaluationResult) -> list[Choice]:
    """The parts of a result that chose something."""
    parts = (result, *getattr(result, "rows", ()))
    return [part for part in parts if isinstance(part, Choice) and part.grid]


def _edge(edge: Edge, number: int, total: int) -> str:
    return f"In {_of(number, total)} the chosen {edge.describe()}: {edge.untried} values may give more."


def _of(number: int, total: int) -> str:
    return f"all {many(total, 'evaluation')}" if number == total else f"{number} of {many(total, 'evaluation')}"
