"""The pairs of quadrilaterals that overlap, and by how much, in one sweep: numba text of `focaldet.geometry.quads`."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True, error_model="numpy")
def shared_area(one, other):  # type: ignore[no-untyped-def]
    """Return the area that two simple quadrilaterals (4, 2) share, convex or not, as `quads.shared_areas` does."""
    x, y = other[0, 0], other[0, 1]  # near to both, so that no digits go to their common place
    total = 0.0
    for k in range(4):
        ax, ay = one[k, 0] - x, one[k, 1] - y
        bx, by = one[(k + 1) & 3, 0] - x, one[(k + 1) & 3, 1] - y
        run = bx - ax
        if run == 0.0:
            continue
        for m in range(4):
            cx, cy = other[m, 0] - x, other[m, 1] - y
            dx, dy = other[(m + 1) & 3, 0] - x, other[(m + 1) & 3, 1] - y
            left, right = max(min(ax, bx), min(cx, dx)), min(max(ax, bx), max(cx, dx))
            if not left < right:
                continue
            length = dx - cx
            start, end = ay + (left - ax) / run * (by - ay), ay + (right - ax) / run * (by - ay)
            other_start, other_end = cy + (left - cx) / length * (dy - cy), cy + (right - cx) / length * (dy - cy)
            first, last = start - other_start, end - other_end
            p, q = abs(first), abs(last)
            gap = (p * p + q * q) / (p + q) if first * last < 0.0 else p + q
            piece = (right - left) * (start + end + other_start + other_end - gap)
            total += piece if (run > 0.0) == (length > 0.0) else -piece
    return 0.25 * abs(total)


@njit(cache=True, error_model="numpy")
def hull(quads, i):  # type: ignore[no-untyped-def]
    """Return the upright hull (x1, y1, x2, y2) of quadrilateral i; plain loops, which compile in a fraction of time."""
    x1, y1 = x2, y2 = quads[i, 0, 0], quads[i, 0, 1]
    for k in range(1, 4):
        x1, x2 = min(x1, quads[i, k, 0]), max(x2, quads[i, k, 0])
        y1, y2 = min(y1, quads[i, k, 1]), max(y2, quads[i, k, 1])
    return x1, y1, x2, y2


@njit(cache=True, error_model="numpy")
def grow(pairs, ious):  # type: ignore[no-untyped-def]
    """Return copies of (P, 2) pairs and (P,) IoU with room for twice as many."""
    more, longer = np.empty((2 * len(ious), 2), np.int64), np.empty(2 * len(ious))
    for p in range(len(ious)):
        more[p, 0], more[p, 1], longer[p] = pairs[p, 0], pairs[p, 1], ious[p]
    return more, longer


@njit(cache=True, error_model="numpy")
def list_pairs(quads1, areas1, segments1, quads2, areas2, order, starts, floor):  # type: ignore[no-untyped-def]
    """Return the overlapping pairs as (P, 2) numbers and (P,) IoU, by rising number in the first set.

    Args:
        quads1: (N, 4, 2) corners.
        areas1: (N,) their areas.
        segments1: (N,) their segments.
        quads2: (M, 4, 2) corners.
        areas2: (M,) their areas.
        order: (M,) numbers of the second set by segment, within one by the left end of the hull.
        starts: (S + 1,) where each segment starts in `order`.
        floor: IoU from which a pair is listed, above 0.
    """
    left, top, right, bottom = np.empty(len(order)), np.empty(len(order)), np.empty(len(order)), np.empty(len(order))
    for p in range(len(order)):
        left[p], top[p], right[p], bottom[p] = hull(quads2, order[p])
    widest = np.zeros(len(starts) - 1)
    for s in range(len(widest)):
        for p in range(starts[s], starts[s + 1]):
            widest[s] = max(widest[s], right[p] - left[p])
    pairs, ious, count = np.empty((len(quads1) + 16, 2), np.int64), np.empty(len(quads1) + 16), 0
    for i in range(len(quads1)):
        segment = segments1[i]
        if segment < 0 or segment >= len(widest) or starts[segment] == starts[segment + 1] or areas1[i] <= 0.0:
            continue
        quad, area = quads1[i], areas1[i]
        x1, y1, x2, y2 = hull(quads1, i)
        reach = x1 - widest[segment]  # what starts further left ends left of this one
        reach -= 1e-9 * abs(reach)
        first, end = starts[segment], starts[segment + 1]
        after = end
        while first < after:
            middle = (first + after) // 2
            if left[middle] < reach:
                first = middle + 1
            else:
                after = middle
        for p in range(first, end):
            if left[p] >= x2:
                break
            width, height = min(x2, right[p]) - max(x1, left[p]), min(y2, bottom[p]) - max(y1, top[p])
            if width <= 0.0 or height <= 0.0:
                continue
            j = order[p]
            smaller = min(area, areas2[j])
            most = min(width * height, smaller)
            if most < floor * (area + areas2[j] - most) * (1.0 - 1e-9):  # even the hulls share too little
                continue
            both = min(shared_area(quad, quads2[j]), smaller)
            iou = both / (area + areas2[j] - both)
            if iou >= floor:
                if count == len(ious):
                    pairs, ious = grow(pairs, ious)
                pairs[count, 0], pairs[count, 1], ious[count] = i, j, iou
                count += 1
    return pairs[:count], ious[:count]


@njit(cache=True, error_model="numpy")
def measure(quads, flat):  # type: ignore[no-untyped-def]
    """Return areas, whether two sides cross, and areas of the least rectangles, (N,) each, as `quads.measure_quads`."""
    areas, crossing, rectangles = np.empty(len(quads)), np.empty(len(quads), np.bool_), np.empty(len(quads))
    x, y = np.empty(4), np.empty(4)
    for i in range(len(quads)):
        for k in range(4):
            x[k], y[k] = quads[i, k, 0] - quads[i, 0, 0], quads[i, k, 1] - quads[i, 0, 1]
        crossing[i] = sides_cross(x, y, 0) or sides_cross(x, y, 1)
        area = 0.5 * abs(x[2] * (y[3] - y[1]) - y[2] * (x[3] - x[1]))
        least, longest = np.inf, 0.0
        for k in range(4):
            for m in range(k + 1, 4):
                dx, dy = x[m] - x[k], y[m] - y[k]
                square = dx * dx + dy * dy
                if square == 0.0:
                    continue
                longest = max(longest, square)
                low_u = high_u = low_v = high_v = 0.0
                for n in range(4):
                    u, v = dx * (x[n] - x[k]) + dy * (y[n] - y[k]), dx * (y[n] - y[k]) - dy * (x[n] - x[k])
                    low_u, high_u = min(low_u, u), max(high_u, u)
                    low_v, high_v = min(low_v, v), max(high_v, v)
                least = min(least, (high_u - low_u) * (high_v - low_v) / square)
        areas[i] = area if area > flat * longest else 0.0
        rectangles[i] = least if least < np.inf else 0.0
    return areas, crossing, rectangles


@njit(cache=True, error_model="numpy")
def sides_cross(x, y, k):  # type: ignore[no-untyped-def]
    """Tell whether side k of a quadrilateral with corners x (4,), y (4,) crosses the side across."""
    a, b, c, d = k, k + 1, (k + 2) & 3, (k + 3) & 3
    one = np.sign(turn(x, y, a, b, c)) * np.sign(turn(x, y, a, b, d))
    return one < 0 and np.sign(turn(x, y, c, d, a)) * np.sign(turn(x, y, c, d, b)) < 0


@njit(cache=True, error_model="numpy")
def turn(x, y, a, b, c):  # type: ignore[no-untyped-def]
    """Return twice the signed area of the triangle of three corners."""
    return (x[b] - x[a]) * (y[c] - y[a]) - (y[b] - y[a]) * (x[c] - x[a])
