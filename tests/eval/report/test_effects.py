"""Which sizes come close to the best, and what negatives do alone, against counting by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from eval.report.content import make_report
from eval.report.effects import NegativesEffect, Plateau, negatives_effects, plateaus
from eval.report.records import StudyRecord, collect
from eval.report.table import ReportData
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


def ends(study: StudyRecord) -> Plateau:
    (found,) = plateaus(ReportData((study,)).analyses[study.label][0])
    return found


def effects(study: StudyRecord) -> list[NegativesEffect]:
    return negatives_effects(study, ReportData((study,)).analyses[study.label])


def scattered(means: dict[int, float], deviation: float = 0.2, seeds: int = 3) -> dict[int, list[float]]:
    """Values around each mean: a seed is high in one condition and low in the next."""
    rng = np.random.default_rng(5)
    return {size: [mean + float(z) for z in deviation * rng.standard_normal(seeds)] for size, mean in means.items()}


def test_a_line_that_turns_flat(tmp_path: Path) -> None:
    means = {size: 70 + 2 * min(math.log2(size / 64), 2.5) for size in SIZES}
    found = ends(study_of(tmp_path, scattered(means), {}))
    assert found.enough is not None
    assert found.enough.x == 512
    assert 0 < found.short < 1
    assert [c.x for c in found.ruled_out] == [64, 128, 256]


def test_a_line_that_still_rises(tmp_path: Path) -> None:
    found = ends(study_of(tmp_path, scattered({size: 70 + 2 * math.log2(size / 64) for size in SIZES}), {}))
    assert found.enough is not None
    assert (found.enough.x, found.short) == (2048, 0)
    assert len(found.ruled_out) == 5


def test_flat_from_the_start(tmp_path: Path) -> None:
    found = ends(study_of(tmp_path, scattered(dict.fromkeys(SIZES, 70.0)), {}))
    assert found.enough is not None
    assert found.enough.x == 64
    assert found.ruled_out == ()


def test_seeds_that_scatter_too_much_show_nothing(tmp_path: Path) -> None:
    study = study_of(tmp_path, scattered({size: 70 + math.log2(size / 64) for size in SIZES}, deviation=3.0), {})
    assert ends(study).enough is None
    assert "no batch size is shown to come within 1 point" in " ".join(make_report(study).sections[0].findings)


def test_without_seeds_nothing_is_said_to_end(tmp_path: Path) -> None:
    study = study_of(tmp_path, {size: [70.0 + size] for size in SIZES}, {})
    assert plateaus(ReportData((study,)).analyses[study.label][0]) == []
    page = " ".join(make_report(study).sections[0].findings)
    assert "Compared with the best" not in page


def test_negatives_by_hand(tmp_path: Path) -> None:
    """Conditions share seeds, and the runs at 1,024 are in both effects; each effect is a contrast of a block fit."""
    batch = scattered({64: 70.0, 256: 74.0, 1024: 78.0})
    negatives = {**scattered({128: 76.0, 512: 77.0}), 1024: batch[1024]}
    (found,) = effects(study_of(tmp_path, batch, negatives))
    assert (found.batches, found.negatives, found.fixed_batch) == ((256, 1024), (510, 2046), 1024)
    table = np.array([*batch.values(), negatives[128], negatives[512]])
    rest = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    error = math.sqrt(float((rest**2).sum()) / 8 / 3)
    step = (math.log2(510) - math.log2(254)) / (math.log2(1022) - math.log2(254))
    for effect, weights in (
        (found.of_batch, [0, -1, 1, 0, 0]),
        (found.of_negatives, [0, 0, 1, -(1 - step), -step]),
        (found.rest, [0, -1, 0, 1 - step, step]),
    ):
        assert effect.value == pytest.approx(float(np.array(weights) @ table.mean(1)))
        assert effect.half_width == pytest.approx(stats.t.ppf(0.975, 8) * error * float(np.linalg.norm(weights)))


def test_both_effects_are_said_with_their_difference_and_no_share(tmp_path: Path) -> None:
    study = study_of(tmp_path, scattered({64: 70.0, 1024: 70.1}), scattered({64: 70.0, 1024: 70.1}))
    (section,) = [found for found in make_report(study).sections if found.anchor.startswith("negatives")]
    assert "The difference of the two, " in section.findings[0]
    assert section.findings[0].count("95 % interval") == 3
    assert "explain" not in section.findings[0]


def test_no_effect_where_other_things_differ(tmp_path: Path) -> None:
    study = SyntheticStudy(tmp_path)
    study.question(
        "b", [Place(b, {"global_batch_size": b}, [70.0 + b / 100, 71.0]) for b in (64, 256)], x_key="global_batch_size"
    )
    places = [Place(2 * k - 2, {"objective.negatives": k, "epochs": 9}, [70.0, 72.0]) for k in (64, 256)]
    study.question("n", places, x_key="negatives_per_anchor")
    assert effects(collect(study.write())) == []
