"""A new section of the report is one file in sections/ and its line in the register: two files of the project."""

from __future__ import annotations

from pathlib import Path

from tests.additions.tree import Addition
from tests.eval.studies import quick_study

SECTION = '''"""How often the runs had to start again."""

from __future__ import annotations

from collections.abc import Iterator

from eval.report.sections.base import Cell, Section, Table, cell
from eval.report.table import ReportData, groups_of


def sections(data: ReportData) -> Iterator[Section]:
    """A row for each setting."""
    groups = groups_of(data.rows)
    rows = tuple((cell(g.first.label), Cell(f"{g.mean('restarts')}", g.mean("restarts"))) for g in groups)
    table = Table("Restarts", ("Setting", "Mean <restarts>"), rows)
    yield Section("restarts", "Restarts of the runs", findings=("No run is lost.",), tables=(table,))
'''


def test_a_section_touches_two_files(tmp_path: Path) -> None:
    project = Addition(tmp_path)
    project.write("eval/report/sections/restarts.py", SECTION)
    content = "eval/report/content.py"
    project.edit(content, "    questions,\n)", "    questions,\n    restarts,\n)")
    project.edit(content, "    curves.sections,\n", "    curves.sections,\n    restarts.sections,\n")
    assert len(project.touched) == 2

    study = quick_study(tmp_path / "study").write()
    project.python("-m", "eval", "report", str(study), timeout_s=300)
    page, markdown = ((study / "report" / name).read_text() for name in ("report.html", "report.md"))
    assert '<section id="restarts"><h2>Restarts of the runs</h2>' in page
    assert '<a href="#restarts">Restarts of the runs</a>' in page
    assert "Mean &lt;restarts&gt;" in page
    assert "## Restarts of the runs\n\nNo run is lost." in markdown
    assert "| batch 64 | 0.0 |" in markdown
