"""Where the numbers come from: study files, code, software, evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from eval.report.collect import StudyRecord
from eval.report.runs import revisions, software
from eval.report.text import many


def provenance(studies: Sequence[StudyRecord]) -> list[str]:
    """One line each."""
    items = []
    for study in studies:
        who = f"{study.label}: " if len(studies) > 1 else ""
        manifest = study.manifest
        items.append(f"{who or 'Study '}{manifest.source}, from {manifest.base}")
        items += [
            f"{who or 'Evaluation '}{' '.join([probe.task, *probe.overrides])} (settings {probe.fingerprint})"
            for probe in manifest.probes
        ]
    planned = {str(study.manifest.git_revision) for study in studies if study.manifest.git_revision}
    known = revisions(studies) or sorted(planned)
    if known:
        items.append(f"Code: revision {', '.join(known)}")
    items += [f"{text} ({many(number, 'run')})" for text, number in software(studies)]
    if any(probe.task == "linear" for study in studies for probe in study.manifest.probes):
        items.append(
            "Linear evaluation: on the frozen encoder's features; what there is to choose is chosen on part of the "
            "training images, and the test images are used once, at the end."
        )
    return items
