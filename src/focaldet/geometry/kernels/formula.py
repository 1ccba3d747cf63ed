"""The area of the intersection of two rotated boxes, in a form that the numba kernels inline.

Box B is moved into the frame of box A, where A is |x| <= a, |y| <= b. The area is the boundary integral of
clamp(y, -b, b) d clamp(x, -a, a) over the four edges of B: nothing is clipped, sorted or compared with a tolerance.
`focaldet.geometry.rotated_iou` is the same formula in torch, with its derivation.

Every branch is a select and all parallel edges share their reciprocals (one division a pair), so that loops over pairs
become vector instructions.
"""

from __future__ import annotations

from numba import njit

FLAT = 1e-30
"""A sine or cosine below this counts as this when it divides: its edge moves the other coordinate by nothing."""
NO_AREA = 1e-250
"""A box of at most so many square pixels has no area: its IoU is 0. Above, nothing under- or overflows."""


@njit(cache=True, error_model="numpy", forceinline=True)
def clamp(value, limit):  # type: ignore[no-untyped-def]
    """Return `value`, at least -limit and at most limit (limit >= 0); two selects, so that loops become vectors."""
    value = value if value < limit else limit
    return value if value > -limit else -limit


@njit(cache=True, error_model="numpy", forceinline=True)
def edge_area(x0, y0, x1, y1, run, rise, inverse_run, inverse_rise, a, b):  # type: ignore[no-untyped-def]
    """Return twice what one edge of B, from (x0, y0) to (x1, y1), adds to the area inside |x| <= a, |y| <= b.

    The ends are in A's frame, whose half sizes are a and b. `run` is x1 - x0 and `rise` y1 - y0; their inverses may be
    anything finite where they are 0.
    """
    left, right = clamp(x0, a), clamp(x1, a)
    head, tail = (left - x0) * inverse_run, (x1 - right) * inverse_run  # the shares cut off at either end
    head, tail = head if head > 0.0 else 0.0, tail if tail > 0.0 else 0.0
    low, high = y0 + head * rise, y1 - tail * rise
    inner_low, inner_high = clamp(low, b), clamp(high, b)
    both, within = inner_low + inner_high, 1.0 - head - tail  # within < 0: the edge is outside, where left = right
    free = (inner_high - inner_low) * inverse_rise  # the share inside both strips: nothing blows up
    free = free if free < within else within
    free = free if free > 0.0 else 0.0
    return (left - right) * both - free * run * (low + high - both)


@njit(cache=True, error_model="numpy", forceinline=True)
def intersection_area(x, y, cos_a, sin_a, a, b, cos_b, sin_b, p, q):  # type: ignore[no-untyped-def]
    """Return the area that two rotated boxes share, at least 0 and at most the smaller of the two areas.

    (x, y) is the centre of B minus the centre of A, in pixels of the picture: subtract the centres first, in float64.
    (cos_a, sin_a) is the direction of A's w side, a and b are half its w and h; (cos_b, sin_b), p and q are B's.
    """
    cos, sin = cos_a * cos_b + sin_a * sin_b, cos_a * sin_b - sin_a * cos_b
    x, y = cos_a * x + sin_a * y, cos_a * y - sin_a * x
    ux, uy, vx, vy = p * cos, p * sin, -q * sin, q * cos
    steep = cos if abs(cos) > FLAT else FLAT
    level = sin if abs(sin) > FLAT else FLAT
    size = p * q
    inverse = 0.5 / (steep * level * (size if size > NO_AREA else 1.0))
    inverse_ux, inverse_uy = q * level * inverse, q * steep * inverse
    inverse_vx, inverse_vy = -p * steep * inverse, p * level * inverse
    x0, y0, x1, y1 = x - ux - vx, y - uy - vy, x + ux - vx, y + uy - vy
    x2, y2, x3, y3 = x + ux + vx, y + uy + vy, x - ux + vx, y - uy + vy
    run, rise = 2.0 * ux, 2.0 * uy
    area = edge_area(x0, y0, x1, y1, run, rise, inverse_ux, inverse_uy, a, b)
    area -= edge_area(x3, y3, x2, y2, run, rise, inverse_ux, inverse_uy, a, b)  # walked against the boundary's sense
    run, rise = 2.0 * vx, 2.0 * vy
    area += edge_area(x1, y1, x2, y2, run, rise, inverse_vx, inverse_vy, a, b)
    area -= edge_area(x0, y0, x3, y3, run, rise, inverse_vx, inverse_vy, a, b)
    area *= 0.5
    smaller = 4.0 * (a * b if a * b < size else size)
    area = area if area < smaller else smaller
    return area if area > 0.0 else 0.0
