"""Intervals, contrasts and slopes against scipy and against counting by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.report.records import collect
from eval.report.statistics import (
    QuestionAnalysis,
    analyse_baseline,
    analyse_question,
    f_tail,
    pooled_deviation,
    student_t,
    studentized_range,
)
from tests.eval.studies import Place, SyntheticStudy

SEEDS = {64: [82.0, 82.6, 82.3], 128: [82.9, 83.3], 256: [83.1, 83.0, 83.8], 512: [83.9]}


def analyse(directory: Path, groups: dict[float, list[float | None]], **values: str) -> QuestionAnalysis:
    study = SyntheticStudy(directory)
    places = [Place(x, {"global_batch_size": int(x)}, list(seeds)) for x, seeds in groups.items()]
    study.question("global_batch_size", places, **values)
    record = collect(study.write())
    return analyse_question(record, record.manifest.questions[0])


@pytest.mark.parametrize(("groups", "freedom"), [(2, 1), (3, 6), (5, 2), (24, 30), (4, 500)])
def test_studentized_range_is_scipys(groups: int, freedom: int) -> None:
    expected = stats.studentized_range.ppf(0.95, groups, freedom)
    assert studentized_range(groups, freedom) == pytest.approx(expected, rel=1e-5)


def test_t_and_f_are_scipys() -> None:
    assert student_t(3) == pytest.approx(stats.t.ppf(0.975, 3))
    assert f_tail(4.2, (2, 7)) == pytest.approx(stats.f.sf(4.2, 2, 7))
    assert studentized_range(2, 5) / math.sqrt(2) == pytest.approx(student_t(5), rel=1e-6)


def test_pooled_deviation_by_hand() -> None:
    deviation, freedom = pooled_deviation([[1.0, 3.0], [5.0], [2.0, 2.0, 5.0], []])
    assert freedom == 3
    assert deviation == pytest.approx(math.sqrt((2 + 6) / 3))
    assert pooled_deviation([[1.0], [2.0]]) == (None, 0)
    assert pooled_deviation([[1.0, 1.0]]) == (None, 0), "seeds that agree exactly are no seeds"


def test_means_and_intervals(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, SEEDS)
    squares = sum(float(np.var(v, ddof=0)) * len(v) for v in SEEDS.values())
    deviation = math.sqrt(squares / 5)
    assert analysis.degrees_of_freedom == 5
    for condition in analysis.conditions:
        values = SEEDS[int(condition.x)]
        assert condition.mean is not None
        assert condition.mean.value == pytest.approx(np.mean(values))
        assert condition.mean.half_width == pytest.approx(stats.t.ppf(0.975, 5) * deviation / math.sqrt(len(values)))


def test_contrast_is_tukeys(tmp_path: Path) -> None:
    groups = {64: [82.0, 82.6, 82.3], 128: [82.9, 83.3, 83.0], 256: [83.1, 83.0, 83.8]}
    contrast = analyse(tmp_path, groups).contrast
    assert contrast is not None
    theirs = stats.tukey_hsd(*groups.values())
    interval = theirs.confidence_interval(0.95)
    assert (contrast.best.x, contrast.worst.x) == (256, 64)
    assert contrast.difference.value == pytest.approx(theirs.statistic[2, 0])
    assert contrast.difference.low == pytest.approx(interval.low[2, 0], abs=1e-4)
    assert contrast.difference.high == pytest.approx(interval.high[2, 0], abs=1e-4)


def test_slope_per_doubling(tmp_path: Path) -> None:
    (slope,) = analyse(tmp_path, SEEDS).slopes
    x = [math.log2(key) for key, values in SEEDS.items() for _ in values]
    y = [value for values in SEEDS.values() for value in values]
    expected = stats.linregress(x, y)
    assert slope.per_doubling
    assert slope.slope.value == pytest.approx(expected.slope)
    spread = sum((value - np.mean(x)) ** 2 for value in x)
    deviation, freedom = pooled_deviation(list(SEEDS.values()))
    assert deviation is not None
    assert slope.slope.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * deviation / math.sqrt(spread))
    assert not slope.lack_of_fit


def test_slope_of_a_linear_axis_is_per_unit(tmp_path: Path) -> None:
    (slope,) = analyse(tmp_path, {1: [80.0, 80.2], 3: [84.0, 84.2]}, x_scale="linear").slopes
    assert not slope.per_doubling
    assert slope.slope.value == pytest.approx(2.0)


def test_bent_curve_is_remarked(tmp_path: Path) -> None:
    (slope,) = analyse(tmp_path, {64: [80.0, 80.1], 256: [84.0, 84.1], 1024: [80.0, 80.1]}).slopes
    assert slope.lack_of_fit
    assert slope.slope.contains_zero


def test_one_seed_gives_no_interval(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, {64: [80.0], 256: [82.0], 1024: [83.0]})
    assert analysis.pooled_deviation is None
    assert all(c.mean is not None and c.mean.half_width is None for c in analysis.conditions)
    assert analysis.contrast is not None
    assert analysis.contrast.difference.half_width is None
    assert analysis.slopes[0].slope.half_width is None


def test_missing_seed_is_left_out_and_counted(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, {64: [80.0, None], 256: [82.0, 82.4], 1024: [None, None]})
    assert [c.mean.value if c.mean else None for c in analysis.conditions] == [80.0, pytest.approx(82.2), None]
    assert len(analysis.missing) == 3
    assert analysis.degrees_of_freedom == 1


def test_baseline_uses_its_own_seeds(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    study.question("global_batch_size", [Place(64, {"global_batch_size": 64}, [80.0, 84.0])])
    study.baseline("random", "Random encoder", [62.0, 62.4, 62.2], {"epochs": 0})
    record = collect(study.write())
    analysis = analyse_baseline(record, record.manifest.baselines[0])
    assert analysis.condition.mean is not None
    half = stats.t.ppf(0.975, 2) * np.std([62.0, 62.4, 62.2], ddof=1) / math.sqrt(3)
    assert analysis.condition.mean.half_width == pytest.approx(half)
