"""Dropout by position: its statistics, what its mask depends on; test_forward_backward.py has ranks, micro-batches."""

import torch
from torch import Tensor

from pretrain.batch import StepContext
from pretrain.models.heads import PositionalDropout, build_projector
from pretrain.objectives.config import ProjectorConfig

ROWS, WIDTH = 512, 256


def dropout(probability: float = 0.3, seed: int = 0) -> PositionalDropout:
    torch.manual_seed(seed)
    return PositionalDropout(probability)


def at(step: int, rows_N: Tensor | None = None) -> StepContext:
    return StepContext(step, rows_N=torch.arange(ROWS) if rows_N is None else rows_N)


def test_the_share_is_dropped_and_the_rest_scaled() -> None:
    y = dropout()(torch.ones(ROWS, WIDTH), at(0))
    dropped = (y == 0).double()
    assert abs(float(dropped.mean()) - 0.3) < 5 * (0.3 * 0.7 / y.numel()) ** 0.5
    # Rows, and columns, are dropped independently of one another.
    for counts, length in ((dropped.sum(0), ROWS), (dropped.sum(1), WIDTH)):
        assert 0.8 < float(counts.var()) / (length * 0.3 * 0.7) < 1.25
    assert torch.equal(y[y != 0].unique(), torch.tensor([1 / 0.7]))


def test_the_mask_depends_on_key_step_and_position_alone() -> None:
    x = torch.ones(ROWS, WIDTH)
    one = dropout()
    first = one(x, at(0))
    assert torch.equal(first, one(x, at(0))), "the second pass of gradient caching drops the same"
    assert torch.equal(one(x, at(0, torch.arange(ROWS).flip(0))), first.flip(0))
    other = dropout(seed=1)(x, at(0))
    for another in (other, one(x, at(1)), first.roll(1, 0), first.roll(1, 1)):
        assert abs(float(((another == 0) == (first == 0)).double().mean()) - 0.58) < 0.01, "independent masks"


def test_nothing_is_dropped_in_evaluation() -> None:
    x = torch.randn(ROWS, WIDTH)
    assert torch.equal(dropout().eval()(x), x)


def test_heads_have_it_where_it_is_asked_for() -> None:
    def count(**changes: object) -> int:
        head = build_projector(ProjectorConfig.model_validate(changes), feature_width=8)
        return sum(isinstance(module, PositionalDropout) for module in head)

    assert [count(), count(dropout=0.1), count(dropout=0.1, layers=3), count(dropout=0.1, layers=1)] == [0, 1, 2, 1]
