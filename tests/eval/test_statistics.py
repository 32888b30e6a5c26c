"""Intervals, contrasts and slopes against scipy and against counting by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.report.factors import views
from eval.report.records import collect
from eval.report.statistics import (
    Fit,
    QuestionAnalysis,
    analyse_baseline,
    analyse_view,
    dunnett,
    student_t,
    tukey,
)
from tests.eval.studies import Place, SyntheticStudy

SEEDS = {64: [82.0, 82.6, 82.3], 128: [82.9, 83.3], 256: [83.1, 83.0, 83.8], 512: [83.9]}
WHOLE = {64: [82.0, 82.6, 82.3], 128: [82.9, 83.3, 82.8], 256: [83.1, 83.0, 83.8]}


def analyse(directory: Path, groups: dict[float, list[float | None]], **values: str) -> QuestionAnalysis:
    study = SyntheticStudy(directory)
    places = [Place(x, {"global_batch_size": int(x)}, list(seeds)) for x, seeds in groups.items()]
    study.question("global_batch_size", places, **values)
    record = collect(study.write())
    return analyse_view(record, views(record, record.manifest.questions[0])[0])


def by_seed(groups: dict[int, list[float]]) -> dict[int, dict[int, float]]:
    return {key: dict(enumerate(values)) for key, values in groups.items()}


def test_quantiles_are_scipys() -> None:
    assert student_t(3) == pytest.approx(stats.t.ppf(0.975, 3))
    assert student_t(3, 4) == pytest.approx(stats.t.ppf(1 - 0.025 / 4, 3))
    assert tukey(2, 5) == pytest.approx(student_t(5), rel=1e-6)
    assert dunnett(1, 5) == pytest.approx(stats.t.ppf(0.95, 5), rel=1e-3)
    # Dunnett's table, one-sided 95 %: 5 treatments against a control, 20 degrees of freedom.
    assert dunnett(5, 20) == pytest.approx(2.39, abs=0.01)


def test_a_paired_t_test_is_scipys() -> None:
    a, b = WHOLE[64], WHOLE[128]
    found = Fit(by_seed({64: a, 128: b})).contrast({128: 1.0, 64: -1.0})
    theirs = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert found.ends == pytest.approx((theirs.low, theirs.high))


def test_unshared_seeds_are_not_paired() -> None:
    fit = Fit({"a": {0: 70.0, 1: 71.0, 2: 70.4}, "b": {3: 72.0, 4: 72.2, 5: 72.9}})
    assert not fit.paired
    theirs = stats.ttest_ind([72.0, 72.2, 72.9], [70.0, 71.0, 70.4]).confidence_interval(0.95)
    assert fit.contrast({"b": 1.0, "a": -1.0}).ends == pytest.approx((theirs.low, theirs.high))


def test_unequal_noise_falls_back_on_the_runs_of_each_contrast() -> None:
    rng = np.random.default_rng(0)
    wild = [float(v) for v in 70 + 30 * rng.standard_normal(8)]
    calm = [[float(v) for v in 70 + 0.1 * rng.standard_normal(8)] for _ in range(3)]
    fit = Fit({index: dict(enumerate(values)) for index, values in enumerate([*calm, wild])})
    assert not fit.equal
    theirs = stats.ttest_rel(calm[1], calm[0]).confidence_interval(0.95)
    assert fit.contrast({1: 1.0, 0: -1.0}).ends == pytest.approx((theirs.low, theirs.high))
    apart = Fit(
        {index: {10 * index + s: v for s, v in enumerate(values)} for index, values in enumerate([*calm, wild])}
    )
    assert not apart.equal
    welch = stats.ttest_ind(wild, calm[0], equal_var=False).confidence_interval(0.95)
    assert apart.contrast({3: 1.0, 0: -1.0}).ends == pytest.approx((welch.low, welch.high))


def test_seeds_that_agree_are_no_seeds() -> None:
    assert Fit({"a": {0: 1.0}, "b": {0: 2.0}}).deviation is None
    assert Fit({"a": {0: 1.0, 1: 1.0}}).deviation is None
    assert Fit({"a": {0: 1.0, 1: 2.0}, "b": {0: 2.0, 1: 3.0}}).contrast({"a": 1.0, "b": -1.0}).half_width is None


def test_means_and_intervals(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, WHOLE)
    table = np.array(list(WHOLE.values()))
    within = float(((table - table.mean(1, keepdims=True)) ** 2).sum())
    seeds = len(table) * float(((table.mean(0) - table.mean()) ** 2).sum())
    freedom = within**2 / (seeds**2 / 2 + (within - seeds) ** 2 / 4)
    assert analysis.fit.freedom == pytest.approx(freedom)
    for condition in analysis.conditions:
        values = WHOLE[int(condition.x)]
        assert condition.mean is not None
        assert condition.mean.value == pytest.approx(np.mean(values))
        half = stats.t.ppf(0.975, freedom) * math.sqrt(within / 6 / len(values))
        assert condition.mean.half_width == pytest.approx(half)


def test_contrast_is_tukeys(tmp_path: Path) -> None:
    found = analyse(tmp_path, WHOLE).contrast
    assert found is not None
    best, worst, difference = found
    assert (best.x, worst.x) == (256, 64)
    table = np.array(list(WHOLE.values()))
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    half = stats.studentized_range.ppf(0.95, 3, 4) * math.sqrt(float((rest**2).sum()) / 4 / 3)
    assert difference.value == pytest.approx(table[2].mean() - table[0].mean())
    assert difference.half_width == pytest.approx(half)


def test_slope_is_that_of_each_seed(tmp_path: Path) -> None:
    """With every seed in every condition, the block fit is the mean of the seeds' own slopes."""
    (slope,) = analyse(tmp_path, WHOLE).slopes
    own = [stats.linregress([6, 7, 8], seed).slope for seed in zip(*WHOLE.values())]
    assert slope.per_doubling
    assert slope.slope.value == pytest.approx(np.mean(own))
    assert slope.bent is False


def test_slope_of_a_linear_axis_is_per_unit(tmp_path: Path) -> None:
    (slope,) = analyse(tmp_path, {1: [80.0, 80.2], 3: [84.0, 84.2]}, x_scale="linear").slopes
    assert not slope.per_doubling
    assert slope.slope.value == pytest.approx(2.0)
    assert slope.bent is None, "two conditions always lie on a line"


def test_bent_curve_is_remarked(tmp_path: Path) -> None:
    (slope,) = analyse(tmp_path, {64: [80.0, 80.1], 256: [84.0, 84.2], 1024: [80.0, 80.1]}).slopes
    assert slope.bent
    assert slope.slope.contains_zero


def test_one_seed_gives_no_interval(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, {64: [80.0], 256: [82.0], 1024: [83.0]})
    assert analysis.fit.deviation is None
    assert all(c.mean is not None and c.mean.half_width is None for c in analysis.conditions)
    assert analysis.contrast is not None
    assert analysis.contrast[2].half_width is None
    assert analysis.slopes[0].slope.half_width is None


def test_missing_seed_is_left_out_and_counted(tmp_path: Path) -> None:
    analysis = analyse(tmp_path, {64: [80.0, None], 256: [82.0, 82.4], 1024: [None, None]})
    assert [c.mean.value if c.mean else None for c in analysis.conditions] == [80.0, pytest.approx(82.2), None]
    assert sum(len(c.missing) for c in analysis.conditions) == 3
    assert analysis.fit.freedom == 1


def test_baseline_uses_its_own_seeds(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    study.question("global_batch_size", [Place(64, {"global_batch_size": 64}, [80.0, 84.0])])
    study.baseline("random", "Random encoder", [62.0, 62.4, 62.2], {"epochs": 0})
    record = collect(study.write())
    mean = analyse_baseline(record, record.manifest.baselines[0]).mean
    assert mean is not None
    half = stats.t.ppf(0.975, 2) * np.std([62.0, 62.4, 62.2], ddof=1) / math.sqrt(3)
    assert mean.half_width == pytest.approx(half)
