"""Quadrilaterals painted on a grid of whole numbers as OpenCV 4 does it, pixel for pixel (`fillConvexPoly`).

A quadrilateral is the pixels of its four sides, each drawn as a line, and what lies between its left and right side,
row by row, with their abscissae in steps of 2^-16. One text for both back ends: compiled where numba works, else as it
stands. Corners are whole numbers of at most 31 bits and may lie anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

import numpy as np
import numpy.typing as npt

from focaldet.geometry.kernels.choose import why_not

Integers = npt.NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., object])

ONE = 1 << 16
"""A pixel in the steps that abscissae are counted in."""


def compiled(function: Function) -> Function:
    """Compile a function with numba, or leave it as it is where numba does not work."""
    if why_not("numba"):
        return function
    from numba import njit

    return cast(Function, njit(cache=True, error_model="numpy")(function))


@compiled
def paint(grid: Integers, quads: Integers, values: Integers) -> None:
    """Paint quadrilaterals (G, 4, 2), corners (x, y), into `grid` (H, W) in their order, each with its value (G,)."""
    height, width = grid.shape
    for number in range(len(quads)):
        quad, value = quads[number], values[number]
        x, y = quad[:, 0], quad[:, 1]
        if x.max() < 0 or y.max() < 0 or x.min() >= width or y.min() >= height:
            continue
        for corner in range(4):
            _draw_line(grid, x[corner - 1], y[corner - 1], x[corner], y[corner], value)
        _fill(grid, x, y, value)


@compiled
def _draw_line(grid: Integers, x1: int, y1: int, x2: int, y2: int, value: int) -> None:
    """Draw a line from left to right: a pixel for each step along its longer extent, and halves rounded down."""
    x1, y1, x2, y2, visible = _clipped(x1, y1, x2, y2, grid.shape[1] - 1, grid.shape[0] - 1)
    if not visible:
        return
    if x2 < x1:
        x1, y1, x2, y2 = x2, y2, x1, y1
    wide, high, down = x2 - x1, abs(y2 - y1), 1 if y2 > y1 else -1
    if high > wide:
        for step in range(high + 1):
            grid[y1 + down * step, x1 + (2 * wide * step + high - 1) // (2 * high)] = value
    else:
        for step in range(wide + 1):
            rise = (2 * high * step + wide - 1) // (2 * wide) if wide else 0
            grid[y1 + down * rise, x1 + step] = value


@compiled
def _clipped(x1: int, y1: int, x2: int, y2: int, right: int, bottom: int) -> tuple[int, int, int, int, bool]:
    """Cut a line down to the grid, by rows first, end after end; the last answer is whether any of it is left.

    What is cut off is rounded towards zero, and the second end follows the line that begins at the first one's new
    place: the result depends on the order of these steps, which is OpenCV's.
    """
    if _beyond(y1, y2, bottom) or _beyond(x1, x2, right):
        return x1, y1, x2, y2, False
    if y1 < 0 or y1 > bottom:
        edge = 0 if y1 < 0 else bottom
        x1, y1 = x1 + int(float(edge - y1) * (x2 - x1) / (y2 - y1)), edge
    if y2 < 0 or y2 > bottom:
        edge = 0 if y2 < 0 else bottom
        x2, y2 = x2 + int(float(edge - y2) * (x2 - x1) / (y2 - y1)), edge
    if _beyond(x1, x2, right):
        return x1, y1, x2, y2, False
    if x1 < 0 or x1 > right:
        edge = 0 if x1 < 0 else right
        x1, y1 = edge, y1 + int(float(edge - x1) * (y2 - y1) / (x2 - x1))
    if x2 < 0 or x2 > right:
        edge = 0 if x2 < 0 else right
        x2, y2 = edge, y2 + int(float(edge - x2) * (y2 - y1) / (x2 - x1))
    return x1, y1, x2, y2, True


@compiled
def _beyond(first: int, second: int, last: int) -> bool:
    """Whether two coordinates both lie before 0 or both beyond `last`."""
    return (first < 0 and second < 0) or (first > last and second > last)


@compiled
def _fill(grid: Integers, x: Integers, y: Integers, value: int) -> None:
    """Fill what lies between the two sides that run down from the uppermost corner, from event to event.

    An event is a row where a side reaches a corner and goes on along the next edge. Each side looks for a corner that
    lies lower, and both together look at four; when one asks for a fifth, all is filled but the lowest row, which the
    sides as lines have drawn. (In shapes that are not convex this means little, but is OpenCV's answer.)
    """
    row, last, left_to_see = y.min(), min(y.max(), grid.shape[0] - 1), 4
    corner = np.full(2, y.argmin())
    until, abscissa, slope = np.full(2, row), np.full(2, -ONE), np.zeros(2, np.int64)
    while row <= last:
        for side in range(2):
            here, onwards = corner[side], 1 - 2 * side
            while row >= until[side]:
                if left_to_see == 0:
                    return
                there = (here + onwards) % 4
                left_to_see -= 1
                if y[there] > row:
                    twice, rows = (x[there] - x[here]) * 2 * ONE, y[there] - row
                    corner[side], until[side], abscissa[side] = there, y[there], x[here] * ONE
                    slope[side] = _towards_zero(twice + rows, 2 * rows)
                here = there
        event = min(last + 1, until.min())
        _fill_rows(grid, row, event, abscissa, slope, value)
        abscissa += slope * (event - row)
        row = event


@compiled
def _fill_rows(grid: Integers, row: int, end: int, abscissa: Integers, slope: Integers, value: int) -> None:
    """Fill the rows from `row` to before `end` between two straight sides."""
    for y in range(max(row, 0), end):
        first, second = abscissa + slope * (y - row)
        start = (min(first, second) + ONE // 2) >> 16
        stop = (max(first, second) + ONE // 2) >> 16
        grid[y, max(start, 0) : max(stop + 1, 0)] = value


@compiled
def _towards_zero(dividend: int, divisor: int) -> int:
    """Divide by a positive number and drop the fraction."""
    return dividend // divisor if dividend >= 0 else -(-dividend // divisor)
