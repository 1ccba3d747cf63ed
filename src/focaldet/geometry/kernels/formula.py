"""The area of the intersection of two rotated boxes, in a form that the numba kernels inline.

It is the formula that `focaldet.geometry.rotated_iou` derives: nothing is clipped, sorted or compared with a tolerance.
Every branch is a select, and one division serves all four edges, so that loops over pairs become vector instructions.
"""

from __future__ import annotations

import math

from numba import njit

FLAT = 1e-30
"""A sine or cosine below this counts as this when it divides: its edge moves the other coordinate by nothing."""


@njit(cache=True, error_model="numpy", fastmath={"contract"}, forceinline=True)
def clamp(value, limit):  # type: ignore[no-untyped-def]
    """Return `value`, at least -limit and at most limit (limit >= 0); two selects, so that loops become vectors."""
    value = value if value < limit else limit
    return value if value > -limit else -limit


@njit(cache=True, error_model="numpy", forceinline=True)
def smaller(one, other):  # type: ignore[no-untyped-def]
    """Return the smaller number, by a select."""
    return one if one < other else other


@njit(cache=True, error_model="numpy", forceinline=True)
def larger(one, other):  # type: ignore[no-untyped-def]
    """Return the larger number, by a select."""
    return one if one > other else other


@njit(cache=True, error_model="numpy", fastmath={"contract"}, forceinline=True)
def edge_area(y0, y1, width, inverse_slope, b):  # type: ignore[no-untyped-def]
    """Return twice the integral of clamp(y, -b, b) dx along an edge that runs to the right, `width`, from y0 to y1."""
    inner0, inner1 = clamp(y0, b), clamp(y1, b)
    both = inner0 + inner1
    free = (inner1 - inner0) * inverse_slope  # the width over which the edge is inside |y| <= b
    free = free if free < width else width
    free = free if free > 0.0 else 0.0
    return width * both + free * (y0 + y1 - both)


@njit(cache=True, error_model="numpy", fastmath={"contract"}, forceinline=True)
def intersection_area(x, y, cos_a, sin_a, a, b, cos_b, sin_b, p, q):  # type: ignore[no-untyped-def]
    """Return the area that two rotated boxes share, at least 0 and at most the smaller of the two areas.

    (x, y) is the centre of B minus the centre of A, in pixels of the picture: subtract the centres first, in float64.
    (cos_a, sin_a) is the direction of A's w side, a and b are half its w and h; (cos_b, sin_b), p and q are B's.
    """
    cos, sin = cos_a * cos_b + sin_a * sin_b, cos_a * sin_b - sin_a * cos_b
    x, y = cos_a * x + sin_a * y, cos_a * y - sin_a * x
    y *= math.copysign(1.0, cos * sin)  # mirrored, B is turned by 0 to 90 degrees: its w side rises, its h side falls
    cos, sin = abs(cos), abs(sin)
    tan, cot = sin / (cos if cos > FLAT else FLAT), cos / (sin if sin > FLAT else FLAT)
    run_w, rise_w, run_h, rise_h = p * cos, p * sin, q * sin, q * cos
    # Corners from left to right: 0, then 1 (the highest y) and 2 (the lowest), then 3
    x0, y0, x3, y3 = x - run_w - run_h, y - rise_w + rise_h, x + run_w + run_h, y + rise_w - rise_h
    x1, y1, x2, y2 = x + run_w - run_h, y + rise_w + rise_h, x - run_w + run_h, y - rise_w - rise_h
    # Where |x| <= a cuts an edge, its end moves along it. If it cuts one edge at 1 or 2, the other there is outside,
    # with width 0, and its heights do not matter.
    in0, in1, in2, in3 = clamp(x0, a), clamp(x1, a), clamp(x2, a), clamp(x3, a)
    cut0, cut1, cut2, cut3 = in0 - x0, in1 - x1, in2 - x2, in3 - x3
    y1, y2 = smaller(y1 + cut1 * tan, y1 - cut1 * cot), larger(y2 + cut2 * tan, y2 - cut2 * cot)
    area = edge_area(y0 + cut0 * tan, y1, in1 - in0, cot, b) + edge_area(y1, y3 - cut3 * cot, in3 - in1, -tan, b)
    area -= edge_area(y0 - cut0 * cot, y2, in2 - in0, -tan, b) + edge_area(y2, y3 + cut3 * tan, in3 - in2, cot, b)
    area *= 0.5
    first, second = 4.0 * (a * b), (p + p) * (q + q)
    area = area if area < first else first
    area = area if area < second else second
    return area if area > 0.0 else 0.0
