"""Reports of imperfect studies: what is missing is said to be missing, and no number is made up."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest

from eval.__main__ import main
from eval.report.build import build_report
from eval.report.content import make_report
from eval.report.records import collect
from eval.report.sections.published import published_figure, published_rows
from pretrain.errors import ConfigError
from tests.eval.studies import Place, SyntheticStudy, quick_study

TEMPERATURES = (0.1, 0.2, 0.5)


def small(directory: Path, accuracies: list[list[float | None]]) -> SyntheticStudy:
    study = SyntheticStudy(directory)
    places = [Place(t, {"objective.temperature": t}, list(a)) for t, a in zip(TEMPERATURES, accuracies)]
    study.question("temperature", places, x_key="objective.temperature", x_label="Temperature", x_scale="log")
    return study


def text_of(page: str) -> str:
    """What a reader sees: the text of the body without style and script."""

    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.parts: list[str] = []
            self.skip = 0

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.skip += tag in ("style", "script")

        def handle_endtag(self, tag: str) -> None:
            self.skip -= tag in ("style", "script")

        def handle_data(self, data: str) -> None:
            if not self.skip:
                self.parts.append(data)

    reader = Reader()
    reader.feed(page)
    return re.sub(r"\s+", " ", " ".join(reader.parts))


def built(study: SyntheticStudy) -> tuple[str, str, list[dict[str, str]]]:
    """(text of the page, Markdown, rows of results.csv)."""
    page = build_report(study.write())
    rows = list(csv.DictReader((page.parent / "results.csv").read_text().splitlines()))
    return text_of(page.read_text()), (page.parent / "report.md").read_text(), rows


def test_complete_study(tmp_path: Path) -> None:
    page, markdown, rows = built(quick_study(tmp_path))
    for text in (page, markdown):
        assert "ll 24 runs finished" in text
        assert "a difference of 1.70 points (95 % interval +1.06 to +2.35; Tukey's test" in text
        assert "points per doubling of batch size" in text
        assert "Random encoder: 77.10 % (3 seeds, 95 % interval" in text
        assert "5.3 degrees of freedom" in text
    made = "with SimCLR on Fashion-MNIST for 2 epochs, in 18 runs of"
    assert f"An encoder (ResNet-18, width × 0.25) was pretrained {made}" in markdown
    assert len(rows) == 24
    assert {row["status"] for row in rows} == {"finished"}
    assert rows[0]["top1"] == "82.91"
    assert rows[0]["torch"] == "2.15.0"
    assert rows[0]["command"].startswith("torchrun")
    files = {path.name for path in (tmp_path / "report").iterdir()}
    assert {"report.html", "report.md", "results.csv", "batch_size.svg", "negatives.svg", "published.svg"} <= files
    assert {"training_loss.svg", "training_contrastive_top1.svg"} <= files
    for name in re.findall(r"\]\((\S+\.svg)\)", markdown):
        drawn = (tmp_path / "report" / name).read_text()
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
        assert "var(" not in drawn, "a file stands alone"


def test_missing_seed(tmp_path: Path) -> None:
    page, _, rows = built(small(tmp_path, [[60.0, 60.4], [64.0, None], [61.0, 61.2]]))
    assert "1 of 6 points has no result: 1 not started" in page
    assert "5 of 6 runs finished" in page
    assert "mean of 1 to 2 seeds" in page
    assert [row["top1"] for row in rows].count("") == 1


def test_one_seed_only(tmp_path: Path) -> None:
    page, markdown, _ = built(small(tmp_path, [[60.0], [64.0], [61.0]]))
    for text in (page, markdown):
        assert "a difference of 4.00 points, without an interval" in text
        assert "One seed per condition" in text
        assert "95 % interval +" not in text
        assert "distinguishable" not in text


def test_indistinguishable_conditions(tmp_path: Path) -> None:
    page, _, _ = built(small(tmp_path, [[60.0, 62.0], [60.4, 61.9], [60.1, 62.3]]))
    assert "not distinguishable from 0 with these seeds" in page
    assert "by least squares, not distinguishable from 0" in page


def test_not_a_number_is_never_a_number(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0, 60.4], [float("nan"), 64.0], [float("nan"), float("nan")]])
    page, markdown, rows = built(study)
    for text in (page, markdown):
        assert "3 without accuracy" in text
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)
    source = (tmp_path / "report" / "report.html").read_text()
    body = source[source.index("<body>") : source.index("<script>")]
    assert not re.search(r"\b(nan|inf|undefined|None)\b", body, re.IGNORECASE)
    assert [row["top1"] for row in rows] == ["60.0", "60.4", "", "64.0", "", ""]


def test_failed_points_say_why(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0, 60.4], [64.0, 64.2], [61.0, 61.2]])
    study.write()
    first, second, third, fourth = (point.name for point in study.points[:4])
    training = study.run_directory(first)
    (training / "result.json").unlink()
    (training / "progress.json").write_text(json.dumps({"state": "diverged", "step": 12, "total_steps": 468}))
    study.probe_result(second).unlink()
    study.probe_result(third).write_text("{ cut")
    study.edit(study.run_directory(fourth) / "result.json", lambda value: value.update(fingerprint="other"))
    record = collect(tmp_path)
    assert [point.status for point in record.points.values()][:4] == ["diverged", "not evaluated", "failed", "failed"]
    assert "step 12 of 468" in record.points[first].detail
    assert "damaged" in record.points[third].detail
    assert "another run" in record.points[fourth].detail
    page, _, rows = built(study)
    assert "2 of 6 runs finished; 1 diverged, 1 not evaluated and 2 failed" in page
    assert [row["status"] for row in rows].count("finished") == 2
    assert all(row["top1"] == "" for row in rows[:4])


def test_failed_evaluation_is_known_from_its_record(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0], [64.0], [61.0]])
    study.write()
    name = study.points[0].name
    study.probe_result(name).unlink()
    logs = study.run_directory(name) / "logs"
    logs.mkdir()
    (logs / "linear-0123456789ab.json").write_text(json.dumps({"state": "failed"}))
    assert collect(tmp_path).points[name].status == "failed"


def test_unknown_interval_of_the_test_set_stays_empty(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0], [64.0], [61.0]])
    study.edit(study.probe_result(study.points[0].name), lambda value: value.update(top1_interval=[None, 61.0]))
    _, _, rows = built(study)
    assert (rows[0]["top1_interval_low"], rows[0]["top1_interval_high"]) == ("", "")
    assert float(rows[1]["top1_interval_low"]) == pytest.approx(63.25)


def test_nothing_measured_yet(tmp_path: Path) -> None:
    page, markdown, rows = built(small(tmp_path, [[None, None], [None], [None]]))
    assert "Nothing has been measured yet." in page
    assert "0 of 4 runs finished; 4 not started" in page
    assert ".svg" not in markdown
    assert all(row["top1"] == "" for row in rows)


def test_line_does_not_bridge_a_missing_condition(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0, 60.4], [None, None], [61.0, 61.2]])
    (figure,) = make_report(collect(study.write())).sections[0].figures
    (series,) = figure.panels[0].series
    assert [len(piece) for piece in series.pieces()] == [1, 1]
    assert len(figure.panels[0].missing) == 2


def test_published_curves_stay_apart(tmp_path: Path) -> None:
    report = make_report(collect(quick_study(tmp_path).write()))
    figures = {figure.name: figure for figure in report.figures}
    published = {mark.y for panel in figures["published"].panels for series in panel.series for mark in series.marks}
    for name in ("batch_size", "negatives"):
        drawn = {m.y for panel in figures[name].panels for s in panel.series for m in (*s.marks, *s.singles)}
        assert not drawn & published
    titles = [panel.title for panel in figures["published"].panels]
    assert titles[:2] == ["SimCLR Table B.1, linear LR", "SimCLR Table B.1, square-root LR"]
    assert [s.label for s in figures["published"].panels[0].series] == [
        "100 epochs",
        "200 epochs",
        "400 epochs",
        "800 epochs",
    ]


def test_every_published_row_is_shown_once() -> None:
    drawn = sum(len(series.marks) for panel in published_figure().panels for series in panel.series)
    sizes = {(row.source, row.lr_rule): 0 for row in published_rows()}
    assert drawn + 5 == len(published_rows()), "one Table 6 row and four of the solo-learn README have no curve"
    assert len(published_figure().panels) + 2 == len(sizes)


def test_same_inputs_same_page(tmp_path: Path) -> None:
    study = quick_study(tmp_path)
    page = build_report(study.write())
    first = page.read_bytes()
    build_report(tmp_path)
    assert page.read_bytes() == first


def test_figures_of_an_earlier_report_go_and_what_others_wrote_stays(tmp_path: Path) -> None:
    study = quick_study(tmp_path)
    folder = build_report(study.write()).parent
    (folder / "mine.svg").write_bytes(b"mine")
    before = {path.name for path in folder.glob("*.svg")}
    study.questions.pop()
    build_report(study.write())
    gone = before - {path.name for path in folder.glob("*.svg")}
    assert gone == {"negatives.svg"}
    (folder / "files.json").write_text('["../study.json", "mine')
    build_report(study.directory)
    assert (tmp_path / "study.json").is_file()
    assert (folder / "mine.svg").is_file()


def test_markup_in_names_is_text(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0], [64.0], [61.0]])
    page = build_report(study.write(title="<script>alert(1)</script> & more")).read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in page


def test_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "is not a study" in capsys.readouterr().err
    (tmp_path / "study.json").write_text('{"name": 3}')
    with pytest.raises(ConfigError):
        collect(tmp_path)


def test_knn_only_study_reports_neighbours(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0, 60.4], [64.0, 64.2], [61.0, 61.2]])
    study.probes = (study.probes[0].model_copy(update={"task": "knn"}),)
    for point in study.points:
        linear = study.probe_result(point.name)
        linear.parent.rename(linear.parent.with_name("knn-0123456789ab"))
    page, _, _ = built(study)
    assert "Nearest-neighbour top-1 is highest at temperature = 0.2 (62.60 %" in page


def test_a_study_of_fine_tuning_alone_reports_it(tmp_path: Path) -> None:
    study = small(tmp_path, [[60.0], [64.0], [61.0]])
    study.probes = (study.probes[0].model_copy(update={"task": "finetune"}),)
    for number, point in enumerate(study.points):
        path = study.probe_result(point.name)
        kinds = (("fine-tuned", 1.0, 70.0), ("fine-tuned", 0.1, 50.0), ("linear", 1.0, 66.0))
        rows = [{"name": name, "label_fraction": share, "top1": top + number} for name, share, top in kinds]
        study.edit(path, lambda value, rows=rows: value.update(task="finetune", rows=rows))
        path.parent.rename(path.parent.with_name("finetune-0123456789ab"))
    page, markdown, rows = built(study)
    assert "all 3 runs finished" in page
    assert "Fine-tuned top-1 is highest at temperature = 0.5 (72.00 %" in page
    assert [row["top1"] for row in rows] == ["70.0", "71.0", "72.0"]
    assert "| temperature 0.1 | 0 | 70.00 |" in markdown
