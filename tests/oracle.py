"""The truth about two rotated boxes: the area they share and their IoU, by clipping polygons in many digits.

Nothing here knows the library's formula, an integral along one boundary. The first box is a polygon, the second four
half planes |n . (p - centre)| <= half side, and the polygon is cut by one after the other (Sutherland and Hodgman,
1974). No tolerance is needed: a cut adds a point only between a corner strictly inside and one strictly outside, and
that point lies on the edge whatever was rounded. So coinciding edges and corners cost a rounding error of area, not
more. Half planes come from the angle, not from differences of corners, so a side of length 0 has its direction, too.

Two programs for the same steps:

* `exact_intersection` and `exact_iou`: one pair in mpmath with 50 digits, 0.5 ms.
* `true_ious` and `true_ious_with_remainder`: arrays of pairs in double-double arithmetic (a number is the unevaluated
  sum of two float64, 31 digits), compiled by numba, 4 µs a pair. `tests/geometry/test_exactness.py` holds it against
  the first.

Boxes are rows (x, y, w, h, theta) of float32 or float64 numbers, each taken as exactly the number it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import mpmath
import numpy as np
from numba import njit
from numpy.typing import NDArray

Over = Literal["union", "first"]
Point = tuple[Any, Any]

mp = mpmath.mp.clone()  # its own context: setting its precision moves nobody else's
mp.dps = 50


# One pair, 50 digits


def exact_iou(box1: Sequence[float], box2: Sequence[float], over: Over = "union") -> Any:
    """Return intersection over union, or over the area of `box1`, as an mpf; 0 where that area is 0."""
    shared = exact_intersection(box1, box2)
    area1, area2 = (mp.mpf(float(box[2])) * mp.mpf(float(box[3])) for box in (box1, box2))
    if over == "first":
        return shared / area1 if area1 else mp.zero
    return shared / (area1 + area2 - shared) if area1 + area2 else mp.zero


def exact_intersection(box1: Sequence[float], box2: Sequence[float]) -> Any:
    """Return the area that both boxes cover, as an mpf; exactly 0 where one has no area."""
    if not all((*box1[2:4], *box2[2:4])):
        return mp.zero
    x1, y1, w1, h1, theta1 = (mp.mpf(float(number)) for number in box1)
    x2, y2, w2, h2, theta2 = (mp.mpf(float(number)) for number in box2)
    polygon = _corners(w1 / 2, h1 / 2, theta1)  # around the centre of box 1
    for half_plane in _half_planes(x2 - x1, y2 - y1, w2 / 2, h2 / 2, theta2):
        polygon = _cut(polygon, *half_plane)
    return _area(polygon)


def _corners(a: Any, b: Any, theta: Any) -> list[Point]:
    cos, sin = mp.cos(theta), mp.sin(theta)
    return [(s * a * cos - t * b * sin, s * a * sin + t * b * cos) for s, t in ((-1, -1), (1, -1), (1, 1), (-1, 1))]


def _half_planes(x: Any, y: Any, a: Any, b: Any, theta: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield (nx, ny, limit) for the four sides of a box: inside is nx * px + ny * py <= limit."""
    cos, sin = mp.cos(theta), mp.sin(theta)
    for nx, ny, half in ((cos, sin, a), (-sin, cos, b), (-cos, -sin, a), (sin, -cos, b)):
        yield nx, ny, nx * x + ny * y + half


def _cut(polygon: list[Point], nx: Any, ny: Any, limit: Any) -> list[Point]:
    """Return the part of a convex polygon that lies in a half plane."""
    depths = [limit - nx * x - ny * y for x, y in polygon]
    kept: list[Point] = []
    for i, (point, depth) in enumerate(zip(polygon, depths, strict=True)):
        after, depth_after = polygon[(i + 1) % len(polygon)], depths[(i + 1) % len(polygon)]
        if depth >= 0:
            kept.append(point)
        if (depth > 0 > depth_after) or (depth < 0 < depth_after):
            t = depth / (depth - depth_after)  # in (0, 1): nothing cancels in the denominator
            kept.append((point[0] + t * (after[0] - point[0]), point[1] + t * (after[1] - point[1])))
    return kept


def _area(polygon: list[Point]) -> Any:
    """Return the area by the shoelace rule; what rounding makes negative is 0."""
    if len(polygon) < 3:
        return mp.zero
    following = [*polygon[1:], polygon[0]]
    double = mp.fsum(p[0] * q[1] - q[0] * p[1] for p, q in zip(polygon, following, strict=True))
    return max(double / 2, mp.zero)


# Many pairs, 31 digits


def true_ious(boxes1: NDArray[Any], boxes2: NDArray[Any], over: Over = "union") -> NDArray[np.float64]:
    """Return the IoU of row i with row i, (n,), rounded once, to float64; over="first": over the area of `boxes1`."""
    return true_ious_with_remainder(boxes1, boxes2, over)[:, 0].copy()


def true_ious_with_remainder(boxes1: NDArray[Any], boxes2: NDArray[Any], over: Over = "union") -> NDArray[np.float64]:
    """Return (n, 2): `true_ious` and what that rounding left out, so that their sum has 31 digits."""
    pairs = [np.ascontiguousarray(boxes, dtype=np.float64) for boxes in (boxes1, boxes2)]
    if pairs[0].ndim != 2 or pairs[0].shape[1] != 5 or pairs[0].shape != pairs[1].shape:
        raise ValueError(f"boxes1 is {pairs[0].shape} and boxes2 {pairs[1].shape}; give (n, 5) twice")
    return _ious(*pairs, over == "first")


def _parts(number: Any, count: int) -> tuple[float, ...]:
    """Return float64 numbers whose sum is `number`, each the nearest to what the ones before leave."""
    parts: list[float] = []
    for _ in range(count):
        parts.append(float(number - sum(map(mp.mpf, parts))))
    return tuple(parts)


HALF_PI = _parts(mp.pi / 2, 3)
QUARTER_TURN = float(2 / mp.pi)


@njit(cache=True)
def _sum_exactly(a, b):
    """Return a + b as a double-double, without error (Knuth)."""
    high = a + b
    part = high - a
    return high, (a - (high - part)) + (b - part)


@njit(cache=True)
def _renormalize(high, low):
    total = high + low
    return total, low - (total - high)


@njit(cache=True)
def _multiply_exactly(a, b):
    """Return a * b as a double-double, without error (Dekker, by halves of 26 bits)."""
    part_a, part_b = 134217729.0 * a, 134217729.0 * b
    a1, b1 = part_a - (part_a - a), part_b - (part_b - b)
    a2, b2 = a - a1, b - b1
    product = a * b
    return product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2


@njit(cache=True)
def _add(x, y):
    high, low = _sum_exactly(x[0], y[0])
    high2, low2 = _sum_exactly(x[1], y[1])
    high, low = _renormalize(high, low + high2)
    return _renormalize(high, low + low2)


@njit(cache=True)
def _minus(x, y):
    return _add(x, (-y[0], -y[1]))


@njit(cache=True)
def _times(x, y):
    high, low = _multiply_exactly(x[0], y[0])
    return _renormalize(high, low + (x[0] * y[1] + x[1] * y[0]))


@njit(cache=True)
def _over(x, y):
    """Return x / y by long division, 53 bits at a time."""
    first = x[0] / y[0]
    rest = _minus(x, _times((first, 0.0), y))
    second = rest[0] / y[0]
    rest = _minus(rest, _times((second, 0.0), y))
    return _add(_renormalize(first, second), (rest[0] / y[0], 0.0))


@njit(cache=True)
def _cos_sin(theta):
    """Return cosine and sine of a float64 angle: quarter turns taken off with 159 bits of pi / 2, then Taylor."""
    turns = np.round(theta * QUARTER_TURN)
    rest = (theta, 0.0)
    for part in HALF_PI:
        rest = _minus(rest, _multiply_exactly(turns, part))
    minus_square = _times((-rest[0], -rest[1]), rest)
    cos, sin, cos_term, sin_term = (1.0, 0.0), rest, (1.0, 0.0), rest
    for k in range(1, 15):  # (pi / 4)^30 / 30! is 3e-36
        cos_term = _over(_times(cos_term, minus_square), ((2.0 * k - 1.0) * (2.0 * k), 0.0))
        sin_term = _over(_times(sin_term, minus_square), ((2.0 * k) * (2.0 * k + 1.0), 0.0))
        cos, sin = _add(cos, cos_term), _add(sin, sin_term)
    quarter = int(turns) % 4
    if quarter == 0:
        return cos, sin
    if quarter == 1:
        return (-sin[0], -sin[1]), cos
    if quarter == 2:
        return (-cos[0], -cos[1]), (-sin[0], -sin[1])
    return sin, (-cos[0], -cos[1])


@njit(cache=True)
def _dot(nx, ny, x, y):
    return _add(_times(nx, x), _times(ny, y))


# A polygon is rows of x, y and depth under the half plane at hand, each as two numbers.


@njit(cache=True)
def _get(row, i):
    return row[2 * i], row[2 * i + 1]


@njit(cache=True)
def _put(row, x, y):
    row[0], row[1] = x
    row[2], row[3] = y


@njit(cache=True)
def _cut_many(polygon, count, kept, nx, ny, limit):
    """Do what `_cut` does with the first `count` rows: write into `kept` and return how many rows that holds now."""
    for i in range(count):
        row = polygon[i]
        row[4], row[5] = _minus(limit, _dot(nx, ny, _get(row, 0), _get(row, 1)))
    num_kept = 0
    for i in range(count):
        row, after = polygon[i], polygon[(i + 1) % count]
        if row[4] >= 0.0:
            _put(kept[num_kept], _get(row, 0), _get(row, 1))
            num_kept += 1
        if (row[4] > 0.0 and after[4] < 0.0) or (row[4] < 0.0 and after[4] > 0.0):
            t = _over(_get(row, 2), _minus(_get(row, 2), _get(after, 2)))
            x = _add(_get(row, 0), _times(t, _minus(_get(after, 0), _get(row, 0))))
            y = _add(_get(row, 1), _times(t, _minus(_get(after, 1), _get(row, 1))))
            _put(kept[num_kept], x, y)
            num_kept += 1
    return num_kept


@njit(cache=True)
def _area_many(polygon, count):
    double = (0.0, 0.0)
    for i in range(count):
        row, after = polygon[i], polygon[(i + 1) % count]
        double = _add(double, _times(_get(row, 0), _get(after, 1)))
        double = _minus(double, _times(_get(after, 0), _get(row, 1)))
    return (0.5 * double[0], 0.5 * double[1]) if double[0] > 0.0 else (0.0, 0.0)


@njit(cache=True)
def _intersection(box1, box2, polygon, kept):
    """Do what `exact_intersection` does; `polygon` and `kept` are room for 4 points, doubled by each of the 4 cuts."""
    (cos, sin), a, b = _cos_sin(box1[4]), (0.5 * box1[2], 0.0), (0.5 * box1[3], 0.0)
    ux, uy = _times(a, cos), _times(a, sin)
    vx, vy = _times(b, (-sin[0], -sin[1])), _times(b, cos)
    for i, (s, t) in enumerate(((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))):
        x = _add((s * ux[0], s * ux[1]), (t * vx[0], t * vx[1]))
        y = _add((s * uy[0], s * uy[1]), (t * vy[0], t * vy[1]))
        _put(polygon[i], x, y)
    count = 4
    x, y = _sum_exactly(box2[0], -box1[0]), _sum_exactly(box2[1], -box1[1])
    nx, ny = _cos_sin(box2[4])
    for side in range(4):
        limit = _add(_dot(nx, ny, x, y), (0.5 * box2[2 + side % 2], 0.0))
        count = _cut_many(polygon, count, kept, nx, ny, limit)
        polygon, kept = kept, polygon
        nx, ny = (-ny[0], -ny[1]), nx
    return _area_many(polygon, count)


@njit(cache=True)
def _ious(boxes1, boxes2, over_first):
    polygon, kept = np.empty((64, 6)), np.empty((64, 6))
    answer = np.zeros((len(boxes1), 2))
    for i in range(len(boxes1)):
        box1, box2 = boxes1[i], boxes2[i]
        area1, area2 = _multiply_exactly(box1[2], box1[3]), _multiply_exactly(box2[2], box2[3])
        if area1[0] > 0.0 and area2[0] > 0.0:
            shared = _intersection(box1, box2, polygon, kept)
            answer[i, 0], answer[i, 1] = _over(shared, area1 if over_first else _minus(_add(area1, area2), shared))
    return answer
