"""What a reader should know before trusting the accuracies: evaluations that another setting might improve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from eval.describe import Edge, edges_of
from eval.report.evaluations import Found, rows_of
from eval.report.format import many
from eval.report.records import StudyRecord


def cautions(studies: Sequence[StudyRecord], found: Found) -> tuple[str, ...]:
    """One sentence for each kind of caution, over the evaluations that the studies asked for."""
    asked = {probe.fingerprint for study in studies for probe in study.manifest.probes}
    choices = [choice for _, _, result in found if result.get("fingerprint") in asked for choice in _choices(result)]
    edges = Counter(edge for choice in choices for edge in edges_of(choice))
    sentences = [_edge(edge, number, len(choices)) for edge, number in edges.most_common()]
    unfinished = sum(choice.get("converged") is False for choice in choices)
    if unfinished:
        sentences.append(
            f"{_of(unfinished, len(choices))} had not converged when their iterations ended: raise max_iterations."
        )
    return tuple(sentences)


def _choices(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The parts of a result that chose something."""
    return [part for part in (result, *rows_of(result)) if part.get("grid")]


def _edge(edge: Edge, number: int, total: int) -> str:
    return f"In {_of(number, total)} the chosen {edge.describe()}: {edge.untried} values may give more."


def _of(number: int, total: int) -> str:
    return f"all {many(total, 'evaluation')}" if number == total else f"{number} of {many(total, 'evaluation')}"
