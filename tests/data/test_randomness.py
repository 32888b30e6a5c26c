"""Random numbers are functions of their counters: golden values that must never change, and independence."""

from __future__ import annotations

from dataclasses import replace

import numba
import numpy as np
import pytest

from pretrain.config import AugmentationConfig
from pretrain.data.kernels import randomness
from pretrain.data.kernels import view as view_kernels
from pretrain.data.kernels.operations import DRAWN, OPERATIONS, check_slots, settings_record
from pretrain.data.renderer import RenderSettings

u64 = np.uint64

GOLDEN_UNIFORMS = [0.5099659631757403, 0.41841113209786973, 0.41895650823936126]
GOLDEN_ORDER_KEYS = [17083363622697818268, 9868434376529659993, 6418444127614313832]
GOLDEN_SUBSET_KEYS = [8349077792257542819, 16051188185124956539, 1869369754662702381]
GOLDEN_SLOTS = {
    "crop": list(range(64, 104)),
    "flip": [1],
    "jitter": [2, 3, 4, 5, 6, 7, 8, 9],
    "grayscale": [10],
    "blur": [11, 12],
    "solarize": [13],
    "perspective": [14, *range(15, 23)],
    "rotation": [23, 24],
    "invert": [25],
}
GOLDEN_PARAMETERS = [
    {
        "top": 4,
        "left": 6,
        "height": 36,
        "width": 36,
        "flip": 1,
        "jitter": 1,
        "grayscale": 0,
        "solarize": 1,
        "brightness": 1.2598357989467035,
        "contrast": 0.7317360337699744,
        "saturation": 1.4094750714110509,
        "hue": 0.16471600243851078,
        "blur_sigma_px": 0.0,
        "jitter_order": [2, 3, 0, 1],
    },
    {
        "top": 0,
        "left": 5,
        "height": 40,
        "width": 38,
        "flip": 1,
        "jitter": 1,
        "grayscale": 0,
        "solarize": 0,
        "brightness": 0.3221588798202962,
        "contrast": 1.7968450601750054,
        "saturation": 0.2283660092935921,
        "hue": 0.18881813100833164,
        "blur_sigma_px": 0.0,
        "jitter_order": [2, 0, 3, 1],
    },
    {
        "top": 6,
        "left": 7,
        "height": 33,
        "width": 32,
        "flip": 0,
        "jitter": 1,
        "grayscale": 0,
        "solarize": 1,
        "brightness": 0.6176273432099547,
        "contrast": 1.3519962828514842,
        "saturation": 0.9382913813851406,
        "hue": 0.19986679257470286,
        "blur_sigma_px": 1.867935262381911,
        "jitter_order": [1, 3, 2, 0],
    },
    {
        "top": 1,
        "left": 16,
        "height": 39,
        "width": 34,
        "flip": 0,
        "jitter": 1,
        "grayscale": 0,
        "solarize": 1,
        "brightness": 0.21371315328613885,
        "contrast": 1.4709085799438675,
        "saturation": 0.5561550346102212,
        "hue": 0.07171395068934082,
        "blur_sigma_px": 1.8565119090770055,
        "jitter_order": [2, 3, 1, 0],
    },
]


def column(seed: int, epoch: int, view: int, slot: int, samples: int = 20_000) -> np.ndarray:
    index_N = np.arange(samples, dtype=np.uint64)
    with np.errstate(over="ignore"):
        return randomness.uniform(randomness.view_key(u64(seed), u64(epoch), index_N, u64(view)), u64(slot))


def test_mix64_is_splitmix64() -> None:
    """The reference sequence of splitmix64 with seed 1234567 (Vigna's splitmix64.c)."""
    with np.errstate(over="ignore"):
        state_N = u64(1234567) + np.arange(1, 4, dtype=np.uint64) * randomness.GOLDEN
    wanted = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert randomness.mix64(state_N).tolist() == wanted


def test_golden_uniforms() -> None:
    assert column(0, 0, 0, 1, 3).tolist() == pytest.approx(GOLDEN_UNIFORMS, abs=1e-15)
    assert randomness.order_keys(5, 7, np.arange(3)).tolist() == GOLDEN_ORDER_KEYS
    assert randomness.subset_keys(np.arange(3)).tolist() == GOLDEN_SUBSET_KEYS


def test_compiled_code_draws_the_same() -> None:
    @numba.njit
    def compiled(seed, epoch, index, view, slot):  # type: ignore[no-untyped-def]
        return randomness.uniform(randomness.view_key(u64(seed), u64(epoch), u64(index), u64(view)), u64(slot))

    assert [compiled(3, 2, k, 1, 9) for k in range(4)] == column(3, 2, 1, 9, 4).tolist()


def test_slots_keep_their_meaning() -> None:
    """Which random number decides what is part of what a seed means; a number that is used twice is refused."""
    slots = {operation.name: list(operation.slots) for operation in OPERATIONS}
    assert {name: slots.pop(name) for name in GOLDEN_SLOTS} == GOLDEN_SLOTS
    twice = replace(OPERATIONS[-1], name="posterize", slots=(26, 13))
    with pytest.raises(ValueError, match="slot 13 of posterize belongs to solarize; the first free number is 27"):
        check_slots((*OPERATIONS, twice))


def test_every_operation_can_be_switched_off() -> None:
    """By a probability of its own: what evaluations rely on to leave out all but the crop and the flip."""
    for operation in OPERATIONS[1:]:
        assert f"{operation.name}_probability" in operation.configured


def test_uniform_and_independent() -> None:
    """Every counter matters, and neighbours are uncorrelated (4 sigma)."""
    base = column(1, 0, 0, 1)
    deviation = np.abs(np.sort(base) - np.arange(len(base)) / len(base)).max()
    assert deviation < 1.95 / np.sqrt(len(base))  # Kolmogorov-Smirnov at 0.1 %
    others = [column(2, 0, 0, 1), column(1, 1, 0, 1), column(1, 0, 1, 1), column(1, 0, 0, 2), np.roll(base, 1)]
    for other in others:
        assert abs(np.corrcoef(base, other)[0, 1]) < 4 / np.sqrt(len(base))


def draw(config: AugmentationConfig, images: int, height: int = 40, width: int = 50, seed: int = 3) -> np.ndarray:
    drawn_BV = np.zeros((images, config.number_of_views), DRAWN)
    index_B = np.arange(images)
    settings_V = RenderSettings.of(config, seed).settings_V
    view_kernels.draw(u64(seed), u64(11), index_B, height, width, settings_V, drawn_BV)
    return drawn_BV


def test_golden_parameters() -> None:
    """What seed 3, epoch 11 mean for the views of samples 0 and 1. If this changes, every published seed changes."""
    drawn_BV = draw(AugmentationConfig(crop_size_px=32, solarize_probability=0.5), 2)
    for got, wanted in zip(drawn_BV.reshape(-1), GOLDEN_PARAMETERS, strict=True):
        for name, value in wanted.items():
            assert got[name].tolist() == pytest.approx(value, rel=1e-12), name


def test_rates_and_ranges() -> None:
    config = AugmentationConfig(crop_size_px=32, solarize_probability=0.3)
    drawn = draw(config, 4000).reshape(-1)
    sigma = 4 * 0.5 / np.sqrt(len(drawn))
    blurred = drawn["blur_sigma_px"] > 0
    rates = {"flip": 0.5, "jitter": 0.8, "grayscale": 0.2, "solarize": 0.3}
    for got, wanted in ((blurred, 0.5), *((drawn[name], rate) for name, rate in rates.items())):
        assert abs(got.mean() - wanted) < sigma
    for name, low, high in (("brightness", 0.2, 1.8), ("hue", -0.2, 0.2)):
        assert low <= drawn[name].min() < low + 0.01 * (high - low) + 1e-3
        assert high >= drawn[name].max() > high - 0.01 * (high - low) - 1e-3
    assert 0.1 <= drawn["blur_sigma_px"][blurred].min() <= drawn["blur_sigma_px"].max() <= 2.0
    orders = {tuple(order) for order in drawn["jitter_order"].tolist()}
    assert len(orders) == 24
    assert (drawn["top"] + drawn["height"] <= 40).all()
    assert (drawn["left"] + drawn["width"] <= 50).all()
    assert (drawn["height"] > 0).all()


def test_views_can_differ() -> None:
    config = AugmentationConfig(crop_size_px=32, view_overrides={1: {"solarize_probability": 1.0}})
    solarize_BV = draw(config, 50)["solarize"]
    assert solarize_BV[:, 0].sum() == 0
    assert solarize_BV[:, 1].all()


@pytest.mark.parametrize(("side", "radius"), [(224, 11), (96, 4), (32, 1), (28, 1), (16, 0)])
def test_blur_kernel_is_simclrs(side: int, radius: int) -> None:
    """google-research/simclr: kernel_size = side // 10, radius = kernel_size // 2."""
    assert settings_record(AugmentationConfig(), side)["blur_radius"][0] == radius
