"""What runs on the CUDA device: IoU of rotated boxes in float32 that keeps nearly all of its digits, and greedy NMS.

The formula is that of `formula.py`: the boundary integral of one box in the frame of another, nothing clipped or
sorted. Plain float32 loses a digit of the IoU for every factor of ten in a box's aspect. This does not:

* What cancels is subtracted exactly. A centre is two numbers, the second holding what the first rounded off. Sines,
  cosines and distances of centres are cut in two, with 12 bits in the leading part, so that the products of leading
  parts are exact, whether or not the compiler fuses them with the sums they enter.
* The second box is first cut, in its own frame, to the upright hull that the first box has there. What is left of it
  is no larger than the first box, and so its corners err no more, were the second box a thousand times as large.
* The first box is the frame of the integral: its sides enter as they are, not as differences of rounded corners.

Errors stay below 1e-6 of the IoU, and of the area of the first box, up to 10^4:1 (tests/geometry). Sides may be 1e-15
to 1e18; beyond, areas leave the range of float32 and the answer is wrong, though never NaN and never outside [0, 1].

`triton.py` launches the kernels, which are the functions at the end. A box is an index into a table: the index -1 is
no box. Indices of shapes (R, 1) and (1, C) make tiles of pairs. Names in capitals are compiled in.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators

from __future__ import annotations

import triton
import triton.language as tl

HULL_MARGIN = 1.0 + 2.0**-20
"""Hulls are larger by this factor, which is more than rounding takes from them."""
WORD = 64
"""Boxes in one word of the bit mask of NMS."""

_MARGIN, _WORD = tl.constexpr(HULL_MARGIN), tl.constexpr(WORD)

# Rows of a table (`box_table` of `triton.py`). What was rounded off x and y is in the row after each.
_X, _Y = tl.constexpr(0), tl.constexpr(2)
_HULL_X, _HULL_Y = tl.constexpr(4), tl.constexpr(5)
_HALF_W, _HALF_H = tl.constexpr(6), tl.constexpr(7)
_COS, _COS_LOW, _SIN, _SIN_LOW = tl.constexpr(8), tl.constexpr(9), tl.constexpr(10), tl.constexpr(11)
_AREA = tl.constexpr(12)


@triton.jit
def _clamp(value, low, high):
    return tl.minimum(tl.maximum(value, low), high)


@triton.jit
def _halve(value):
    """Cut float32 numbers into their first 12 bits and the rest."""
    leading = (value.to(tl.int32, bitcast=True) & -4096).to(tl.float32, bitcast=True)
    return leading, value - leading


@triton.jit
def _add(a, b):
    """Return a rounded sum and what was rounded off it, exactly, whichever is larger (Knuth's two-sum)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


@triton.jit
def _dot(a, a_low, b, b_low, c, c_low, d, d_low):
    """Return a b + c d in two parts, of numbers in two parts whose leading ones have 12 bits."""
    total, rest = _add(a * b, c * d)
    return total, rest + ((a * b_low + a_low * (b + b_low)) + (c * d_low + c_low * (d + d_low)))


@triton.jit
def _row(table, ROW: tl.constexpr, count, index):
    """Load a number of each box; all numbers of no box are 0."""
    return tl.load(table + ROW * count.to(tl.int64) + index, mask=index >= 0, other=0.0)


@triton.jit
def _distance(table1, count1, i, table2, count2, j, ROW: tl.constexpr):
    """Return the centre of box i minus that of box j, along x (ROW is _X) or y (_Y), in two parts."""
    distance, rest = _add(_row(table1, ROW, count1, i), -_row(table2, ROW, count2, j))
    return distance, rest + (_row(table1, ROW + 1, count1, i) - _row(table2, ROW + 1, count2, j))


@triton.jit
def _hulls_overlap(table1, count1, i, table2, count2, j):
    x, x_low = _distance(table1, count1, i, table2, count2, j, _X)
    y, y_low = _distance(table1, count1, i, table2, count2, j, _Y)
    across = tl.abs(x + x_low) < _row(table1, _HULL_X, count1, i) + _row(table2, _HULL_X, count2, j)
    down = tl.abs(y + y_low) < _row(table1, _HULL_Y, count1, i) + _row(table2, _HULL_Y, count2, j)
    return across & down & (i >= 0) & (j >= 0)


@triton.jit
def _edge_area(x0, y0, x1, y1, inverse, w, h):
    """Return twice what the edge from (x0, y0) to (x1, y1) adds to the area inside |x| <= w, |y| <= h.

    `inverse` is 1 / (x1 - x0), and anything finite where that is 0: the run of a vertical edge is 0.
    """
    left, right = _clamp(x0, -w, w), _clamp(x1, -w, w)
    start, end = _clamp((left - x0) * inverse, 0.0, 1.0), _clamp((right - x0) * inverse, 0.0, 1.0)
    rise = y1 - y0
    low, high = y0 + start * rise, y0 + end * rise
    inner_low, inner_high = _clamp(low, -h, h), _clamp(high, -h, h)
    both, climb = inner_low + inner_high, high - low
    share = (inner_high - inner_low) / tl.where(climb != 0.0, climb, 1.0)  # in [0, 1]: nothing blows up
    return (left - right) * (both + share * (low + high - both))


@triton.jit
def _area_inside(left, right, top, bottom, cos, sin, w, h):
    """Return the area that an upright rectangle shares with |x| <= w, |y| <= h once that is turned by (cos, sin)."""
    along, across = cos * (right - left), sin * (bottom - top)
    inverse_u = 1.0 / tl.where(along != 0.0, along, 1.0)
    inverse_v = 1.0 / tl.where(across != 0.0, across, 1.0)
    x0, y0 = cos * left + sin * top, cos * top - sin * left
    x1, y1 = cos * right + sin * top, cos * top - sin * right
    x2, y2 = cos * right + sin * bottom, cos * bottom - sin * right
    x3, y3 = cos * left + sin * bottom, cos * bottom - sin * left
    area = _edge_area(x0, y0, x1, y1, inverse_u, w, h)
    area += _edge_area(x1, y1, x2, y2, inverse_v, w, h)
    area += _edge_area(x2, y2, x3, y3, -inverse_u, w, h)
    area += _edge_area(x3, y3, x0, y0, -inverse_v, w, h)
    return 0.5 * area


@triton.jit
def _pose(table1, count1, i, table2, count2, j):
    """Return the centre of box i in the frame of box j, x and y in two parts each, and its (cos, sin) there."""
    x, x_low = _distance(table1, count1, i, table2, count2, j, _X)
    y, y_low = _distance(table1, count1, i, table2, count2, j, _Y)
    x, x_rest = _halve(x)
    y, y_rest = _halve(y)
    x_low, y_low = x_low + x_rest, y_low + y_rest
    cos1, cos1_low = _row(table1, _COS, count1, i), _row(table1, _COS_LOW, count1, i)
    sin1, sin1_low = _row(table1, _SIN, count1, i), _row(table1, _SIN_LOW, count1, i)
    cos2, cos2_low = _row(table2, _COS, count2, j), _row(table2, _COS_LOW, count2, j)
    sin2, sin2_low = _row(table2, _SIN, count2, j), _row(table2, _SIN_LOW, count2, j)
    along, along_low = _dot(cos2, cos2_low, x, x_low, sin2, sin2_low, y, y_low)
    across, across_low = _dot(cos2, cos2_low, y, y_low, -sin2, -sin2_low, x, x_low)
    cos, cos_low = _dot(cos2, cos2_low, cos1, cos1_low, sin2, sin2_low, sin1, sin1_low)
    sin, sin_low = _dot(cos2, cos2_low, sin1, sin1_low, -sin2, -sin2_low, cos1, cos1_low)
    return along, along_low, across, across_low, cos + cos_low, sin + sin_low


@triton.jit
def _iou(table1, count1, i, table2, count2, j, OVER_FIRST: tl.constexpr):
    """Return the IoU of boxes i of the first table and j of the second, or the intersection over the area of i."""
    x, x_low, y, y_low, cos, sin = _pose(table1, count1, i, table2, count2, j)
    w1, h1 = _row(table1, _HALF_W, count1, i), _row(table1, _HALF_H, count1, i)
    w2, h2 = _row(table2, _HALF_W, count2, j), _row(table2, _HALF_H, count2, j)
    # Box j as its own frame shows it, from the centre of box i and as far as the hull of box i reaches there.
    reach_x = _MARGIN * (w1 * tl.abs(cos) + h1 * tl.abs(sin))
    reach_y = _MARGIN * (w1 * tl.abs(sin) + h1 * tl.abs(cos))
    left, right = _clamp((-w2 - x) - x_low, -reach_x, reach_x), _clamp((w2 - x) - x_low, -reach_x, reach_x)
    top, bottom = _clamp((-h2 - y) - y_low, -reach_y, reach_y), _clamp((h2 - y) - y_low, -reach_y, reach_y)
    area1, area2 = _row(table1, _AREA, count1, i), _row(table2, _AREA, count2, j)
    shared = tl.minimum(_area_inside(left, right, top, bottom, cos, sin, w1, h1), tl.minimum(area1, area2))
    whole = area1 if OVER_FIRST else area1 + area2 - shared
    share = shared / tl.where(whole > 0.0, whole, 1.0)
    return tl.where(share > 0.0, tl.minimum(share, 1.0), 0.0)  # 0 too for the NaN of infinite areas


@triton.jit
def _indices(start, COUNT: tl.constexpr, end):
    """Return COUNT indices from `start` on; -1 in place of those from `end` on."""
    index = start + tl.arange(0, COUNT)
    return tl.where(index < end, index, -1)


@triton.jit
def _may_suppress(table, group, gone, count, i, j):
    """Whether i comes before j, in one group, both still there, with hulls that overlap."""
    near = _hulls_overlap(table, count, i, table, count, j) & (i < j)
    near &= tl.load(group + i, mask=i >= 0, other=0) == tl.load(group + j, mask=j >= 0, other=0)
    return near & (tl.load(gone + i, mask=i >= 0, other=1) == 0) & (tl.load(gone + j, mask=j >= 0, other=1) == 0)


@triton.jit
def _either(a, b):
    return a | b


@triton.jit(do_not_specialize=["count1", "count2"])
def fill_pairwise(
    table1, table2, answer, count1, count2, OVER_FIRST: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Fill one tile of (count1, count2) `answer`; a tile whose hulls nowhere overlap is zeros at once."""
    tiles = tl.cdiv(count2, COLUMNS)
    i = _indices(tl.program_id(0) // tiles * ROWS, ROWS, count1)[:, None]
    j = _indices(tl.program_id(0) % tiles * COLUMNS, COLUMNS, count2)[None, :]
    near = _hulls_overlap(table1, count1, i, table2, count2, j)
    values = tl.zeros((ROWS, COLUMNS), tl.float32)
    if tl.max(near.to(tl.int32)) > 0:
        values = tl.where(near, _iou(table1, count1, i, table2, count2, j, OVER_FIRST), 0.0)
    tl.store(answer + i.to(tl.int64) * count2 + j, values, mask=(i >= 0) & (j >= 0))


@triton.jit(do_not_specialize=["count"])
def fill_aligned(table1, table2, answer, count, OVER_FIRST: tl.constexpr, PAIRS: tl.constexpr):
    """Fill PAIRS places of (count,) `answer`."""
    i = _indices(tl.program_id(0) * PAIRS, PAIRS, count)
    near = _hulls_overlap(table1, count, i, table2, count, i)
    values = tl.zeros((PAIRS,), tl.float32)
    if tl.max(near.to(tl.int32)) > 0:
        values = tl.where(near, _iou(table1, count, i, table2, count, i, OVER_FIRST), 0.0)
    tl.store(answer + i, values, mask=i >= 0)


@triton.jit(do_not_specialize=["first", "last", "count", "limit"])
def fill_mask(table, group, gone, first, last, count, limit, mask, WORDS: tl.constexpr, ROWS: tl.constexpr):
    """Write one word for each of ROWS boxes of the segment [first, last): a bit for every box that it suppresses."""
    row, word = tl.program_id(0) * ROWS, tl.program_id(1)
    if (word + 1) * _WORD > row:  # words before a box's own are of boxes before it; nobody reads them
        i = _indices(first + row, ROWS, last)[:, None]
        j = _indices(first + word * _WORD, _WORD, last)[None, :]
        near = _may_suppress(table, group, gone, count, i, j)
        bits = tl.zeros((ROWS,), tl.int64)
        if tl.max(near.to(tl.int32)) > 0:
            near &= _iou(table, count, i, table, count, j, False) > limit
            bits = tl.sum(near.to(tl.int64) << tl.arange(0, _WORD)[None, :].to(tl.int64), axis=1)
        rows = row + tl.arange(0, ROWS)
        tl.store(mask + rows * WORDS + word, bits, mask=rows < last - first)


@triton.jit(do_not_specialize=["first", "last"])
def resolve(mask, gone, first, last, WORDS: tl.constexpr):
    """Walk the segment [first, last) by falling score, 64 boxes at a time, and mark in `gone` who is suppressed.

    Among the 64: those are out whom a box suppresses that is not out. Repeated until nothing changes this is the greedy
    answer, for the k-th box is settled after k rounds; a few rounds are the rule.
    """
    bit, word = tl.arange(0, _WORD).to(tl.int64), tl.arange(0, WORDS)
    places = first + word[:, None] * _WORD + tl.arange(0, _WORD)[None, :]
    flags = tl.load(gone + places, mask=places < last, other=0).to(tl.int64)
    out = tl.sum(flags << bit[None, :], axis=1)  # a word for each 64 boxes
    words = tl.cdiv(last - first, _WORD)
    for current in range(words):
        rows = current * _WORD + tl.arange(0, _WORD)
        inside = rows < last - first
        own = tl.load(mask + rows * WORDS + current, mask=inside, other=0)
        before = tl.sum(tl.where(word == current, out, 0), axis=0)
        now, previous = before, ~before
        while now != previous:
            previous = now
            now = before | tl.reduce(tl.where(((now >> bit) & 1) == 0, own, 0), 0, _either)
        kept = inside & (((now >> bit) & 1) == 0)
        ahead = (word >= current) & (word < words)
        theirs = tl.load(mask + rows[:, None] * WORDS + word[None, :], mask=kept[:, None] & ahead[None, :], other=0)
        out |= tl.reduce(theirs, 0, _either)
    tl.store(gone + places, ((out[:, None] >> bit[None, :]) & 1).to(tl.int8), mask=places < last)


@triton.jit(do_not_specialize=["first", "last", "count", "limit"])
def suppress(table, group, gone, first, last, count, limit, ROWS: tl.constexpr):
    """Let ROWS boxes of the resolved segment [first, last) suppress boxes among 64 later ones, of [last, count).

    Programs that run at once may mark the same box, and may see or miss each other's mark: all write the same.
    """
    i = _indices(first + tl.program_id(0) * ROWS, ROWS, last)[:, None]
    j = _indices(last + tl.program_id(1) * _WORD, _WORD, count)[None, :]
    near = _may_suppress(table, group, gone, count, i, j)
    if tl.max(near.to(tl.int32)) > 0:
        near &= _iou(table, count, i, table, count, j, False) > limit
        hit = tl.max(near.to(tl.int32), axis=0)[None, :]
        tl.store(gone + j, hit.to(tl.int8), mask=hit > 0)
