"""Quadrilaterals as they are annotated, (N, 4, 2) float64 corners in either turn, convex or not: areas and overlaps.

Scoring compares the polygons that stand in files, not the rectangles that are fitted to them
(docs/decisions/scoring-polygons.md). Everything here is numpy; where numba is installed, its text of the same
formulas is taken (`geometry/kernels/pairs.py`).
"""

from __future__ import annotations

import importlib.util
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from focaldet.errors import FocaldetError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NOTHING = 1e-13
"""IoU up to which two polygons count as apart: the sum of the rounding of what cancels."""

FLAT = 1e-12
"""Share of the square of the longest line between corners under which an area is nothing but rounding."""


class QuadMeasures(NamedTuple):
    """What there is to know of N quadrilaterals: (N,) each, areas in square pixels.

    Attributes:
        areas: of the polygon; 0 where its corners lie on a line. Of one that crosses itself, a difference of parts.
        crossing: whether two sides cross; sides that only touch do not.
        rectangles: of the least rectangle around it.
    """

    areas: Floats
    crossing: Bools
    rectangles: Floats


def measure_quads(quads: Floats) -> QuadMeasures:
    """Measure quadrilaterals (N, 4, 2).

    >>> measure_quads(np.array([[[0.0, 0], [4, 0], [4, 2], [2, 2]]])).rectangles.round(9).tolist()
    [8.0]
    """
    quads = _checked(quads, "quads")
    if _numba():
        from focaldet.geometry.kernels.pairs import measure

        return QuadMeasures(*measure(quads, FLAT))
    import torch

    from focaldet.geometry.polygon import polygon_to_rbox

    rectangles = polygon_to_rbox(torch.from_numpy(quads.reshape(-1, 8)))[:, 2:4].prod(dim=1).numpy()
    return QuadMeasures(quad_areas(quads), cross_themselves(quads), rectangles)


def quad_areas(quads: Floats) -> Floats:
    """Return the area (N,) of quadrilaterals (N, 4, 2), by their diagonals; 0 for one whose corners lie on a line.

    >>> quad_areas(np.array([[[0.0, 0], [4, 0], [4, 2], [0, 2]], [[0, 0], [1, 0.1], [2, 0.2], [3, 0.3]]])).tolist()
    [8.0, 0.0]
    """
    a, b, c, d = _checked(quads, "quads").transpose(1, 0, 2)
    areas = 0.5 * np.abs(_cross(c - a, d - b))
    lines = np.stack([b - a, c - b, d - c, a - d, c - a, d - b])
    return np.where(areas > FLAT * (lines**2).sum(axis=2).max(axis=0), areas, 0.0)


def cross_themselves(quads: Floats) -> Bools:
    """Tell (N,) which quadrilaterals (N, 4, 2) have two sides that cross; sides that only touch do not.

    >>> cross_themselves(np.array([[[0.0, 0], [4, 0], [0, 2], [4, 2]]])).tolist()
    [True]
    """
    a, b, c, d = _checked(quads, "quads").transpose(1, 0, 2)
    return _sides_cross(a, b, c, d) | _sides_cross(b, c, d, a)


def overlapping_pairs(
    quads1: Floats, segments1: Ints, quads2: Floats, segments2: Ints, floor: float = 0.0
) -> tuple[Ints, Ints, Floats]:
    """List the quadrilaterals of two sets that overlap within a segment, such as a picture and class.

    Args:
        quads1: (N, 4, 2) corners. One that crosses itself or has no area overlaps nothing.
        segments1: (N,) number of each one's segment, from 0 on; a table of that many entries is made.
        quads2: (M, 4, 2) corners in the same frame.
        segments2: (M,) theirs.
        floor: IoU from which a pair is listed; at 0 all that share any area.

    Returns:
        (P,) numbers in the first set, rising; (P,) numbers in the second, in no promised order; (P,) IoU in (0, 1].

    Raises:
        FocaldetError: shapes do not fit, or a corner is not finite.
    """
    quads1, quads2 = _checked(quads1, "quads1"), _checked(quads2, "quads2")
    segments1, segments2 = (np.asarray(item, dtype=np.int64) for item in (segments1, segments2))
    if segments1.shape != quads1.shape[:1] or segments2.shape != quads2.shape[:1]:
        raise FocaldetError(
            f"{len(quads1)} and {len(quads2)} quadrilaterals need as many segments, but those have the shapes "
            f"{segments1.shape} and {segments2.shape}"
        )
    areas1, areas2 = (np.where(crossing, 0.0, areas) for areas, crossing, _ in map(measure_quads, (quads1, quads2)))
    real = np.flatnonzero(areas2 > 0)
    order = real[np.lexsort((quads2[real, :, 0].min(axis=1), segments2[real]))]
    starts = np.searchsorted(segments2[order], np.arange(segments2.max(initial=-1) + 2))
    if _numba():
        from focaldet.geometry.kernels.pairs import list_pairs

        pairs, ious = list_pairs(quads1, areas1, segments1, quads2, areas2, order, starts, max(float(floor), NOTHING))
        return pairs[:, 0], pairs[:, 1], ious
    i, j = _touching_hulls(quads1, segments1, quads2, order, starts)
    i, j = i[areas1[i] > 0], j[areas1[i] > 0]
    smaller = np.minimum(areas1[i], areas2[j])
    both = np.minimum(shared_areas(quads1[i], quads2[j]), smaller)
    ious = np.divide(both, areas1[i] + areas2[j] - both, out=np.zeros(len(both)), where=both > 0)
    kept = ious >= max(floor, NOTHING)
    return i[kept], j[kept], ious[kept]


def shared_areas(quads1: Floats, quads2: Floats) -> Floats:
    """Return the area (P,) that aligned quadrilaterals (P, 4, 2) share, whether convex or not.

    A polygon is the sum of the regions under its sides, each counted by the direction in which the side runs: so the
    shared area is the sum over all pairs of sides of the integral of the lower one, where both are above the x axis's
    same stretch. Where two sides cross there, that is half of (both - their distance). Nothing is clipped or sorted,
    no tolerance is needed; what lies under both polygons cancels.
    """
    origin = quads2[:, :1]  # near to both, so that no digits go to their common place
    a, b = (quads1 - origin)[:, :, None], (quads2 - origin)[:, None]
    to_a, to_b = np.roll(a, -1, axis=1), np.roll(b, -1, axis=2)
    left = np.maximum(np.minimum(a, to_a), np.minimum(b, to_b))[..., 0]
    right = np.minimum(np.maximum(a, to_a), np.maximum(b, to_b))[..., 0]
    meet = left < right
    left, right = np.where(meet, left, 0.0), np.where(meet, right, 0.0)
    (start, end), (other_start, other_end) = _heights(a, to_a, left, right), _heights(b, to_b, left, right)
    first, last = start - other_start, end - other_end
    p, q = np.abs(first), np.abs(last)
    crossing = first * last < 0
    gap = np.where(crossing, (p * p + q * q) / np.where(crossing, p + q, 1.0), p + q)
    sign = np.sign((to_a - a)[..., 0]) * np.sign((to_b - b)[..., 0])
    pieces = sign * (right - left) * (start + end + other_start + other_end - gap)
    return np.asarray(0.25 * np.abs(np.where(meet, pieces, 0.0).sum(axis=(1, 2))), dtype=np.float64)


def _heights(start: Floats, end: Floats, left: Floats, right: Floats) -> tuple[Floats, Floats]:
    """Return the heights of sides at two places of the x axis between their ends; anything for upright sides."""
    run = (end - start)[..., 0]
    run = np.where(run == 0, 1.0, run)
    rise = (end - start)[..., 1]
    return (
        start[..., 1] + (left - start[..., 0]) / run * rise,
        start[..., 1] + (right - start[..., 0]) / run * rise,
    )


def _touching_hulls(quads1: Floats, segments1: Ints, quads2: Floats, order: Ints, starts: Ints) -> tuple[Ints, Ints]:
    """Return the pairs (P,), (P,) within a segment whose hulls share area, by rising number in the first set."""
    low1, high1, low2, high2 = quads1.min(axis=1), quads1.max(axis=1), quads2.min(axis=1), quads2.max(axis=1)
    by_segment = np.argsort(segments1, kind="stable")
    edges = np.searchsorted(segments1[by_segment], np.arange(len(starts)))
    found = [np.empty((0, 2), dtype=np.int64)]
    for segment in range(len(starts) - 1):
        mine, others = by_segment[edges[segment] : edges[segment + 1]], order[starts[segment] : starts[segment + 1]]
        for some in np.array_split(mine, 1 + len(mine) * len(others) // 2**20):
            low, high = np.maximum(low1[some, None], low2[others]), np.minimum(high1[some, None], high2[others])
            row, column = np.nonzero((low < high).all(axis=2))
            found.append(np.stack([some[row], others[column]], axis=1))
    pairs = np.concatenate(found)
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    return pairs[:, 0], pairs[:, 1]


def _checked(quads: Floats, name: str) -> Floats:
    quads = np.ascontiguousarray(quads, dtype=np.float64)
    if quads.ndim != 3 or quads.shape[1:] != (4, 2):
        raise FocaldetError(f"{name} has shape {quads.shape}; give quadrilaterals of shape (N, 4, 2)")
    if not np.isfinite(quads.sum()):
        bad = np.flatnonzero(~np.isfinite(quads).all(axis=(1, 2)))
        if len(bad):  # else only their sum was too large
            raise FocaldetError(f"{name}[{bad[0]}] is {quads[bad[0]].ravel().tolist()}; give finite numbers")
    return quads


def _sides_cross(a: Floats, b: Floats, c: Floats, d: Floats) -> Bools:
    """Tell (N,) where the side a b and the side c d, (N, 2) points each, cross in a point inside both."""
    apart = np.sign(_cross(b - a, c - a)) * np.sign(_cross(b - a, d - a)) < 0
    return np.asarray(apart & (np.sign(_cross(d - c, a - c)) * np.sign(_cross(d - c, b - c)) < 0))


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0], dtype=np.float64)


def _numba() -> bool:
    return importlib.util.find_spec("numba") is not None
