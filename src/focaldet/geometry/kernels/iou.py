"""Exact rotated IoU on a CPU: a hull test in float32 rounded outwards, compaction, then float64 in vector loops."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from focaldet.geometry.kernels.formula import NO_AREA, intersection_area

X, Y, HALF_W, HALF_H, COS, SIN, AREA, HALF_WIDTH, HALF_HEIGHT = range(9)
"""Rows of a box table."""
ROWS = 9
OUTWARDS = 1.0 + 1e-12
"""Hulls are this much too large, far more than float64 rounds: a pair outside each other's hull has no overlap."""
OUTWARDS_FLOAT32, OUTWARDS_TINY = 1e-6, 1e-37
"""Bounds in float32 are moved outwards by this share of their size and this much: more than float32 rounds."""

Boxes = NDArray[np.float32] | NDArray[np.float64]


def pairwise_iou(boxes1: Boxes, boxes2: Boxes, over_first: bool) -> Boxes:
    """Return the overlap (N, M) of every rbox (N, 5) with every rbox (M, 5), in the type of `boxes1`.

    Args:
        boxes1: (N, 5) finite, float32 or float64.
        boxes2: (M, 5) likewise, of the same type.
        over_first: divide by the area of the box of `boxes1` instead of the union.
    """
    answer = np.zeros((len(boxes1), len(boxes2)), boxes1.dtype)
    _pairwise(_table(boxes1), _table(boxes2), over_first, answer)
    return answer


def aligned_iou(boxes1: Boxes, boxes2: Boxes, over_first: bool) -> Boxes:
    """Return the overlap (N,) of rboxes (N, 5) at the same place of two sets; as `pairwise_iou`."""
    answer = np.empty(len(boxes1), boxes1.dtype)
    _aligned(_table(boxes1), _table(boxes2), over_first, answer)
    return answer


def _table(boxes: Boxes) -> NDArray[np.float64]:
    table: NDArray[np.float64] = box_table(np.ascontiguousarray(boxes, np.float64))
    return table


@njit(cache=True, error_model="numpy")
def box_table(boxes):  # type: ignore[no-untyped-def]
    """Return (9, N): x, y, w/2, h/2, cos, sin, area and the half extents of the upright hull of float64 rboxes (N, 5).

    The hull is rounded outwards.
    """
    table = np.empty((ROWS, len(boxes)))
    for n in range(len(boxes)):
        x, y, w, h, theta = boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3], boxes[n, 4]
        cos, sin = np.cos(theta), np.sin(theta)
        table[X, n], table[Y, n], table[COS, n], table[SIN, n] = x, y, cos, sin
        table[HALF_W, n], table[HALF_H, n], table[AREA, n] = 0.5 * w, 0.5 * h, w * h
        table[HALF_WIDTH, n] = 0.5 * OUTWARDS * (w * abs(cos) + h * abs(sin))
        table[HALF_HEIGHT, n] = 0.5 * OUTWARDS * (w * abs(sin) + h * abs(cos))
    return table


@njit(cache=True, error_model="numpy", forceinline=True)
def overlap(inter, area1, area2, over_first):  # type: ignore[no-untyped-def]
    """Return the intersection over the union, or over the first area; 0 where that is no area, and never above 1."""
    whole = area1 if over_first else area1 + area2 - inter
    ratio = inter / (whole if whole > NO_AREA else 1.0)
    ratio = ratio if ratio < 1.0 else 1.0
    return ratio if whole > NO_AREA else 0.0


@njit(cache=True, error_model="numpy")
def hull_bounds(table):  # type: ignore[no-untyped-def]
    """Return (4, N) float32: left, top, right and bottom of the hulls in a box table, rounded outwards."""
    bounds = np.empty((4, table.shape[1]), np.float32)
    for n in range(table.shape[1]):
        x, y, half_width, half_height = table[X, n], table[Y, n], table[HALF_WIDTH, n], table[HALF_HEIGHT, n]
        slack_x = OUTWARDS_FLOAT32 * (abs(x) + half_width) + OUTWARDS_TINY
        slack_y = OUTWARDS_FLOAT32 * (abs(y) + half_height) + OUTWARDS_TINY
        bounds[0, n], bounds[2, n] = x - half_width - slack_x, x + half_width + slack_x
        bounds[1, n], bounds[3, n] = y - half_height - slack_y, y + half_height + slack_y
    return bounds


@njit(cache=True, error_model="numpy")
def _pairwise(table1, table2, over_first, answer):  # type: ignore[no-untyped-def]
    bounds1, bounds2 = hull_bounds(table1), hull_bounds(table2)
    lefts, tops, rights, bottoms = bounds2[0], bounds2[1], bounds2[2], bounds2[3]
    columns = table2.shape[1]
    near = np.empty(columns, np.uint8)
    index = np.empty(columns + 1, np.int32)
    x2, y2, p2, q2 = np.empty(columns), np.empty(columns), np.empty(columns), np.empty(columns)
    cos2, sin2, area2, ratio = np.empty(columns), np.empty(columns), np.empty(columns), np.empty(columns)
    for row in range(table1.shape[1]):
        left, top, right, bottom = bounds1[0, row], bounds1[1, row], bounds1[2, row], bounds1[3, row]
        for n in range(columns):
            near[n] = (lefts[n] < right) & (left < rights[n]) & (tops[n] < bottom) & (top < bottoms[n])
        count = 0
        for n in range(columns):
            index[count] = n
            count += near[n]
        for k in range(count):
            n = index[k]
            x2[k], y2[k], p2[k], q2[k] = table2[X, n], table2[Y, n], table2[HALF_W, n], table2[HALF_H, n]
            cos2[k], sin2[k], area2[k] = table2[COS, n], table2[SIN, n], table2[AREA, n]
        x, y, a, b = table1[X, row], table1[Y, row], table1[HALF_W, row], table1[HALF_H, row]
        cos, sin, area = table1[COS, row], table1[SIN, row], table1[AREA, row]
        for k in range(count):
            inter = intersection_area(x2[k] - x, y2[k] - y, cos, sin, a, b, cos2[k], sin2[k], p2[k], q2[k])
            ratio[k] = overlap(inter, area, area2[k], over_first)
        for k in range(count):
            answer[row, index[k]] = ratio[k]


@njit(cache=True, error_model="numpy")
def _aligned(table1, table2, over_first, answer):  # type: ignore[no-untyped-def]
    for n in range(len(answer)):
        x, y = table2[X, n] - table1[X, n], table2[Y, n] - table1[Y, n]
        apart = abs(x) > table1[HALF_WIDTH, n] + table2[HALF_WIDTH, n]
        apart |= abs(y) > table1[HALF_HEIGHT, n] + table2[HALF_HEIGHT, n]
        inter = intersection_area(
            x, y, table1[COS, n], table1[SIN, n], table1[HALF_W, n], table1[HALF_H, n],
            table2[COS, n], table2[SIN, n], table2[HALF_W, n], table2[HALF_H, n],
        )  # fmt: skip
        answer[n] = overlap(0.0 if apart else inter, table1[AREA, n], table2[AREA, n], over_first)
