"""Row and column maxima of the IoU of truth boxes and anchors, compiled: what `assign` asks, without the matrix.

Four kernels, for anchors on a grid or in a list, upright or rotated. Each goes truth box by truth box and rules out
what cannot reach the IoU asked for: by areas, by the two boxes put on one centre (no shift overlaps more, as the root
of the area of an intersection of convex sets is concave in the shift), then by the shift along each axis. An
intersection is at most its extent along one direction times the smaller width across it, so an overlap that is
needed bounds the shift along the image's axes, the truth box's own and the anchor's: what is left are rows of places.
Bounds are computed in float64 and a little too wide; what lies in them is then compared exactly.

All of them take `ask`: (least, over_anchor, climb), the overlap from which on an anchor counts; whether intersections
are divided by the anchor's area instead of the union's; whether the best anchors of each truth box are looked for as
well, however little they overlap. They return (anchors, truths, overlaps, tie_truths, tie_anchors, tie_overlaps): of
the anchors that reach `least`, rising, the earliest truth box of their best overlap, and that; if `climb`, every anchor
that ties for the best overlap of a truth box, if that is above 0, truth box by truth box.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from focaldet.geometry.kernels.formula import intersection_area

BLOCK = 512
"""Pairs whose exact overlap is computed in one vector loop."""
VECTOR = 8
"""Pairs that one instruction computes at most; divides `BLOCK`."""
DIGIT = 11
"""Bits of an anchor's number that one pass sorts by."""
RUN = 32
"""Neighbouring anchors of a list that share one hull."""
NOISE = np.float32(1e-9)
"""An IoU of rboxes below this is none: two that only touch overlap by what float64 rounds, which must claim nothing."""
ROUNDING = 1.0 - 1e-6
"""An overlap that is needed is taken this much smaller, more than float32 rounds."""


@njit(cache=True, error_model="numpy")
def empty_lists(dtype):  # type: ignore[no-untyped-def]
    """Return room for pairs: (truth box, anchor) and overlap of those that reach `least`, and the same of ties."""
    return np.empty((8192, 2), np.int32), np.empty(8192, dtype), np.empty((512, 2), np.int32), np.empty(512, dtype)


@njit(cache=True, error_model="numpy", forceinline=True)
def lack_room(lists, state, count):  # type: ignore[no-untyped-def]
    """Whether the lists are too short for `count` more pairs."""
    return state[0] + count > len(lists[1]) or state[1] + count > len(lists[3])


@njit(cache=True, error_model="numpy")
def with_room(lists, state, count):  # type: ignore[no-untyped-def]
    """Return the lists with room for `count` more pairs."""
    pairs, ious, tie_pairs, tie_ious = lists
    while state[0] + count > len(ious):
        pairs, ious = np.concatenate((pairs, np.empty_like(pairs))), np.concatenate((ious, np.empty_like(ious)))
    while state[1] + count > len(tie_ious):
        tie_pairs = np.concatenate((tie_pairs, np.empty_like(tie_pairs)))
        tie_ious = np.concatenate((tie_ious, np.empty_like(tie_ious)))
    return pairs, ious, tie_pairs, tie_ious


@njit(cache=True, error_model="numpy")
def record(g, numbers, overlaps, count, least, rows, climb, lists, state):  # type: ignore[no-untyped-def]
    """Note those pairs of truth box g and the anchors `numbers[:count]` that reach `least` and are not 0.

    As hits if `rows`; if `climb`, as ties if none so far of this truth box is better. state: number of hits, of ties,
    and of ties of earlier truth boxes. The lists must have room for them all.
    """
    pairs, ious, tie_pairs, tie_ious = lists
    hits, ties, earlier = state
    if rows:
        for i in range(count):  # without a branch, which would often be mispredicted
            pairs[hits, 0], pairs[hits, 1], ious[hits] = g, numbers[i], overlaps[i]
            hits += (overlaps[i] >= least) & (overlaps[i] > 0)
    if climb:
        top = tie_ious[earlier] if ties > earlier else overlaps.dtype.type(0)
        for i in range(count):
            if overlaps[i] >= top and overlaps[i] >= least and overlaps[i] > 0:
                ties = earlier if overlaps[i] > top else ties
                top = overlaps[i]
                tie_pairs[ties, 0], tie_pairs[ties, 1], tie_ious[ties] = g, numbers[i], top
                ties += 1
    state[0], state[1] = hits, ties


@njit(cache=True, error_model="numpy")
def by_anchor(pairs, num_anchors):  # type: ignore[no-untyped-def]
    """Return the rows of (P, 2) pairs by rising number of the anchor, in their order where it is the same."""
    packed, other = np.empty(len(pairs), np.int64), np.empty(len(pairs), np.int64)
    for i in range(len(pairs)):
        packed[i] = np.int64(pairs[i, 1]) << 32 | i
    shift = 32
    while num_anchors - 1 >> shift - 32 > 0:  # stable, digit by digit
        starts = np.zeros((1 << DIGIT) + 1, np.int64)
        for i in range(len(packed)):
            starts[(packed[i] >> shift & (1 << DIGIT) - 1) + 1] += 1
        starts = np.cumsum(starts)
        for i in range(len(packed)):
            digit = packed[i] >> shift & (1 << DIGIT) - 1
            other[starts[digit]] = packed[i]
            starts[digit] += 1
        packed, other = other, packed
        shift += DIGIT
    return packed & 0xFFFFFFFF


@njit(cache=True, error_model="numpy")
def answer(lists, state, num_anchors):  # type: ignore[no-untyped-def]
    """Return what the module promises, from the lists: of every anchor the best hit, the earliest of equals."""
    pairs, ious, tie_pairs, tie_ious = lists
    anchors, truths, best = np.empty(state[0], np.int64), np.empty(state[0], np.int64), np.empty_like(ious[: state[0]])
    last = -1
    for i in by_anchor(pairs[: state[0]], num_anchors):
        if last < 0 or anchors[last] != pairs[i, 1]:
            last += 1
            anchors[last], truths[last], best[last] = pairs[i, 1], pairs[i, 0], ious[i]
        elif ious[i] > best[last]:
            truths[last], best[last] = pairs[i, 0], ious[i]
    last += 1
    ties = tie_pairs[: state[1]].astype(np.int64)
    return anchors[:last], truths[:last], best[:last], ties[:, 0].copy(), ties[:, 1].copy(), tie_ious[: state[1]]


@njit(cache=True, error_model="numpy", forceinline=True)
def needed(least, area, anchor_area, over_anchor):  # type: ignore[no-untyped-def]
    """Return the intersection from which on the quotient is at least `least`; IoU = overlap / (both - overlap)."""
    return least * anchor_area if over_anchor else least / (1.0 + least) * (area + anchor_area)


@njit(cache=True, error_model="numpy", forceinline=True)
def places(low, high, count):  # type: ignore[no-untyped-def]
    """Return the first place from `low` to `high` on an axis of `count` places, and the one behind the last."""
    first, stop = np.ceil(low), np.floor(high) + 1.0
    return int(min(max(first, 0.0), np.float64(count))), int(min(max(stop, 0.0), np.float64(count)))


# --- hboxes ---


@njit(cache=True, error_model="numpy", forceinline=True)
def hbox_quotient(x1, y1, x2, y2, area, left, top, right, bottom, one, over_anchor):  # type: ignore[no-untyped-def]
    """Return IoU, or intersection over the anchor, of two hboxes, in the operations and the type of the published one.

    `one` is what a side counts beyond the difference of its ends: 0, or 1 in the old pixel convention.
    """
    zero = one - one  # a 0 of the same type: a literal would make all of it float64
    floor = zero + np.float32(1e-6)
    wide, high = min(x2, right) - max(x1, left) + one, min(y2, bottom) - max(y1, top) + one
    overlap = max(wide, zero) * max(high, zero)
    anchor_area = (right - left + one) * (bottom - top + one)
    return overlap / max(anchor_area if over_anchor else area + anchor_area - overlap, floor)


@njit(cache=True, error_model="numpy")
def hbox_window(box, area, shape, pitch, lattice, window, one, over_anchor, edges, numbers, ious):  # type: ignore[no-untyped-def]
    """Put the numbers of the anchors of one shape in a window of places into `numbers` and their overlaps into `ious`.

    `edges` is scratch, of the type of the boxes. Returns how many there are.
    """
    x0, x3, y0, y3 = window
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    for x in range(x0, x3):
        centre = np.float32(x) * pitch[0] + pitch[1]  # float32, rounded step by step, as the anchors of a grid are
        edges[0, x - x0], edges[1, x - x0] = centre + shape[0], centre + shape[2]
    count = 0
    for y in range(y0, y3):
        centre = np.float32(y) * pitch[0] + pitch[1]
        edges[2, 0], edges[3, 0] = centre + shape[1], centre + shape[3]
        top, bottom = edges[2, 0], edges[3, 0]
        for i in range(x3 - x0):
            ious[count + i] = hbox_quotient(
                x1, y1, x2, y2, area, edges[0, i], top, edges[1, i], bottom, one, over_anchor
            )
            numbers[count + i] = lattice[2] + (x0 + i) * lattice[3] + y * lattice[4]
        count += x3 - x0
    return count


@njit(cache=True, error_model="numpy", forceinline=True)
def hbox_places(box, shapes, pitch, lattice, slack, tolerance, s, least, one, over_anchor):  # type: ignore[no-untyped-def]
    """Return the window of places (x0, x3, y0, y3) outside of which no anchor of one shape reaches `least`."""
    wide, high = np.float64(shapes[s, 2]) - shapes[s, 0] + one, np.float64(shapes[s, 3]) - shapes[s, 1] + one
    box_wide, box_high = max(np.float64(box[2]) - box[0] + one, 0.0), max(np.float64(box[3]) - box[1] + one, 0.0)
    overlap = needed(np.float64(least), box_wide * box_high, wide * high, over_anchor) * (1.0 - tolerance[s])
    most_x, most_y = min(box_wide, wide) + 2.0 * slack[s], min(box_high, high) + 2.0 * slack[s]
    if overlap > most_x * most_y:
        return 0, 0, 0, 0
    reach_x = ((box_wide + wide) / 2.0 + 2.0 * slack[s] - overlap / most_y) / pitch[s, 0]
    reach_y = ((box_high + high) / 2.0 + 2.0 * slack[s] - overlap / most_x) / pitch[s, 0]
    x = ((np.float64(box[0]) + box[2] - shapes[s, 0] - shapes[s, 2]) / 2.0 - pitch[s, 1]) / pitch[s, 0]
    y = ((np.float64(box[1]) + box[3] - shapes[s, 1] - shapes[s, 3]) / 2.0 - pitch[s, 1]) / pitch[s, 0]
    x0, x3 = places(x - reach_x, x + reach_x, lattice[s, 0])
    y0, y3 = places(y - reach_y, y + reach_y, lattice[s, 1])
    return x0, x3, y0, y3


@njit(cache=True, error_model="numpy")
def hbox_grid(boxes, shapes, pitch, lattice, slack, tolerance, one, ask, num_anchors):  # type: ignore[no-untyped-def]
    """Return the maxima of (G, 4) hboxes and the anchors of a grid of S shapes.

    `boxes`, `one`, `least` and `best` share a type, in which all is compared: float32, or float64 for the "+1"
    convention. shapes: (S, 4) float32 hboxes around (0, 0); pitch: (S, 2) float32 stride and centre of the first place;
    lattice: (S, 5) int64 places along x and y (none is 0), number of the first anchor, its steps along x and y; slack:
    (S,) pixels by which rounding moves a corner; tolerance: (S,) share by which it changes an overlap.
    """
    least, over_anchor, climb = ask
    widest, most = 1, 1
    for s in range(len(shapes)):
        widest, most = max(widest, lattice[s, 0]), max(most, lattice[s, 0] * lattice[s, 1])
    edges = np.empty((4, widest), boxes.dtype)
    numbers, ious = np.empty(most, np.int64), np.empty(most, boxes.dtype)
    lists, state = empty_lists(boxes.dtype), np.zeros(3, np.int64)
    for g in range(len(boxes)):
        box, state[2] = boxes[g], state[1]
        area = (box[2] - box[0] + one) * (box[3] - box[1] + one)
        top, rows = least, True
        while top > 0:  # once for what reaches `least`; if nothing does, once more with the best so far
            for s in range(len(shapes)):
                window = hbox_places(box, shapes, pitch, lattice, slack, tolerance, s, top, one, over_anchor)
                if window[0] >= window[1] or window[2] >= window[3]:
                    continue
                count = hbox_window(
                    box, area, shapes[s], pitch[s], lattice[s], window, one, over_anchor, edges, numbers, ious
                )
                if lack_room(lists, state, count):
                    lists = with_room(lists, state, count)
                record(g, numbers, ious, count, top, rows, climb, lists, state)
                if not rows:
                    top = lists[3][state[2]] if state[1] > state[2] else top
            if not climb or not rows or state[1] > state[2]:
                break
            rows, top = False, hbox_nearest(box, area, shapes, pitch, lattice, one, edges, numbers, ious)
    return answer(lists, state, num_anchors)


@njit(cache=True, error_model="numpy")
def hbox_nearest(box, area, shapes, pitch, lattice, one, edges, numbers, ious):  # type: ignore[no-untyped-def]
    """Return the best IoU of an hbox with the anchors nearest to its centre: of all anchors, but for rounding."""
    top = box.dtype.type(0)
    box_wide, box_high = box[2] - box[0] + one, box[3] - box[1] + one
    for s in range(len(shapes)):
        wide, high = shapes[s, 2] - shapes[s, 0] + one, shapes[s, 3] - shapes[s, 1] + one
        most = min(box_wide, wide) * min(box_high, high)
        if most < top * (box_wide * box_high + wide * high - most):  # less than the best even on one centre
            continue
        x = (np.float64(box[0]) + box[2] - shapes[s, 0] - shapes[s, 2]) / 2.0 - pitch[s, 1]
        y = (np.float64(box[1]) + box[3] - shapes[s, 1] - shapes[s, 3]) / 2.0 - pitch[s, 1]
        column = int(min(max(np.rint(x / pitch[s, 0]), 0.0), lattice[s, 0] - 1.0))
        row = int(min(max(np.rint(y / pitch[s, 0]), 0.0), lattice[s, 1] - 1.0))
        window = (column, column + 1, row, row + 1)
        hbox_window(box, area, shapes[s], pitch[s], lattice[s], window, one, False, edges, numbers, ious)
        top = max(top, ious[0])
    return top


@njit(cache=True, error_model="numpy")
def hbox_list(boxes, anchors, one, ask):  # type: ignore[no-untyped-def]
    """Return the maxima of (G, 4) hboxes and (N, 4) anchors, of one type."""
    least, over_anchor, climb = ask
    numbers, ious = np.empty(len(anchors), np.int64), np.empty(len(anchors), boxes.dtype)
    lists, state = empty_lists(boxes.dtype), np.zeros(3, np.int64)
    for g in range(len(boxes)):
        x1, y1, x2, y2 = boxes[g]
        area, state[2], count = (x2 - x1 + one) * (y2 - y1 + one), state[1], 0
        for n in range(len(anchors)):
            left, top, right, bottom = anchors[n]
            if min(x2, right) - max(x1, left) + one > 0 and min(y2, bottom) - max(y1, top) + one > 0:
                iou = hbox_quotient(x1, y1, x2, y2, area, left, top, right, bottom, one, over_anchor)
                numbers[count], ious[count] = n, iou
                count += 1
        lists = with_room(lists, state, count)
        record(g, numbers, ious, count, least, True, climb, lists, state)
        if climb and state[1] == state[2]:
            record(g, numbers, ious, count, one - one, False, climb, lists, state)
    return answer(lists, state, len(anchors))


@njit(cache=True, error_model="numpy")
def hbox_owners(boxes, anchors, one, best, owner):  # type: ignore[no-untyped-def]
    """Find for (N, 4) anchors the truth box (G, 4) that each overlaps most, and how much, the earliest of equals.

    best: (N,) an overlap that each reaches; owner: (N,) of -1.
    """
    near = np.empty(len(boxes), np.int64)
    for start in range(0, len(anchors), RUN):
        stop = min(start + RUN, len(anchors))
        left, top = anchors[start:stop, 0].min(), anchors[start:stop, 1].min()
        right, bottom = anchors[start:stop, 2].max() + one, anchors[start:stop, 3].max() + one
        count = 0
        for g in range(len(boxes)):
            near[count] = g
            count += (
                (boxes[g, 0] < right) & (boxes[g, 2] + one > left) & (boxes[g, 1] < bottom) & (boxes[g, 3] + one > top)
            )
        for n in range(start, stop):
            for i in range(count):
                x1, y1, x2, y2 = boxes[near[i], 0], boxes[near[i], 1], boxes[near[i], 2], boxes[near[i], 3]
                if min(x2, anchors[n, 2]) - max(x1, anchors[n, 0]) + one <= 0:
                    continue
                area = (x2 - x1 + one) * (y2 - y1 + one)
                iou = hbox_quotient(
                    x1, y1, x2, y2, area, anchors[n, 0], anchors[n, 1], anchors[n, 2], anchors[n, 3], one, False
                )
                if iou > best[n] or (iou == best[n] and owner[n] < 0):
                    best[n], owner[n] = iou, near[i]


# --- rboxes: rows of a table are x, y, half w, half h, cos, sin, area, half width and half height of the hull ---


@njit(cache=True, error_model="numpy")
def rbox_reaches(truth, shapes, s, overlap, slack):  # type: ignore[no-untyped-def]
    """Return how far an anchor's centre may be from a truth box's for an intersection of `overlap`.

    The answer is (along x, along y, along the truth box's w side, its h side, the anchor's w side, its h side), in
    pixels, `slack` included; negative along x if no place is near enough.
    """
    nowhere = (-1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
    a, b, cos_a, sin_a = truth[2], truth[3], truth[4], truth[5]
    p, q, cos_b, sin_b = shapes[s, 2], shapes[s, 3], shapes[s, 4], shapes[s, 5]
    smaller = min(truth[6], shapes[s, 6])
    if overlap > smaller or smaller <= 0.0:
        return nowhere
    cos, sin = abs(cos_a * cos_b + sin_a * sin_b), abs(cos_a * sin_b - sin_a * cos_b)
    u, v = p * cos + q * sin, p * sin + q * cos  # half extents of the anchor along the truth box's axes
    e, f = a * cos + b * sin, a * sin + b * cos  # and the other way around
    wide_u, wide_v, wide_s, wide_t = 2.0 * min(a, u), 2.0 * min(b, v), 2.0 * min(p, e), 2.0 * min(q, f)
    if overlap > wide_u * wide_v or overlap > wide_s * wide_t:
        return nowhere
    if overlap > intersection_area(0.0, 0.0, cos_a, sin_a, a, b, cos_b, sin_b, p, q):
        return nowhere
    reach_u, reach_v = a + u - overlap / wide_v + slack, b + v - overlap / wide_u + slack
    reach_s, reach_t = p + e - overlap / wide_t + slack, q + f - overlap / wide_s + slack
    reach_x = truth[7] + shapes[s, 7] - overlap / (2.0 * min(truth[8], shapes[s, 8])) + slack
    reach_y = truth[8] + shapes[s, 8] - overlap / (2.0 * min(truth[7], shapes[s, 7])) + slack
    reach_x = min(reach_x, reach_u * abs(cos_a) + reach_v * abs(sin_a), reach_s * abs(cos_b) + reach_t * abs(sin_b))
    reach_y = min(reach_y, reach_u * abs(sin_a) + reach_v * abs(cos_a), reach_s * abs(sin_b) + reach_t * abs(cos_b))
    return reach_x, reach_y, reach_u, reach_v, reach_s, reach_t


@njit(cache=True, error_model="numpy", forceinline=True)
def slope(along, across, reach):  # type: ignore[no-untyped-def]
    """Return (drift, half) such that |x * along + y * across| <= reach means |x - y * drift| <= half."""
    if abs(along) < 1e-6:  # nearly parallel to a row of places: no bound within it
        return 0.0, np.inf
    return -across / along, reach / abs(along)


@njit(cache=True, error_model="numpy")
def quotients(x, y, count, truth, shape, over_anchor, ious):  # type: ignore[no-untyped-def]
    """Fill `ious` with the quotients of a truth box and one shape shifted by (x, y), `count` of them and some more.

    Whole vectors only: a few odd ones at the end would cost as much as all others.
    """
    cos_a, sin_a, a, b, area = truth[4], truth[5], truth[2], truth[3], truth[6]
    cos_b, sin_b, p, q, anchor_area = shape[4], shape[5], shape[2], shape[3], shape[6]
    both, share = (anchor_area, 0.0) if over_anchor else (area + anchor_area, 1.0)
    for i in range((count + VECTOR - 1) // VECTOR * VECTOR):
        overlap = intersection_area(x[i], y[i], cos_a, sin_a, a, b, cos_b, sin_b, p, q)
        ious[i] = overlap / (both - share * overlap)


@njit(cache=True, error_model="numpy")
def rbox_window(g, truth, shape, corner, pitch, lattice, reach, ask, rows, scratch, lists, state):  # type: ignore[no-untyped-def]
    """Compare a truth box with the anchors of one shape within `reach`; the lists must have room."""
    least, over_anchor, climb = ask
    x, y, numbers, ious = scratch
    slope_u, slope_v = slope(truth[4], truth[5], reach[2]), slope(-truth[5], truth[4], reach[3])
    slope_s, slope_t = slope(shape[4], shape[5], reach[4]), slope(-shape[5], shape[4], reach[5])
    stride = pitch[0]
    middle_x, middle_y = truth[0] - pitch[1] - corner[0], truth[1] - pitch[1] - corner[1]
    row, end = places((middle_y - reach[1]) / stride, (middle_y + reach[1]) / stride, lattice[1])
    count, column, stop, across = 0, 0, 0, 0.0
    while row < end or column < stop:
        if column >= stop:  # the next row, as far as all bounds let it reach
            across = np.float32(row) * stride + pitch[1] + corner[1] - truth[1]
            low = max(-reach[0], across * slope_u[0] - slope_u[1], across * slope_v[0] - slope_v[1])
            low = max(low, across * slope_s[0] - slope_s[1], across * slope_t[0] - slope_t[1])
            high = min(reach[0], across * slope_u[0] + slope_u[1], across * slope_v[0] + slope_v[1])
            high = min(high, across * slope_s[0] + slope_s[1], across * slope_t[0] + slope_t[1])
            column, stop = places((middle_x + low) / stride, (middle_x + high) / stride, lattice[0])
            row += 1
        take = max(min(stop - column, BLOCK - count), 0)
        for i in range(take):
            # float32, rounded step by step, as the anchors of a grid are; then float64
            x[count + i] = np.float32(column + i) * stride + pitch[1] + corner[0] - truth[0]
            y[count + i] = across
            numbers[count + i] = lattice[2] + (column + i) * lattice[3] + (row - 1) * lattice[4]
        column, count = column + take, count + take
        if count == BLOCK or (row >= end and column >= stop):
            quotients(x, y, count, truth, shape, over_anchor, ious)
            record(g, numbers, ious, count, least, rows, climb, lists, state)
            count = 0


@njit(cache=True, error_model="numpy")
def rbox_grid(truths, shapes, corner, pitch, lattice, slack, ask, num_anchors):  # type: ignore[no-untyped-def]
    """Return the maxima of G rboxes and the anchors of a grid of S shapes; IoU in float64, rounded to float32.

    truths: (G, 9) and shapes: (S, 9) tables, of the shapes around (0, 0); corner: (S, 2) float32 centre of the shapes;
    pitch, lattice and slack as in `hbox_grid`.
    """
    least, over_anchor, climb = ask
    scratch = (np.zeros(BLOCK), np.zeros(BLOCK), np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32))
    lists, state = empty_lists(np.float32), np.zeros(3, np.int64)
    for g in range(len(truths)):
        truth, state[2] = truths[g], state[1]
        top, rows = least, True
        while True:  # once for what reaches `least`; if nothing does, once more with the best so far
            for s in range(len(shapes)):
                overlap = needed(np.float64(top), truth[6], shapes[s, 6], over_anchor) * ROUNDING
                reach = rbox_reaches(truth, shapes, s, overlap, slack[s])
                if reach[0] < 0.0:
                    continue
                wide, high = 2.0 * reach[0] / pitch[s, 0] + 2.0, 2.0 * reach[1] / pitch[s, 0] + 2.0
                most = int(min(wide, np.float64(lattice[s, 0])) * min(high, np.float64(lattice[s, 1]))) + 1
                if lack_room(lists, state, most):
                    lists = with_room(lists, state, most)
                rbox_window(
                    g, truth, shapes[s], corner[s], pitch[s], lattice[s], reach, (top, over_anchor, climb), rows,
                    scratch, lists, state,
                )  # fmt: skip
                if not rows:
                    top = lists[3][state[2]] if state[1] > state[2] else top
            if not climb or not rows or state[1] > state[2]:
                break
            rows, top = False, max(rbox_nearest(truth, shapes, corner, pitch, lattice), NOISE)
    return answer(lists, state, num_anchors)


@njit(cache=True, error_model="numpy")
def rbox_nearest(truth, shapes, corner, pitch, lattice):  # type: ignore[no-untyped-def]
    """Return the best IoU of an rbox with anchors that stand nearest to its centre: nearly that of all."""
    top = np.float32(0)
    for s in range(len(shapes)):
        overlap = needed(np.float64(top), truth[6], shapes[s, 6], False)
        if rbox_reaches(truth, shapes, s, overlap, 0.0)[0] < 0.0:
            continue
        stride, start_x, start_y = pitch[s, 0], pitch[s, 1], pitch[s, 1]
        column = min(max(np.rint((truth[0] - start_x - corner[s, 0]) / stride), 0.0), lattice[s, 0] - 1.0)
        row = min(max(np.rint((truth[1] - start_y - corner[s, 1]) / stride), 0.0), lattice[s, 1] - 1.0)
        x = np.float32(column) * stride + start_x + corner[s, 0] - truth[0]
        y = np.float32(row) * stride + start_y + corner[s, 1] - truth[1]
        top = max(top, np.float32(rbox_iou(x, y, truth, shapes[s])))
    return top


@njit(cache=True, error_model="numpy", forceinline=True)
def rbox_iou(x, y, truth, anchor):  # type: ignore[no-untyped-def]
    """Return the IoU of a truth box and an anchor whose centre is (x, y) away; both have an area."""
    area = intersection_area(x, y, truth[4], truth[5], truth[2], truth[3], anchor[4], anchor[5], anchor[2], anchor[3])
    return area / (truth[6] + anchor[6] - area)


@njit(cache=True, error_model="numpy")
def rbox_list(truths, anchors, ask):  # type: ignore[no-untyped-def]
    """Return the maxima of G rboxes and N anchors, given as (G, 9) and (9, N) tables."""
    least, over_anchor, climb = ask
    size = anchors.shape[1]
    runs = run_hulls(anchors)
    near, ious = np.empty(size, np.int64), np.empty(size + VECTOR, np.float32)
    lists, state = empty_lists(np.float32), np.zeros(3, np.int64)
    for g in range(len(truths)):
        truth, state[2] = truths[g], state[1]
        top, rows = least, True
        while True:  # once for what reaches `least`; if nothing does, once more for all that overlap
            count = near_anchors(truth, anchors, runs, np.float64(top), over_anchor, near)
            list_quotients(truth, anchors, near, count, over_anchor, ious)
            lists = with_room(lists, state, count)
            record(g, near, ious, count, top, rows, climb, lists, state)
            if not climb or not rows or state[1] > state[2]:
                break
            rows, top = False, NOISE
    return answer(lists, state, anchors.shape[1])


@njit(cache=True, error_model="numpy")
def run_hulls(anchors):  # type: ignore[no-untyped-def]
    """Return (R, 4) left, top, right, bottom of every run of `RUN` neighbouring anchors of a (9, N) table."""
    size = anchors.shape[1]
    hulls = np.empty(((size + RUN - 1) // RUN, 4))
    for r in range(len(hulls)):
        hulls[r, 0], hulls[r, 1], hulls[r, 2], hulls[r, 3] = np.inf, np.inf, -np.inf, -np.inf
        for n in range(r * RUN, min(r * RUN + RUN, size)):
            hulls[r, 0] = min(hulls[r, 0], anchors[0, n] - anchors[7, n])
            hulls[r, 1] = min(hulls[r, 1], anchors[1, n] - anchors[8, n])
            hulls[r, 2] = max(hulls[r, 2], anchors[0, n] + anchors[7, n])
            hulls[r, 3] = max(hulls[r, 3], anchors[1, n] + anchors[8, n])
    return hulls


@njit(cache=True, error_model="numpy")
def near_anchors(truth, anchors, runs, least, over_anchor, near):  # type: ignore[no-untyped-def]
    """Put the numbers of the anchors whose hull and area allow a quotient of `least` into `near`; return how many."""
    left, right = truth[0] - truth[7], truth[0] + truth[7]
    top, bottom = truth[1] - truth[8], truth[1] + truth[8]
    count = 0
    for r in range(len(runs)):
        if runs[r, 0] >= right or runs[r, 2] <= left or runs[r, 1] >= bottom or runs[r, 3] <= top:
            continue
        for n in range(r * RUN, min(r * RUN + RUN, anchors.shape[1])):
            wide = min(right, anchors[0, n] + anchors[7, n]) - max(left, anchors[0, n] - anchors[7, n])
            high = min(bottom, anchors[1, n] + anchors[8, n]) - max(top, anchors[1, n] - anchors[8, n])
            overlap = needed(least, truth[6], anchors[6, n], over_anchor) * ROUNDING
            most = min(max(wide, 0.0) * max(high, 0.0), truth[6], anchors[6, n])
            near[count] = n
            count += (most > 0.0) & (most >= overlap)
    return count


@njit(cache=True, error_model="numpy")
def list_quotients(truth, anchors, near, count, over_anchor, ious):  # type: ignore[no-untyped-def]
    """Fill `ious[:count]` with the quotients of an rbox and the anchors `near[:count]`."""
    cos_a, sin_a, a, b, area = truth[4], truth[5], truth[2], truth[3], truth[6]
    pairs = np.zeros((7, BLOCK))
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        for i in range(size):
            for row in range(7):
                pairs[row, i] = anchors[row, near[start + i]]
        for i in range((size + VECTOR - 1) // VECTOR * VECTOR):
            x, y, p, q, cos_b, sin_b = pairs[0, i], pairs[1, i], pairs[2, i], pairs[3, i], pairs[4, i], pairs[5, i]
            overlap = intersection_area(x - truth[0], y - truth[1], cos_a, sin_a, a, b, cos_b, sin_b, p, q)
            ious[start + i] = overlap / (pairs[6, i] if over_anchor else area + pairs[6, i] - overlap)


@njit(cache=True, error_model="numpy")
def rbox_owners(truths, anchors, best, owner):  # type: ignore[no-untyped-def]
    """Find for anchors the truth box that each overlaps most, as `hbox_owners`; (G, 9) and (9, N) tables."""
    runs, near = run_hulls(anchors), np.empty(len(truths), np.int64)
    for r in range(len(runs)):
        count = 0
        for g in range(len(truths)):
            x, y, wide, high = truths[g, 0], truths[g, 1], truths[g, 7], truths[g, 8]
            near[count] = g
            count += (
                (x - wide < runs[r, 2]) & (x + wide > runs[r, 0]) & (y - high < runs[r, 3]) & (y + high > runs[r, 1])
            )
        for n in range(r * RUN, min(r * RUN + RUN, anchors.shape[1])):
            for i in range(count):
                truth, anchor = truths[near[i]], anchors[:, n]
                x, y = anchor[0] - truth[0], anchor[1] - truth[1]
                wide = min(truth[7] + anchor[7] - abs(x), 2.0 * truth[7], 2.0 * anchor[7])
                high = min(truth[8] + anchor[8] - abs(y), 2.0 * truth[8], 2.0 * anchor[8])
                most = min(max(wide, 0.0) * max(high, 0.0), truth[6], anchor[6])
                if most <= 0.0 or most < needed(np.float64(best[n]), truth[6], anchor[6], False) * ROUNDING:
                    continue
                iou = np.float32(rbox_iou(x, y, truth, anchor))
                if iou > best[n] or (iou == best[n] and owner[n] < 0):
                    best[n], owner[n] = iou, near[i]
