"""Where gains end and what negatives explain, against brute force and simulation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, stats

from eval.report.content import make_report
from eval.report.effects import Plateau, negative_shares, plateaus
from eval.report.records import StudyRecord, collect
from eval.report.statistics import analyse_question
from tests.eval.studies import Place, SyntheticStudy

SIZES = (64, 128, 256, 512, 1024, 2048)


def study_of(directory: Path, batch: dict[int, list[float]], negatives: dict[int, list[float]]) -> StudyRecord:
    """Batch sizes; and numbers of negatives at batch size 1,024, which shares its runs with all negatives there."""
    study = SyntheticStudy(directory)
    places = [Place(size, {"global_batch_size": size}, list(values)) for size, values in batch.items()]
    study.question("batch", places, x_key="global_batch_size", x_label="Batch size (images)")
    if negatives:
        places = [
            Place(
                2 * k - 2, {"global_batch_size": 1024} | ({"objective.negatives": k} if k < 1024 else {}), list(values)
            )
            for k, values in negatives.items()
        ]
        study.question("negatives", places, x_key="negatives_per_anchor", x_label="Negatives per anchor")
    return collect(study.write())


def fewer(negatives: int) -> dict[str, int]:
    """The setting that cuts a batch of 1,024 into groups; none for the whole of it."""
    return {"objective.negatives": negatives} if negatives < 1024 else {}


def ends(study: StudyRecord) -> Plateau:
    (found,) = plateaus(analyse_question(study, study.manifest.questions[0]))
    return found


def scattered(means: dict[int, float], deviation: float = 0.2, seeds: int = 3) -> dict[int, list[float]]:
    """Three seeds with exactly this deviation around each mean."""
    offsets = (np.arange(seeds) - (seeds - 1) / 2) * deviation / np.std(np.arange(seeds), ddof=1)
    return {size: [mean + float(offset) for offset in offsets] for size, mean in means.items()}


def test_a_line_that_turns_flat(tmp_path: Path) -> None:
    means = {size: 70 + 2 * min(math.log2(size / 64), 2.5) for size in SIZES}
    found = ends(study_of(tmp_path, scattered(means), {}))
    assert found.enough.x == 512
    assert not found.is_last
    assert found.turn == pytest.approx(64 * 2**2.5, rel=0.03)
    assert found.turn_low is not None
    assert found.turn_high is not None
    assert found.turn_low < 64 * 2**2.5 < found.turn_high


def test_a_line_that_still_rises(tmp_path: Path) -> None:
    found = ends(study_of(tmp_path, scattered({size: 70 + 2 * math.log2(size / 64) for size in SIZES}), {}))
    assert found.is_last
    assert found.turn_high is None


def test_a_peak_has_no_turn(tmp_path: Path) -> None:
    found = ends(study_of(tmp_path, scattered({64: 70, 128: 73, 256: 76, 512: 73, 1024: 70}), {}))
    assert found.enough.x == 256
    assert (found.turn, found.turn_low, found.turn_high) == (None, None, None)


def test_flat_from_the_start(tmp_path: Path) -> None:
    found = ends(study_of(tmp_path, scattered(dict.fromkeys(SIZES, 70.0)), {}))
    assert found.enough.x == 64
    assert found.turn is None
    assert 0 < found.unnoticed < 1


def test_without_seeds_nothing_is_said_to_end(tmp_path: Path) -> None:
    study = study_of(tmp_path, {size: [70.0 + size] for size in SIZES}, {})
    assert plateaus(analyse_question(study, study.manifest.questions[0])) == []
    page = " ".join(make_report(study).sections[0].findings)
    assert "chance" not in page


def test_turn_is_least_squares(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    means = {size: 70 + 1.5 * min(math.log2(size / 64), 3) for size in SIZES}
    values = {size: [float(v) for v in mean + 0.2 * rng.standard_normal(3)] for size, mean in means.items()}
    found = ends(study_of(tmp_path, values, {}))
    x = np.array([math.log2(size) for size, seeds in values.items() for _ in seeds])
    y = np.array([value for seeds in values.values() for value in seeds])

    def squares(turn: float) -> float:
        line = stats.linregress(np.minimum(x, turn), y)
        return float(((y - line.intercept - line.slope * np.minimum(x, turn)) ** 2).sum())

    best = optimize.brute(lambda t: squares(t[0]), (slice(6.05, 11, 0.01),), finish=None)
    assert found.turn is not None
    assert math.log2(found.turn) == pytest.approx(float(best), abs=0.03)


def test_share_of_negatives_by_hand(tmp_path: Path) -> None:
    batch = scattered({64: 70.0, 256: 74.0, 1024: 78.0})
    negatives = scattered({64: 76.0, 256: 77.0}) | {1024: batch[1024]}
    study = study_of(tmp_path, batch, negatives)
    (share,) = negative_shares(study, [analyse_question(study, q) for q in study.manifest.questions])
    assert share.batches == (64, 1024)
    assert share.negatives == (126, 2046)
    assert share.fixed_batch == 1024
    assert share.batch_effect.value == pytest.approx(8.0)
    assert share.negatives_effect.value == pytest.approx(2.0)
    assert share.share == pytest.approx(0.25)
    # The runs at 1,024 are in both effects. By hand: v = s^2 (1/3 + 1/3), covariance s^2 / 3, 10 degrees of freedom.
    s, t = 0.2, stats.t.ppf(0.975, 10)
    v, c = 2 * s**2 / 3, s**2 / 3
    roots = np.roots([64 - t**2 * v, -2 * (16 - t**2 * c), 4 - t**2 * v])  # (N - R D)^2 = t^2 (v - 2 R c + R^2 v)
    assert [share.share_low, share.share_high] == pytest.approx(sorted(roots))


def test_share_covers_the_truth_as_often_as_it_says(tmp_path: Path) -> None:
    """Fieller's interval from simulated studies: 95 % of them hold the true share."""
    rng = np.random.default_rng(0)
    study = study_of(tmp_path, scattered({64: 70.0, 1024: 74.0}), scattered({64: 73.0, 1024: 74.0}))
    held, trials = 0, 400
    for _ in range(trials):
        truth = {"64": 70.0, "1024": 74.0}
        for record in study.points.values():
            mean = (
                73.0
                if "objective.negatives" in record.point.settings
                else truth[str(record.point.settings["global_batch_size"])]
            )
            object.__setattr__(record, "top1", mean + float(0.5 * rng.standard_normal()))
        (share,) = negative_shares(study, [analyse_question(study, q) for q in study.manifest.questions])
        if share.share_low is None or share.share_high is None or share.share_low <= 0.25 <= share.share_high:
            held += 1
    assert 0.92 < held / trials < 0.98


def test_no_share_where_the_batch_effect_may_be_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path, scattered({64: 70.0, 1024: 70.1}), scattered({64: 70.0, 1024: 70.1}))
    report = make_report(study)
    (section,) = [section for section in report.sections if section.anchor.startswith("share")]
    assert "no share to speak of" in section.findings[0]
    assert "explain" not in section.findings[0]


def test_no_share_where_other_things_differ(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    study.question(
        "b", [Place(b, {"global_batch_size": b}, [70.0 + b / 100, 71.0]) for b in (64, 256)], x_key="global_batch_size"
    )
    places = [Place(2 * k - 2, {"objective.negatives": k, "epochs": 9}, [70.0, 72.0]) for k in (64, 256)]
    study.question("n", places, x_key="negatives_per_anchor")
    record = collect(study.write())
    assert negative_shares(record, [analyse_question(record, q) for q in record.manifest.questions]) == []
