import pytest

from eval.report.figures.model import value_axis


@pytest.mark.parametrize("values", [[-3.0, -2.0], [0.0], [100.0], [120.0, 130.0], [5.0, 5.0], [], [float("nan")]])
@pytest.mark.parametrize("bounds", [(None, None), (0.0, None), (0.0, 100.0)])
def test_every_value_has_an_axis(values: list[float], bounds: tuple[float | None, float | None]) -> None:
    axis = value_axis(values, ticks=4, floor=bounds[0], top=bounds[1])
    assert axis.low < axis.high
    assert axis.ticks
