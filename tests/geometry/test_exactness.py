"""Rotated IoU against the truth of tests/oracle.py, on every family of tests/strategies.py, in every back end of a CPU.

`benchmarks/exactness.py` does the same with 100,000 pairs a family; docs/exactness.md has its figures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from focaldet.geometry.kernels.choose import numba_fits
from focaldet.geometry.rotated_iou import (
    rotated_iou,
    rotated_iou_aligned,
    rotated_iou_aligned_torch,
    rotated_iou_torch,
)
from oracle import Over, exact_iou, mp, true_ious, true_ious_with_remainder
from strategies import FAMILIES, pairs_of, rbox_pairs, rboxes

NUM_PAIRS = 1_000
FLOAT64 = 1e-11
"""Promised; aspect 10,000 reaches 1e-12: the ends of a long side lie 1e-16 of it beside their place."""
FLOAT32 = 1e-6
"""Promised, for exactly the float32 numbers given; an answer in float32 is off by 3e-8 already."""

Array = NDArray[Any]
Pair = tuple[Array, Array]
Function = Callable[..., torch.Tensor]

OVERS: tuple[Over, Over] = ("union", "first")
ALIGNED = {"numba": rotated_iou_aligned, "torch": rotated_iou_aligned_torch}
PAIRWISE = {"numba": rotated_iou, "torch": rotated_iou_torch}
every_family = pytest.mark.parametrize("name", FAMILIES)
every_aligned = pytest.mark.parametrize("function", ALIGNED.values(), ids=ALIGNED)
every_pairwise = pytest.mark.parametrize("function", PAIRWISE.values(), ids=PAIRWISE)


def run(function: Function, boxes1: Array, boxes2: Array, over: Over = "union") -> Array:
    answer = function(torch.from_numpy(boxes1), torch.from_numpy(boxes2), over=over).numpy()
    assert answer.dtype == boxes1.dtype
    return answer


def assert_exact(answer: Array, boxes1: Array, boxes2: Array, over: Over, tolerance: float) -> None:
    assert ((answer >= 0) & (answer <= 1)).all()  # and so no NaN
    truth = true_ious(boxes1, boxes2, over)
    error = np.abs(answer - truth)
    worst = error.argmax()
    pair = f"{boxes1[worst].tolist()} and {boxes2[worst].tolist()}"
    assert error[worst] <= tolerance, f"{answer[worst]:.17g} where {truth[worst]:.17g} is true, of {pair}"


# The oracle

ROOT = float(np.sqrt(2.0))
QUARTER = float(np.pi / 2)


@pytest.mark.parametrize(
    ("box1", "box2", "iou"),
    [
        pytest.param((3, 4, 10, 6, 0.3), (3, 4, 10, 6, 0.3), 1.0, id="the same"),
        pytest.param((3, 4, 10, 6, 0.3), (3, 4, 6, 10, 0.3 - QUARTER), 1.0, id="sides swapped"),
        pytest.param((0, 0, 2, 2, 0), (1, 0, 2, 2, 0), 1 / 3, id="half shared"),
        pytest.param((0, 0, 2, 2, 0), (2, 0, 2, 2, 0), 0.0, id="touching"),
        pytest.param((0, 0, 2, 2, 0), (9, 9, 2, 2, 0), 0.0, id="apart"),
        pytest.param((0, 0, 9, 9, 1), (0.1, 0.2, 3, 3, 2), 1 / 9, id="contained"),
        pytest.param((0, 0, 6, 2, 0.7), (0, 0, 6, 2, 0.7 + QUARTER), 4 / 20, id="cross"),
        pytest.param((0, 0, 1, 1, 0), (0, 0, 1, 1, QUARTER / 2), 1 / ROOT, id="octagon"),
        pytest.param((0, 0, 2, 2, 0), (1, 1, ROOT, ROOT, QUARTER / 2), 1 / 11, id="triangle"),
        pytest.param((0, 0, 0, 2, 0), (0, 0, 0, 2, 0), 0.0, id="no area"),
    ],
)
def test_oracle_knows_what_school_teaches(box1: Sequence[float], box2: Sequence[float], iou: float) -> None:
    """To 1e-15, since the angles and ROOT are rounded."""
    assert float(exact_iou(box1, box2)) == pytest.approx(iou, abs=1e-15)
    assert true_ious(np.array([box1]), np.array([box2]))[0] == pytest.approx(iou, abs=1e-15)


@every_family
def test_fast_oracle_has_the_digits_of_the_slow_one(name: str) -> None:
    for over in OVERS:
        boxes1, boxes2 = pairs_of(name, 20, seed=1)
        for row, fast in enumerate(true_ious_with_remainder(boxes1, boxes2, over)):
            slow = exact_iou(boxes1[row], boxes2[row], over)
            assert abs(mp.mpf(fast[0]) + mp.mpf(fast[1]) - slow) < 1e-24  # 1e-31, times centre over side: 10^6


@pytest.mark.golden
def test_oracle_equals_the_stored_truth(golden: Path) -> None:
    """Stored by another program: clipping in 50 digits on the diagonal, shapely beside it."""
    with np.load(golden / "rotated" / "iou.npz") as stored:
        boxes1, boxes2, diagonal, matrix = (
            stored[name] for name in ("boxes1", "boxes2", "iou_diag_mp50", "iou_shapely")
        )
    np.testing.assert_allclose(true_ious(boxes1, boxes2), diagonal, rtol=0, atol=1e-15)
    rows, columns = (index.ravel()[::23] for index in np.indices(matrix.shape))
    np.testing.assert_allclose(true_ious(boxes1[rows], boxes2[columns]), matrix[rows, columns], rtol=0, atol=1e-11)


# Every family


def test_the_public_functions_run_numba_here() -> None:
    assert numba_fits(torch.zeros(1, 5), torch.zeros(1, 5))


@every_aligned
@every_family
def test_float64(name: str, function: Function) -> None:
    boxes1, boxes2 = pairs_of(name, NUM_PAIRS)
    for over in OVERS:
        assert_exact(run(function, boxes1, boxes2, over), boxes1, boxes2, over, FLOAT64)
    assert_exact(run(function, boxes2, boxes1), boxes2, boxes1, "union", FLOAT64)


@every_aligned
@every_family
def test_float32(name: str, function: Function) -> None:
    boxes1, boxes2 = (boxes.astype(np.float32) for boxes in pairs_of(name, NUM_PAIRS))
    for over in OVERS:
        assert_exact(run(function, boxes1, boxes2, over), boxes1, boxes2, over, FLOAT32)


@every_aligned
def test_over_a_first_box_a_millionth_of_the_second(function: Function) -> None:
    """The rim of a box of 1,000 pixels lies 1e-13 beside its place, which is 1e-10 of a side of 0.001 there."""
    boxes2, boxes1 = pairs_of("a thousandth in a thousand", NUM_PAIRS)
    assert_exact(run(function, boxes1, boxes2, "first"), boxes1, boxes2, "first", 2e-9)


@every_pairwise
@every_family
def test_pairwise(name: str, function: Function) -> None:
    """All pairs of 30 boxes of a family with 30: most meet what they were not made for."""
    boxes1, boxes2 = pairs_of(name, 30)
    rows, columns = (index.ravel() for index in np.indices((30, 30)))
    for over, dtype, tolerance in (("union", np.float64, FLOAT64), ("first", np.float32, FLOAT32)):
        first, second = boxes1.astype(dtype), boxes2.astype(dtype)
        answer = run(function, first, second, over).ravel()
        assert_exact(answer, first[rows], second[columns], over, tolerance)


@every_family
def test_back_ends_agree(name: str) -> None:
    boxes1, boxes2 = pairs_of(name, NUM_PAIRS, seed=2)
    answers = [run(function, boxes1, boxes2) for function in ALIGNED.values()]
    np.testing.assert_allclose(*answers, rtol=0, atol=FLOAT64)
    rows = [run(function, boxes1[:20], boxes2[:20]) for function in PAIRWISE.values()]
    np.testing.assert_allclose(*rows, rtol=0, atol=FLOAT64)
    np.testing.assert_allclose(rows[0].diagonal(), answers[0][:20], rtol=0, atol=FLOAT64)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["zero w", "zero h", "points", "identical without area"])
def test_without_area_it_is_zero(name: str, dtype: type) -> None:
    """Not 1e-17: a division by the union of two boxes without area would be 0 / 0, and over the first x / 0."""
    boxes1, boxes2 = (boxes.astype(dtype) for boxes in pairs_of(name, NUM_PAIRS))
    for function in ALIGNED.values():
        assert not run(function, boxes1, boxes2).any()
        assert not run(function, boxes1, boxes2, "first").any()


# Properties


near = st.tuples(rboxes(), rboxes())
"""Sides of 1 pixel or more within 256 pixels: moving these rounds them by 1e-13 pixels, far less than FLOAT64."""


@every_aligned
@given(pair=rbox_pairs())
def test_symmetric(function: Function, pair: Pair) -> None:
    assert abs(run(function, *pair) - run(function, *pair[::-1])) <= FLOAT64


@every_aligned
@given(box=rboxes())
def test_one_with_itself(function: Function, box: Array) -> None:
    assert run(function, box, box) >= 1 - 1e-13
    assert run(function, box, box, "first") >= 1 - 1e-13


@every_aligned
@given(pair=near, x=st.floats(-1000, 1000), y=st.floats(-1000, 1000))
def test_unmoved_by_a_shift(function: Function, pair: Pair, x: float, y: float) -> None:
    after = [box + np.array([x, y, 0, 0, 0]) for box in pair]
    assert abs(run(function, *after) - run(function, *pair)) <= FLOAT64


@every_aligned
@given(pair=near, angle=st.floats(-7, 7))
def test_unmoved_by_a_turn(function: Function, pair: Pair, angle: float) -> None:
    after = [turn(box, angle) for box in pair]
    assert abs(run(function, *after) - run(function, *pair)) <= FLOAT64


def turn(box: Array, angle: float) -> Array:
    """Return a box turned around the origin."""
    cos, sin = np.cos(angle), np.sin(angle)
    x, y, w, h, theta = box[0]
    return np.array([[x * cos - y * sin, x * sin + y * cos, w, h, theta + angle]])


@every_aligned
@given(pair=near, factor=st.floats(1e-3, 1e3))
def test_unmoved_by_a_scale(function: Function, pair: Pair, factor: float) -> None:
    after = [box * np.array([factor, factor, factor, factor, 1]) for box in pair]
    assert abs(run(function, *after) - run(function, *pair)) <= FLOAT64


@every_aligned
@given(pair=near, quarters=st.tuples(st.integers(-5, 5), st.integers(-5, 5)))
def test_unmoved_by_writing_a_box_in_another_way(function: Function, pair: Pair, quarters: tuple[int, int]) -> None:
    """(w, h, theta) is (h, w, theta + pi / 2) is (w, h, theta + pi)."""
    after = [rewrite(box, number) for box, number in zip(pair, quarters, strict=True)]
    assert abs(run(function, *after) - run(function, *pair)) <= FLOAT64


def rewrite(box: Array, quarters: int) -> Array:
    x, y, w, h, theta = box[0]
    w, h = (h, w) if quarters % 2 else (w, h)
    return np.array([[x, y, w, h, theta + quarters * np.pi / 2]])


@every_aligned
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(data=st.data())
def test_in_range_for_all_numbers(dtype: type, function: Function, data: st.DataObject) -> None:
    """All finite float32 numbers, from 1e-45 to 3e38, and float64 numbers up to 1e60 with sides down to 1e-60."""
    if dtype is np.float32:
        number, side = (st.floats(low, 2.0**127, width=32) for low in (-(2.0**127), 0.0))
    else:
        number, side = st.floats(-1e60, 1e60), st.just(0.0) | st.floats(1e-60, 1e60)
    boxes = np.array(data.draw(st.tuples(*[st.tuples(number, number, side, side, number)] * 2)), dtype)
    boxes[1] = data.draw(st.sampled_from([boxes[1], boxes[0], boxes[0] * dtype(1 + 1e-6)]))
    for over in OVERS:
        assert 0 <= run(function, boxes[:1], boxes[1:], over) <= 1
