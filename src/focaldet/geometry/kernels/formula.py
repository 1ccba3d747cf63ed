"""The area of the intersection of two rotated boxes, in a form that the numba kernels inline.

Box B is moved into the frame of box A, where A is |x| <= a, |y| <= b. The area is the boundary integral of
clamp(y, -b, b) d clamp(x, -a, a) over the four edges of B: nothing is clipped, sorted or compared with a tolerance.
`focaldet.geometry.rotated_iou` is the same formula in torch, with its derivation.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True, error_model="numpy", forceinline=True)
def clamp(value, limit):  # type: ignore[no-untyped-def]
    """Return `value`, at least -limit and at most limit (limit >= 0); two selects, so that loops become vectors."""
    value = value if value < limit else limit
    return value if value > -limit else -limit


@njit(cache=True, error_model="numpy", forceinline=True)
def edge_area(x0, y0, x1, y1, inverse, a, b):  # type: ignore[no-untyped-def]
    """Return what one edge of B, from (x0, y0) to (x1, y1), adds to the area inside |x| <= a, |y| <= b.

    The ends are in A's frame, whose half sizes are a and b. `inverse` is 1 / (x1 - x0), and anything finite where that
    is 0: the run of a vertical edge is 0, whatever its slope.
    """
    left, right = clamp(x0, a), clamp(x1, a)
    start, end = (left - x0) * inverse, (right - x0) * inverse
    start = start if start > 0.0 else 0.0
    start = start if start < 1.0 else 1.0
    end = end if end > 0.0 else 0.0
    end = end if end < 1.0 else 1.0
    rise = y1 - y0
    low, high = y0 + start * rise, y0 + end * rise
    inner_low, inner_high = clamp(low, b), clamp(high, b)
    both, climb = inner_low + inner_high, high - low
    share = (inner_high - inner_low) / (climb if climb != 0.0 else 1.0)  # in [0, 1]: nothing blows up
    return (left - right) * (both + share * (low + high - both))


@njit(cache=True, error_model="numpy", forceinline=True)
def intersection_area(x, y, cos_a, sin_a, a, b, cos_b, sin_b, p, q):  # type: ignore[no-untyped-def]
    """Return the area that two rotated boxes share, at least 0 and at most the smaller of the two areas.

    (x, y) is the centre of B minus the centre of A, in pixels of the picture: subtract the centres first, in float64.
    (cos_a, sin_a) is the direction of A's w side, a and b are half its w and h; (cos_b, sin_b), p and q are B's.
    """
    cos, sin = cos_a * cos_b + sin_a * sin_b, cos_a * sin_b - sin_a * cos_b
    x, y = cos_a * x + sin_a * y, cos_a * y - sin_a * x
    ux, uy, vx, vy = p * cos, p * sin, -q * sin, q * cos
    along, across = 2.0 * ux, 2.0 * vx
    inverse_u = 1.0 / (along if along != 0.0 else 1.0)
    inverse_v = 1.0 / (across if across != 0.0 else 1.0)
    x0, y0, x1, y1 = x - ux - vx, y - uy - vy, x + ux - vx, y + uy - vy
    x2, y2, x3, y3 = x + ux + vx, y + uy + vy, x - ux + vx, y - uy + vy
    area = edge_area(x0, y0, x1, y1, inverse_u, a, b)
    area += edge_area(x1, y1, x2, y2, inverse_v, a, b)
    area += edge_area(x2, y2, x3, y3, -inverse_u, a, b)
    area += edge_area(x3, y3, x0, y0, -inverse_v, a, b)
    area *= 0.5
    smaller = 4.0 * (a * b if a * b < p * q else p * q)
    area = area if area < smaller else smaller
    return area if area > 0.0 else 0.0
