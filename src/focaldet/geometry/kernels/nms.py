"""Greedy NMS of rotated boxes on a CPU, without the matrix of all pairs.

Boxes of one group (a label of an image) lie side by side, along a Z-shaped curve through their centres, so that
neighbours in the picture are neighbours in memory. Every 32 boxes have a common upright hull, and every 32 of those
another. The walk goes by falling score; a box that is still there is kept and then asks, among what is left of its own
group only: whose common hull do I meet; whose own hull do I share enough with; what does an upper bound of the IoU
say; and at last what is the IoU. All bounds hold exactly, so that nothing but speed depends on them.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from focaldet.geometry.kernels.formula import intersection_area
from focaldet.geometry.kernels.iou import (
    AREA,
    COS,
    HALF_H,
    HALF_HEIGHT,
    HALF_W,
    HALF_WIDTH,
    SIN,
    X,
    Y,
    box_table,
    overlap,
)

BLOCK = 32
"""Boxes under one hull, and hulls under one larger hull."""
LEFT, TOP, RIGHT, BOTTOM = range(4)
"""Rows of a table of upright hulls."""
MAX_GROUPS = 2**31
"""Group numbers fill the upper half of a 64-bit key; the place on the curve fills the lower one."""
OUTWARDS = 1e-15
"""Hulls are larger by this share of the coordinates: more than float64 rounds."""
SLACK = 1.0 - 1e-9
"""Upper bounds rule a pair out with this much to spare: far more than rounding, far less than they save."""


def nms(boxes: np.ndarray, order: np.ndarray, group: np.ndarray, iou_threshold: float, equal_goes: bool) -> np.ndarray:
    """Return the boxes that greedy NMS keeps, as (K,) int64 indices in the order of the walk.

    Args:
        boxes: (N, 5) rboxes in one frame, N > 0; computed with in float64.
        order: (N,) int64, the order of the walk: indices by falling score.
        group: (N,) int64; boxes of different groups never meet.
        iou_threshold: in [0, 1]; a larger IoU suppresses.
        equal_goes: an equal one does, too; for thresholds above 0.
    """
    boxes, group = np.ascontiguousarray(boxes, np.float64), _small_numbers(group)
    layout = np.argsort(_keys(boxes, group))  # ties may fall either way: they change no answer
    gone = _walk(boxes[layout], group[layout], layout, order, float(iou_threshold), equal_goes)
    kept: np.ndarray = order[~gone[order]]
    return kept


def _small_numbers(group: np.ndarray) -> np.ndarray:
    """Return group numbers in [0, MAX_GROUPS) that are equal where `group` is."""
    low, high = int(group.min()), int(group.max())
    if high - low < MAX_GROUPS:
        return group - low
    dense: np.ndarray = np.unique(group, return_inverse=True)[1].astype(np.int64)
    return dense


@njit(cache=True, error_model="numpy")
def _keys(boxes, group):  # type: ignore[no-untyped-def]
    """Return (N,) int64 by which the boxes are laid out: first the group, then the place along the curve."""
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    for i in range(len(boxes)):
        left, right = min(left, boxes[i, 0]), max(right, boxes[i, 0])
        top, bottom = min(top, boxes[i, 1]), max(bottom, boxes[i, 1])
    extent = max(right - left, bottom - top)
    scale = 65535.0 / extent if extent > 0.0 else 0.0
    keys = np.empty(len(boxes), np.int64)
    for i in range(len(boxes)):
        column, row = np.int64((boxes[i, 0] - left) * scale), np.int64((boxes[i, 1] - top) * scale)
        keys[i] = group[i] << 32 | _spread(column) | _spread(row) << 1
    return keys


@njit(cache=True, error_model="numpy", forceinline=True)
def _spread(number):  # type: ignore[no-untyped-def]
    """Return the 16 bits of `number` with a zero before each, so that those of another number fit between."""
    number = (number | number << 8) & 0x00FF00FF
    number = (number | number << 4) & 0x0F0F0F0F
    number = (number | number << 2) & 0x33333333
    return (number | number << 1) & 0x55555555


@njit(cache=True, error_model="numpy")
def _walk(boxes, group, layout, order, threshold, equal_goes):  # type: ignore[no-untyped-def]
    """Return whether each box is suppressed (N,), in the given numbering; `boxes` and `group` are laid out."""
    table = box_table(boxes)
    hulls = _hulls(table)
    blocks, left = _common_hulls(hulls)
    regions, blocks_left = _common_hulls(blocks)
    queue, first, last = _queue(group, layout, order)
    area_share = SLACK * threshold  # of one box's area, which the intersection must reach: the union is no smaller
    sum_share = SLACK * threshold / (1.0 + threshold)  # of both areas together
    met = np.empty(BLOCK, np.bool_)
    gone = np.zeros(len(boxes), np.bool_)
    for i in queue:
        if hulls[LEFT, i] == np.inf:
            gone[layout[i]] = True
            continue
        hull = hulls[LEFT, i], hulls[TOP, i], hulls[RIGHT, i], hulls[BOTTOM, i]
        area = table[AREA, i]
        need = area_share * area
        _take_out(i, hulls, blocks, left, regions, blocks_left)
        if area == 0.0:
            continue  # it has a hull, but no IoU
        for r in range(first[i] // BLOCK**2, (last[i] - 1) // BLOCK**2 + 1):
            if not _shared(hull, regions, r) > need:
                continue
            for m in range(max(first[i] // BLOCK, r * BLOCK), min((last[i] - 1) // BLOCK + 1, (r + 1) * BLOCK)):
                if not _shared(hull, blocks, m) > need:
                    continue
                start, stop = max(first[i], m * BLOCK), min(last[i], (m + 1) * BLOCK)
                for j in range(start, stop):  # no branch inside, so that it becomes a vector loop
                    other = table[AREA, j]
                    most = _shared(hull, hulls, j)
                    most = most if most < area else area
                    most = most if most < other else other
                    met[j - start] = most > sum_share * (area + other)
                for j in range(start, stop):
                    if met[j - start] and _suppresses(table, i, j, sum_share, threshold, equal_goes):
                        _take_out(j, hulls, blocks, left, regions, blocks_left)
    return gone


@njit(cache=True, error_model="numpy")
def _queue(group, layout, order):  # type: ignore[no-untyped-def]
    """Return the places in the layout group by group, each group's in the order of the walk; and each place's group.

    Groups never meet, so they can be walked one by one, and one fits a cache. A place's group is the range of places
    from `first` to `last` (excluded).
    """
    n = len(layout)
    first, last, place = np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64)
    begin = 0
    for k in range(n):
        if group[k] != group[begin]:
            last[begin:k] = k
            begin = k
        first[k], place[layout[k]] = begin, k
    last[begin:] = n
    queue, filled = np.empty(n, np.int64), first.copy()
    for i in order:
        begin = first[place[i]]
        queue[filled[begin]] = place[i]
        filled[begin] += 1
    return queue, first, last


@njit(cache=True, error_model="numpy")
def _hulls(table):  # type: ignore[no-untyped-def]
    """Return left, top, right and bottom (4, N) of the boxes' upright hulls, rounded outwards."""
    hulls = np.empty((4, table.shape[1]))
    for i in range(table.shape[1]):
        x, y, half_width, half_height = table[X, i], table[Y, i], table[HALF_WIDTH, i], table[HALF_HEIGHT, i]
        half_width += OUTWARDS * (abs(x) + half_width)
        half_height += OUTWARDS * (abs(y) + half_height)
        hulls[LEFT, i], hulls[TOP, i] = x - half_width, y - half_height
        hulls[RIGHT, i], hulls[BOTTOM, i] = x + half_width, y + half_height
    return hulls


@njit(cache=True, error_model="numpy")
def _common_hulls(hulls):  # type: ignore[no-untyped-def]
    """Return the common hull (4, M) of every BLOCK hulls, and how many of them are left in it (M,): now all."""
    n = hulls.shape[1]
    common, left = np.empty((4, (n - 1) // BLOCK + 1)), np.empty((n - 1) // BLOCK + 1, np.int64)
    for k in range(len(left)):
        start, stop = k * BLOCK, min((k + 1) * BLOCK, n)
        common[LEFT, k], common[TOP, k] = hulls[LEFT, start:stop].min(), hulls[TOP, start:stop].min()
        common[RIGHT, k], common[BOTTOM, k] = hulls[RIGHT, start:stop].max(), hulls[BOTTOM, start:stop].max()
        left[k] = stop - start
    return common, left


@njit(cache=True, error_model="numpy", forceinline=True)
def _take_out(j, hulls, blocks, left, regions, blocks_left):  # type: ignore[no-untyped-def]
    """Let box j meet nothing any more, nor a common hull without boxes: their left side goes to infinity."""
    hulls[LEFT, j] = np.inf
    block, region = j // BLOCK, j // BLOCK**2
    left[block] -= 1
    if left[block] == 0:
        blocks[LEFT, block] = np.inf
        blocks_left[region] -= 1
        if blocks_left[region] == 0:
            regions[LEFT, region] = np.inf


@njit(cache=True, error_model="numpy", forceinline=True)
def _shared(hull, hulls, j):  # type: ignore[no-untyped-def]
    """Return the area that an upright hull (left, top, right, bottom) shares with hull j."""
    left, top, right, bottom = hull
    width = _common_length(left, right, hulls[LEFT, j], hulls[RIGHT, j])
    return width * _common_length(top, bottom, hulls[TOP, j], hulls[BOTTOM, j])


@njit(cache=True, error_model="numpy", forceinline=True)
def _common_length(low1, high1, low2, high2):  # type: ignore[no-untyped-def]
    """Return the length that two intervals share, at least 0; by selects, so that loops become vectors."""
    low, high = low1 if low1 > low2 else low2, high1 if high1 < high2 else high2
    return high - low if high > low else 0.0


@njit(cache=True, error_model="numpy", forceinline=True)
def _suppresses(table, i, j, sum_share, threshold, equal_goes):  # type: ignore[no-untyped-def]
    """Return whether the IoU of boxes i and j is over the threshold."""
    a, b, cos_a, sin_a = table[HALF_W, i], table[HALF_H, i], table[COS, i], table[SIN, i]
    p, q, cos_b, sin_b = table[HALF_W, j], table[HALF_H, j], table[COS, j], table[SIN, j]
    x, y = table[X, j] - table[X, i], table[Y, j] - table[Y, i]
    cos, sin = abs(cos_a * cos_b + sin_a * sin_b), abs(cos_a * sin_b - sin_a * cos_b)
    need = sum_share * (table[AREA, i] + table[AREA, j])
    if not _within(a, b, cos_a * x + sin_a * y, cos_a * y - sin_a * x, p * cos + q * sin, p * sin + q * cos) > need:
        return False
    if not _within(p, q, cos_b * x + sin_b * y, cos_b * y - sin_b * x, a * cos + b * sin, a * sin + b * cos) > need:
        return False
    inter = intersection_area(x, y, cos_a, sin_a, a, b, cos_b, sin_b, p, q)
    iou = overlap(inter, table[AREA, i], table[AREA, j], False)
    return iou >= threshold if equal_goes else iou > threshold


@njit(cache=True, error_model="numpy", forceinline=True)
def _within(a, b, x, y, half_width, half_height):  # type: ignore[no-untyped-def]
    """Return the area that a box's hull, around (x, y), has inside |x| <= a, |y| <= b: no less than the box has."""
    across = _common_length(-b, b, y - half_height, y + half_height)
    return _common_length(-a, a, x - half_width, x + half_width) * across
