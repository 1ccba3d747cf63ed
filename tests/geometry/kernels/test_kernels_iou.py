"""The numba kernels of rotated IoU: their tables, their tiles, and numbers at the ends of their types.

`tests/geometry/test_exactness.py` holds them to 50 digits.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from focaldet.geometry.kernels import formula, iou
from focaldet.geometry.rotated_iou import rotated_iou_torch
from oracle import true_ious
from strategies import some_boxes


def some(seed: int, n: int) -> NDArray[np.float64]:
    return some_boxes(np.random.default_rng(seed), n)


def test_box_table() -> None:
    table = iou.box_table(np.array([[10.0, 20.0, 8.0, 4.0, np.pi / 6]]))[:, 0]
    cos, sin = np.cos(np.pi / 6), 0.5
    expected = [10, 20, 4, 2, cos, sin, 32, 4 * cos + 2 * sin, 4 * sin + 2 * cos]
    np.testing.assert_allclose(table, expected, rtol=2e-12)
    assert table[iou.HALF_WIDTH] > expected[7] and table[iou.HALF_HEIGHT] > expected[8]  # rounded outwards


@pytest.mark.parametrize("center", [0.0, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("side", [1e-40, 1e-3, 10.0, 1e6])
def test_hull_bounds_enclose_the_box(center: float, side: float) -> None:
    boxes = some(1, 200) * np.array([0, 0, 0.01, 0.01, 1])
    boxes[:, :2], boxes[:, 2:4] = boxes[:, :2] + center, boxes[:, 2:4] * side
    bounds = iou.hull_bounds(iou.box_table(boxes)).astype(np.float64)
    x, y, w, h, theta = boxes.T
    for along, across in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        to_x = along * w / 2 * np.cos(theta) - across * h / 2 * np.sin(theta)
        to_y = along * w / 2 * np.sin(theta) + across * h / 2 * np.cos(theta)
        corners = ((x, to_x), (y, to_y), (y + x, to_y + to_x), (y - x, to_y - to_x))
        for low, high, (place, to_corner) in zip(bounds[::2], bounds[1::2], corners, strict=True):
            assert ((low - place < to_corner) & (to_corner < high - place)).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "m"), [(1, 1), (33, 513), (31, 1030), (100, 7), (3, 1024)])
def test_tiles_do_not_show(n: int, m: int, dtype: type) -> None:
    """Every pair is what it is alone, in whichever tile, lane and place of the sorted columns it falls."""
    boxes1, boxes2 = some(1, n).astype(dtype), some(2, m).astype(dtype)
    boxes2[::3] = boxes1[np.arange(len(boxes2[::3])) % n]  # many with the same left end, and many IoUs of 1
    rows, columns = (index.ravel() for index in np.indices((n, m)))
    for over_first in (False, True):
        matrix = iou.pairwise_iou(boxes1, boxes2, over_first)
        assert matrix.dtype == dtype and matrix.shape == (n, m)
        alone = iou.aligned_iou(boxes1[rows], boxes2[columns], over_first).reshape(n, m)
        np.testing.assert_allclose(matrix, alone, rtol=0, atol=1e-13 if dtype is np.float64 else 2**-23)


def test_strides_are_taken_as_they_come() -> None:
    boxes = np.asfortranarray(np.repeat(some(1, 20), 2, axis=0))[::-2]
    np.testing.assert_array_equal(iou.pairwise_iou(boxes, boxes, False), iou.pairwise_iou(boxes.copy(), boxes, False))


@pytest.mark.parametrize("scale", [1e-60, 1e-30, 1e-12, 1e12, 1e30, 1e60])
def test_any_scale(scale: float) -> None:
    boxes1, boxes2 = some(1, 100), some(2, 100)
    boxes2[:50] = boxes1[:50] + 0.1
    factor = np.array([scale] * 4 + [1])
    answer = iou.aligned_iou(boxes1 * factor, boxes2 * factor, False)
    np.testing.assert_allclose(answer, iou.aligned_iou(boxes1, boxes2, False), rtol=0, atol=1e-12)
    pairs = iou.pairwise_iou(boxes1 * factor, boxes2 * factor, False)
    np.testing.assert_allclose(pairs.diagonal(), answer, rtol=0, atol=1e-12)
    by_torch = rotated_iou_torch(*(torch.from_numpy(boxes * factor) for boxes in (boxes1, boxes2)))
    np.testing.assert_allclose(pairs, by_torch, rtol=0, atol=1e-12)


@pytest.mark.parametrize("theta", [0.0, 5e-324, 1e-310, 1e-290, 1e-40, 1e-20, 1e-17, 1e-15, 1e-9])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_runs_next_to_nothing(theta: float, quarters: int) -> None:
    """Edges that climb, or run, by a number whose inverse overflows, or is lost beside the corner's place."""
    boxes1, boxes2 = some(1, 200), some(2, 200)
    boxes1[:, :2], boxes2[:, :2] = boxes1[:, :2] / 10, boxes2[:, :2] / 10
    boxes1[:, 4], boxes2[:, 4] = 0, theta if quarters == 0 else quarters * np.pi / 2 + theta
    boxes2[100:, :2] = boxes1[100:, :2]
    for over_first in (False, True):
        answer = iou.aligned_iou(boxes1, boxes2, over_first)
        np.testing.assert_allclose(answer, true_ious(boxes1, boxes2, "first" if over_first else "union"), atol=1e-12)


def test_nothing_is_too_much() -> None:
    """Finite float64 numbers at the ends of their range: no NaN, no answer outside [0, 1]."""
    numbers = np.array([0.0, 5e-324, 1e-300, 1e-160, 1.0, 1e160, 1e300, 1.7e308])
    signed = np.concatenate([-numbers, numbers])
    rng = np.random.default_rng(3)
    boxes = np.stack([rng.choice(choices, 400) for choices in (signed, signed, numbers, numbers, signed)], axis=1)
    with np.errstate(all="ignore"):
        for over_first in (False, True):
            answer = iou.pairwise_iou(boxes, boxes, over_first)
            assert ((answer >= 0) & (answer <= 1)).all()


def test_intersection_area_in_plain_numbers() -> None:
    """Called without numba's loops: a square and the same turned by an eighth share a regular octagon."""
    root = np.sqrt(0.5)
    area = formula.intersection_area(0.0, 0.0, 1.0, 0.0, 1.0, 1.0, root, root, 1.0, 1.0)
    assert area == pytest.approx(8 * (np.sqrt(2) - 1), abs=1e-15)
    assert formula.intersection_area(9.0, 0.0, 1.0, 0.0, 1.0, 1.0, root, root, 1.0, 1.0) == 0
