"""Along which line of a quadrilateral its least-area rectangle lies, on a CPU: the same as `polygon` says, compiled.

Lines are numbered as there: the four sides, then the two diagonals.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

FROM, TO = (0, 1, 2, 3, 0, 1), (1, 2, 3, 0, 2, 3)
"""Corners that each line goes through."""


@njit(cache=True, error_model="numpy")
def least_lines(corners, rounding, same_angle):  # type: ignore[no-untyped-def]
    """Return (N,) the line of corners (N, 4, 2), the first of them at the origin, as `polygon._least_line` chooses."""
    chosen = np.empty(len(corners), np.int64)
    areas, turns = np.empty(6), np.empty(6)
    quarter = math.pi / 2
    for i in range(len(corners)):
        longest = 0.0
        for line in range(6):
            a, b = FROM[line], TO[line]
            dx, dy = corners[i, b, 0] - corners[i, a, 0], corners[i, b, 1] - corners[i, a, 1]
            square = dx * dx + dy * dy
            if square == 0.0:
                areas[line], turns[line] = np.inf, 0.0
                continue
            longest = max(longest, square)
            length = math.sqrt(square)
            cos, sin = dx / length, dy / length
            low_u, high_u, low_v, high_v = np.inf, -np.inf, np.inf, -np.inf
            for k in range(4):
                x, y = corners[i, k, 0], corners[i, k, 1]
                u, v = x * cos + y * sin, y * cos - x * sin
                low_u, high_u, low_v, high_v = min(low_u, u), max(high_u, u), min(low_v, v), max(high_v, v)
            areas[line] = (high_u - low_u) * (high_v - low_v)
            theta = math.atan2(sin, cos)
            turn = theta - np.rint(theta / quarter) * quarter
            turns[line] = abs(turn) + (same_angle if turn > 0.0 else 0.0)
        limit, best = areas.min() + rounding * longest, np.inf
        chosen[i] = 0
        for line in range(6):
            if areas[line] <= limit and turns[line] < best:
                chosen[i], best = line, turns[line]
    return chosen


@njit(cache=True, error_model="numpy")
def last_least_lines(corners):  # type: ignore[no-untyped-def]
    """Return (N,) the side of the hull of whole-numbered corners (N, 4, 2), as `polygon._last_least_side` chooses."""
    chosen = np.empty(len(corners), np.int64)
    for i in range(len(corners)):
        chosen[i] = 0
        least, latest = np.float32(np.inf), -1.0
        for line in range(6):
            a, b = FROM[line], TO[line]
            dx, dy = corners[i, b, 0] - corners[i, a, 0], corners[i, b, 1] - corners[i, a, 1]
            square = dx * dx + dy * dy
            if square == 0.0:
                continue
            first_u = last_u = first_v = last_v = 0
            low_u, high_u, low_v, high_v = np.inf, -np.inf, np.inf, -np.inf
            for k in range(4):
                x, y = corners[i, k, 0], corners[i, k, 1]
                u, v = x * dx + y * dy, y * dx - x * dy
                if u < low_u:
                    low_u, first_u = u, k
                if u > high_u:
                    high_u, last_u = u, k
                if v < low_v:
                    low_v, first_v = v, k
                if v > high_v:
                    high_v, last_v = v, k
            own = corners[i, a, 1] * dx - corners[i, a, 0] * dy
            if low_v < own < high_v:
                continue  # corners on both sides of it: no side of the hull
            inverse = np.float32(1.0 / math.sqrt(square))
            cos, sin = np.float32(dx) * inverse, np.float32(dy) * inverse
            width = _reach(corners[i], first_u, last_u, cos, sin)
            area = width * _reach(corners[i], first_v, last_v, -sin, cos)
            x, y = abs(dx), abs(dy)
            turn = math.atan2(x, y) if dx * dy > 0.0 or dx == 0.0 else math.atan2(y, x)
            if area < least or (area == least and turn > latest):
                chosen[i], least, latest = line, area, turn
    return chosen


@njit(cache=True, error_model="numpy", forceinline=True)
def _reach(corners, first, last, cos, sin):  # type: ignore[no-untyped-def]
    """Return how far it is from one corner to another along a unit vector, every step rounded to float32."""
    dx = np.float32(corners[last, 0] - corners[first, 0])
    dy = np.float32(corners[last, 1] - corners[first, 1])
    return np.float32(dx * cos) + np.float32(dy * sin)
