"""Exact rotated IoU on a CPU: a hull test in float32 rounded outwards, compaction, then float64 in vector loops.

Pairwise: the columns are sorted by the left end of their hulls, so that the boxes a row can meet are among the first
few. In tiles of `ROWS_AT_ONCE` x `COLUMNS_AT_ONCE`, which keep the numbers in a fast cache, the hulls of a row are
compared in vector loops, the columns it meets are listed, their numbers copied side by side, and the formula runs over
these, again as a vector loop. Slices, unsigned counts and loops over few arrays are what lets the compiler do that.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from focaldet.geometry.kernels.formula import intersection_area

X, Y, HALF_W, HALF_H, COS, SIN, AREA, HALF_WIDTH, HALF_HEIGHT = range(9)
"""Rows of a box table."""
ROWS = 9
LEFT, RIGHT, TOP, BOTTOM, LOW_SUM, HIGH_SUM, LOW_DIFFERENCE, HIGH_DIFFERENCE = range(8)
"""Rows of hull bounds: the ends of a box's shadows on the directions x, y, x + y and y - x."""
NO_AREA = 1e-250
"""A divisor of at most so many square pixels is none: the answer is 0."""
OUTWARDS = 1.0 + 1e-12
"""Hulls are this much too large, far more than float64 rounds: a pair outside each other's hull has no overlap."""
OUTWARDS_FLOAT32, OUTWARDS_TINY = 1e-6, 1e-37
"""Bounds in float32 are moved outwards by this share of their size and this much: more than float32 rounds."""
LARGEST = 3e38
"""What lies beyond, where float32 has only infinity, counts as if it began here."""
ROWS_AT_ONCE, COLUMNS_AT_ONCE = 32, 1024
LANES = 8
"""Numbers of a vector: lists are filled up to a multiple of it, or their last entries would run one by one."""

Boxes = NDArray[np.float32] | NDArray[np.float64]


def pairwise_iou(boxes1: Boxes, boxes2: Boxes, over_first: bool) -> Boxes:
    """Return the overlap (N, M) of every rbox (N, 5) with every rbox (M, 5), in the type of `boxes1`.

    Args:
        boxes1: (N, 5) finite, float32 or float64.
        boxes2: (M, 5) likewise.
        over_first: divide by the area of the box of `boxes1` instead of the union.
    """
    table1, table2 = _table(boxes1), _table(boxes2)
    bounds1, bounds2 = hull_bounds(table1), hull_bounds(table2)
    order = np.argsort(bounds2[LEFT])
    table2, bounds2 = table2.take(order, axis=1), bounds2.take(order, axis=1)
    answer = np.empty((len(boxes1), len(boxes2)), boxes1.dtype)
    _pairwise(table1, bounds1, table2, bounds2, order.astype(np.uint32), over_first, answer)
    return answer


def aligned_iou(boxes1: Boxes, boxes2: Boxes, over_first: bool) -> Boxes:
    """Return the overlap (N,) of rboxes (N, 5) at the same place of two sets; as `pairwise_iou`."""
    answer = np.empty(len(boxes1))
    _aligned(_table(boxes1), _table(boxes2), over_first, answer)
    return answer.astype(boxes1.dtype, copy=False)  # type: ignore[return-value]  # it is one of the two


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
    ratio = inter / (whole if whole > NO_AREA else np.inf)
    return ratio if ratio < 1.0 else 1.0


@njit(cache=True, error_model="numpy")
def hull_bounds(table):  # type: ignore[no-untyped-def]
    """Return (8, N) float32, rounded outwards: the octagons around the boxes of a table, as ends of their shadows."""
    bounds = np.empty((8, table.shape[1]), np.float32)
    for n in range(table.shape[1]):
        x, y, a, b = table[X, n], table[Y, n], table[HALF_W, n], table[HALF_H, n]
        along, across = abs(table[COS, n] + table[SIN, n]), abs(table[COS, n] - table[SIN, n])
        bounds[LEFT, n], bounds[RIGHT, n] = _outwards(x, table[HALF_WIDTH, n])
        bounds[TOP, n], bounds[BOTTOM, n] = _outwards(y, table[HALF_HEIGHT, n])
        bounds[LOW_SUM, n], bounds[HIGH_SUM, n] = _outwards(y + x, a * along + b * across)
        bounds[LOW_DIFFERENCE, n], bounds[HIGH_DIFFERENCE, n] = _outwards(y - x, a * across + b * along)
    return bounds


@njit(cache=True, error_model="numpy", forceinline=True)
def _outwards(center, half):  # type: ignore[no-untyped-def]
    half += OUTWARDS_FLOAT32 * (abs(center) + half) + OUTWARDS_TINY
    return min(center - half, LARGEST), max(center + half, -LARGEST)


@njit(cache=True, error_model="numpy")
def _pairwise(table1, bounds1, table2, bounds2, order, over_first, answer):  # type: ignore[no-untyped-def]
    """Fill `answer` (N, M). The boxes of table2 are sorted by the left ends of their hulls: from columns `order`."""
    rows, columns = answer.shape
    numbers = _in_pairs(table2)
    reach = np.searchsorted(bounds2[LEFT], bounds1[RIGHT])  # columns from there on lie to the right of the row's hull
    near, index = np.empty(COLUMNS_AT_ONCE, np.uint8), np.empty(COLUMNS_AT_ONCE + LANES, np.uint32)
    copied = np.empty((3, COLUMNS_AT_ONCE + LANES), np.complex128)
    ratio = np.empty(COLUMNS_AT_ONCE + LANES, answer.dtype)
    for first_row in range(0, rows, ROWS_AT_ONCE):
        last_row = min(rows, first_row + ROWS_AT_ONCE)
        answer[first_row:last_row] = 0.0
        for start in range(0, columns, COLUMNS_AT_ONCE):
            for row in range(first_row, last_row):
                stop = min(start + COLUMNS_AT_ONCE, reach[row])
                count = _list_near(bounds1, row, bounds2, start, stop, near, index)
                if count > 0:
                    _copy(index, count, numbers, start, copied)
                    _ratios(table1, row, copied, count, over_first, ratio)
                    for k in range(count):
                        answer[row, order[start + index[k]]] = ratio[k]


@njit(cache=True, error_model="numpy")
def _in_pairs(table):  # type: ignore[no-untyped-def]
    """Return (3, N) complex: x with y, w/2 with h/2, cos with sin; so that one load and one store copy two numbers."""
    numbers = np.empty((3, table.shape[1]), np.complex128)
    for n in range(table.shape[1]):
        numbers[0, n] = complex(table[X, n], table[Y, n])
        numbers[1, n] = complex(table[HALF_W, n], table[HALF_H, n])
        numbers[2, n] = complex(table[COS, n], table[SIN, n])
    return numbers


@njit(cache=True, error_model="numpy")
def _list_near(bounds1, row, bounds2, start, stop, near, index):  # type: ignore[no-untyped-def]
    """List the columns of start to stop, counted from start, whose hulls overlap the row's; return how many.

    Their left ends are known to be left of the row's right end. The list is filled up with zeros to full vectors.
    """
    left, top, bottom = bounds1[LEFT, row], bounds1[TOP, row], bounds1[BOTTOM, row]
    rights, tops, bottoms = bounds2[RIGHT, start:stop], bounds2[TOP, start:stop], bounds2[BOTTOM, start:stop]
    for n in range(len(rights)):
        near[n] = (left < rights[n]) & (tops[n] < bottom) & (top < bottoms[n])
    for low, high in ((LOW_SUM, HIGH_SUM), (LOW_DIFFERENCE, HIGH_DIFFERENCE)):
        begin, end = bounds1[low, row], bounds1[high, row]
        begins, ends = bounds2[low, start:stop], bounds2[high, start:stop]
        for n in range(len(rights)):
            near[n] = near[n] & (begin < ends[n]) & (begins[n] < end)
    count = np.uint64(0)
    for n in range(len(rights)):
        index[count] = n
        count += near[n]
    for k in range(LANES):
        index[count + np.uint64(k)] = 0
    return np.int64(count)


@njit(cache=True, error_model="numpy")
def _copy(index, count, numbers, start, copied):  # type: ignore[no-untyped-def]
    centers, halves, turns = numbers[0, start:], numbers[1, start:], numbers[2, start:]
    for k in range((count + LANES - 1) // LANES * LANES):
        n = index[k]
        center, half, turn = centers[n], halves[n], turns[n]
        copied[0, k], copied[1, k], copied[2, k] = center, half, turn


@njit(cache=True, error_model="numpy")
def _ratios(table1, row, copied, count, over_first, ratio):  # type: ignore[no-untyped-def]
    x, y, a, b = table1[X, row], table1[Y, row], table1[HALF_W, row], table1[HALF_H, row]
    cos, sin, area = table1[COS, row], table1[SIN, row], table1[AREA, row]
    for k in range((count + LANES - 1) // LANES * LANES):
        center, half, turn = copied[0, k], copied[1, k], copied[2, k]
        p, q = half.real, half.imag
        inter = intersection_area(center.real - x, center.imag - y, cos, sin, a, b, turn.real, turn.imag, p, q)
        ratio[k] = overlap(inter, area, 4.0 * (p * q), over_first)


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
