"""Row and column maxima of the IoU of truth boxes and anchors, compiled: what `assign` asks, without the matrix.

Four kernels, for anchors on a grid or in a list, upright or rotated. Each goes truth box by truth box and rules out
what cannot reach the IoU asked for: by areas, by the two boxes put on one centre (no shift overlaps more, as the root
of the area of an intersection of convex sets is concave in the shift), then by the shift along each axis. An
intersection is at most its extent along one direction times the smaller width across it, so an overlap that is
needed bounds the shift along the image's axes, the truth box's own and the anchor's: what is left are rows of places.
Bounds are computed in float64 and a little too wide; what lies in them is then compared exactly.

All kernels fill `best` and `owner` (the row maxima: of every anchor that reaches `least`, the IoU and the earliest
truth box of it) and return (reached, tie_truth, tie_anchor, tie_iou): the anchors that reach `least`, in no order, and
if `climb` the column maxima, every anchor that ties for the best IoU of a truth box, if above 0. `over_anchor` divides
by the anchor's area instead of the union's.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from focaldet.geometry.kernels.formula import intersection_area

BLOCK = 512
"""Pairs whose exact overlap is computed in one vector loop."""
RUN = 32
"""Neighbouring anchors of a list that share one hull."""


@njit(cache=True, error_model="numpy")
def record(g, numbers, ious, count, rows, climb, best, owner, reached, ties, tie_ious, state):  # type: ignore[no-untyped-def]
    """Take up the pairs of truth box g with the anchors `numbers[:count]`; return the lists of ties, grown if full.

    state: number of reached anchors, number of ties, number of ties before truth box g.
    """
    top = tie_ious[state[2]] if state[1] > state[2] else ious.dtype.type(0)
    for i in range(count):
        number, iou = numbers[i], ious[i]
        if rows and iou > best[number]:
            if best[number] == 0:
                reached[state[0]] = number
                state[0] += 1
            best[number] = iou
            owner[number] = g
        if climb and iou >= top:
            if iou > top:
                top, state[1] = iou, state[2]
            if state[1] == len(tie_ious):
                ties = np.concatenate((ties, np.empty_like(ties)))
                tie_ious = np.concatenate((tie_ious, np.empty_like(tie_ious)))
            ties[state[1], 0], ties[state[1], 1] = g, number
            tie_ious[state[1]] = iou
            state[1] += 1
    return ties, tie_ious


@njit(cache=True, error_model="numpy", forceinline=True)
def needed(least, area, anchor_area, over_anchor):  # type: ignore[no-untyped-def]
    """Return the intersection from which on the quotient is at least `least`; IoU = overlap / (both - overlap)."""
    return least * anchor_area if over_anchor else least / (1.0 + least) * (area + anchor_area)


@njit(cache=True, error_model="numpy", forceinline=True)
def places(middle, reach, count):  # type: ignore[no-untyped-def]
    """Return the first place of `middle` +- `reach` on an axis of `count` places, and the one behind the last."""
    low, high = np.ceil(middle - reach), np.floor(middle + reach) + 1.0
    return int(min(max(low, 0.0), float(count))), int(min(max(high, 0.0), float(count)))


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
def hbox_window(box, area, shape, pitch, lattice, window, least, one, over_anchor, edges, numbers, ious):  # type: ignore[no-untyped-def]
    """Compare an hbox with the anchors of one shape in a window of places; return how many reach `least` and are not 0.

    Their numbers and IoU are put into `numbers` and `ious`; `edges` is scratch.
    """
    x0, x3, y0, y3 = window
    first, step_x, step_y = lattice[2], lattice[3], lattice[4]
    x1, y1, x2, y2 = box[0], box[1], box[2], box[3]
    for x in range(x0, x3):
        centre = np.float32(x) * pitch[0] + pitch[1]  # rounded to float32 number by number, as the grid is
        edges[0, x], edges[1, x] = centre + shape[0], centre + shape[2]
    count = 0
    for y in range(y0, y3):
        centre = np.float32(y) * pitch[0] + pitch[1]
        edges[2, 0], edges[3, 0] = centre + shape[1], centre + shape[3]
        top, bottom = edges[2, 0], edges[3, 0]
        for x in range(x0, x3):
            iou = hbox_quotient(x1, y1, x2, y2, area, edges[0, x], top, edges[1, x], bottom, one, over_anchor)
            if iou >= least and iou > 0:
                numbers[count], ious[count] = first + x * step_x + y * step_y, iou
                count += 1
    return count


@njit(cache=True, error_model="numpy", forceinline=True)
def hbox_places(box, shape, pitch, lattice, slack, tolerance, least, one, over_anchor):  # type: ignore[no-untyped-def]
    """Return the window of places (x0, x3, y0, y3) outside of which no anchor of one shape reaches `least`."""
    wide, high = np.float64(shape[2]) - shape[0] + one, np.float64(shape[3]) - shape[1] + one
    box_wide, box_high = max(np.float64(box[2]) - box[0] + one, 0.0), max(np.float64(box[3]) - box[1] + one, 0.0)
    overlap = needed(np.float64(least), box_wide * box_high, wide * high, over_anchor) * (1.0 - tolerance)
    most_x, most_y = min(box_wide, wide) + 2.0 * slack, min(box_high, high) + 2.0 * slack
    if overlap > most_x * most_y or lattice[0] == 0 or lattice[1] == 0:
        return 0, 0, 0, 0
    reach_x = (box_wide + wide) / 2.0 + 2.0 * slack - overlap / most_y
    reach_y = (box_high + high) / 2.0 + 2.0 * slack - overlap / most_x
    middle_x = (np.float64(box[0]) + box[2]) / 2.0 - (np.float64(shape[0]) + shape[2]) / 2.0 - pitch[1]
    middle_y = (np.float64(box[1]) + box[3]) / 2.0 - (np.float64(shape[1]) + shape[3]) / 2.0 - pitch[1]
    x0, x3 = places(middle_x / pitch[0], reach_x / pitch[0], lattice[0])
    y0, y3 = places(middle_y / pitch[0], reach_y / pitch[0], lattice[1])
    return x0, x3, y0, y3


@njit(cache=True, error_model="numpy")
def hbox_grid(boxes, shapes, pitch, lattice, slack, tolerance, least, one, over_anchor, climb, best, owner, reached):  # type: ignore[no-untyped-def]
    """Return the maxima of (G, 4) hboxes and the anchors of a grid of S shapes.

    boxes, least, one and best share a type, in which all is compared: float32, or float64 for the "+1" convention.
    shapes: (S, 4) float32 hboxes; pitch: (S, 2) float32 stride and first centre; lattice: (S, 5) int64 places along x
    and y, number of the first anchor, its steps along x and y; slack: (S,) pixels by which rounding moves a corner;
    tolerance: (S,) share by which it changes an overlap.
    """
    widest, most = 1, 1
    for s in range(len(shapes)):
        widest, most = max(widest, lattice[s, 0]), max(most, lattice[s, 0] * lattice[s, 1])
    edges = np.empty((4, widest), boxes.dtype)
    numbers, ious = np.empty(most, np.int64), np.empty(most, boxes.dtype)
    ties, tie_ious, state = np.empty((64, 2), np.int64), np.empty(64, boxes.dtype), np.zeros(3, np.int64)
    for g in range(len(boxes)):
        box, state[2] = boxes[g], state[1]
        area = (box[2] - box[0] + one) * (box[3] - box[1] + one)
        for s in range(len(shapes)):
            window = hbox_places(box, shapes[s], pitch[s], lattice[s], slack[s], tolerance[s], least, one, over_anchor)
            if window[0] >= window[1] or window[2] >= window[3]:
                continue
            count = hbox_window(
                box, area, shapes[s], pitch[s], lattice[s], window, least, one, over_anchor, edges, numbers, ious
            )
            ties, tie_ious = record(g, numbers, ious, count, True, climb, best, owner, reached, ties, tie_ious, state)
        if not climb or state[1] > state[2]:
            continue
        top = hbox_nearest(box, area, shapes, pitch, lattice, one, edges, numbers, ious)
        for s in range(len(shapes)):
            window = hbox_places(box, shapes[s], pitch[s], lattice[s], slack[s], tolerance[s], top, one, over_anchor)
            if top == 0 or window[0] >= window[1] or window[2] >= window[3]:
                continue
            count = hbox_window(
                box, area, shapes[s], pitch[s], lattice[s], window, top, one, over_anchor, edges, numbers, ious
            )
            ties, tie_ious = record(g, numbers, ious, count, False, climb, best, owner, reached, ties, tie_ious, state)
            top = tie_ious[state[2]] if state[1] > state[2] else top
    return reached[: state[0]], ties[: state[1], 0], ties[: state[1], 1], tie_ious[: state[1]]


@njit(cache=True, error_model="numpy")
def hbox_nearest(box, area, shapes, pitch, lattice, one, edges, numbers, ious):  # type: ignore[no-untyped-def]
    """Return the best IoU of an hbox with the anchors nearest to its centre: of all anchors, but for rounding."""
    top = box.dtype.type(0)
    for s in range(len(shapes)):
        if lattice[s, 0] == 0 or lattice[s, 1] == 0:
            continue
        x = (np.float64(box[0]) + box[2] - shapes[s, 0] - shapes[s, 2]) / 2.0 - pitch[s, 1]
        y = (np.float64(box[1]) + box[3] - shapes[s, 1] - shapes[s, 3]) / 2.0 - pitch[s, 1]
        column = int(min(max(np.rint(x / pitch[s, 0]), 0.0), lattice[s, 0] - 1.0))
        row = int(min(max(np.rint(y / pitch[s, 0]), 0.0), lattice[s, 1] - 1.0))
        window = (column, column + 1, row, row + 1)
        if hbox_window(box, area, shapes[s], pitch[s], lattice[s], window, top, one, False, edges, numbers, ious):
            top = ious[0]
    return top


@njit(cache=True, error_model="numpy")
def hbox_list(boxes, anchors, least, one, over_anchor, climb, best, owner, reached):  # type: ignore[no-untyped-def]
    """Return the maxima of (G, 4) hboxes and (N, 4) anchors of one type. `least` 0 asks for all that overlap."""
    numbers, ious = np.empty(len(anchors), np.int64), np.empty(len(anchors), boxes.dtype)
    ties, tie_ious, state = np.empty((64, 2), np.int64), np.empty(64, boxes.dtype), np.zeros(3, np.int64)
    for g in range(len(boxes)):
        x1, y1, x2, y2 = boxes[g]
        area, state[2] = (x2 - x1 + one) * (y2 - y1 + one), state[1]
        low, count = 0, 0
        for n in range(len(anchors)):
            if min(x2, anchors[n, 2]) - max(x1, anchors[n, 0]) + one <= 0:
                continue
            iou = hbox_quotient(
                x1, y1, x2, y2, area, anchors[n, 0], anchors[n, 1], anchors[n, 2], anchors[n, 3], one, over_anchor
            )
            if iou > 0:
                numbers[count], ious[count] = n, iou
                count += 1
        for i in range(count):  # what reaches `least` to the front
            if ious[i] >= least:
                numbers[low], numbers[i] = numbers[i], numbers[low]
                ious[low], ious[i] = ious[i], ious[low]
                low += 1
        ties, tie_ious = record(g, numbers, ious, low, True, climb, best, owner, reached, ties, tie_ious, state)
        if climb and low == 0:
            ties, tie_ious = record(g, numbers, ious, count, False, climb, best, owner, reached, ties, tie_ious, state)
    return reached[: state[0]], ties[: state[1], 0], ties[: state[1], 1], tie_ious[: state[1]]


@njit(cache=True, error_model="numpy")
def areas(x, y, count, cos_a, sin_a, a, b, cos_b, sin_b, p, q, out):  # type: ignore[no-untyped-def]
    """Fill `out[:count]` with the intersections of one box A and one box B shifted by (x, y), as vectors."""
    for i in range(count):
        out[i] = intersection_area(x[i], y[i], cos_a, sin_a, a, b, cos_b, sin_b, p, q)


@njit(cache=True, error_model="numpy", forceinline=True)
def narrowed(low, high, across, cos, sin, reach):  # type: ignore[no-untyped-def]
    """Return the part of [low, high] where |along * cos + across * sin| <= reach."""
    if abs(cos) < 1e-6:  # nearly a row of its own: no bound along it
        return low, high
    middle, half = -across * sin / cos, reach / abs(cos)
    return max(low, middle - half), min(high, middle + half)


@njit(cache=True, error_model="numpy")
def rbox_reaches(truth, shape, overlap, slack):  # type: ignore[no-untyped-def]
    """Return how far an anchor's centre may be from a truth box's for an intersection of `overlap`; None if nowhere.

    truth, shape: 9 numbers as in a table of boxes. The answer is (along x, along y, along the truth box's w side, its
    h side, the anchor's w side, its h side), in pixels, `slack` included.
    """
    nowhere = (-1.0, -1.0, 0.0, 0.0, 0.0, 0.0)
    a, b, cos_a, sin_a = truth[2], truth[3], truth[4], truth[5]
    p, q, cos_b, sin_b = shape[2], shape[3], shape[4], shape[5]
    if overlap > min(truth[6], shape[6]) or min(truth[6], shape[6]) <= 0.0:
        return nowhere
    cos, sin = cos_a * cos_b + sin_a * sin_b, cos_a * sin_b - sin_a * cos_b
    abs_cos, abs_sin = abs(cos), abs(sin)
    u, v = p * abs_cos + q * abs_sin, p * abs_sin + q * abs_cos  # half extents of the anchor along the truth box's axes
    s, t = a * abs_cos + b * abs_sin, a * abs_sin + b * abs_cos  # and the other way around
    wide_u, wide_v, wide_s, wide_t = 2.0 * min(a, u), 2.0 * min(b, v), 2.0 * min(p, s), 2.0 * min(q, t)
    if overlap > wide_u * wide_v or overlap > wide_s * wide_t:
        return nowhere
    if overlap > 0.0 and overlap > intersection_area(0.0, 0.0, cos_a, sin_a, a, b, cos_b, sin_b, p, q):
        return nowhere
    reach_u, reach_v = a + u - overlap / wide_v + slack, b + v - overlap / wide_u + slack
    reach_s, reach_t = p + s - overlap / wide_t + slack, q + t - overlap / wide_s + slack
    reach_x = truth[7] + shape[7] - overlap / (2.0 * min(truth[8], shape[8])) + slack
    reach_y = truth[8] + shape[8] - overlap / (2.0 * min(truth[7], shape[7])) + slack
    reach_x = min(reach_x, reach_u * abs(cos_a) + reach_v * abs(sin_a), reach_s * abs(cos_b) + reach_t * abs(sin_b))
    reach_y = min(reach_y, reach_u * abs(sin_a) + reach_v * abs(cos_a), reach_s * abs(sin_b) + reach_t * abs(cos_b))
    return reach_x, reach_y, reach_u, reach_v, reach_s, reach_t


@njit(cache=True, error_model="numpy")
def rbox_grid(truths, shapes, corner, pitch, lattice, slack, least, over_anchor, climb, best, owner, reached):  # type: ignore[no-untyped-def]
    """Return the maxima of G rboxes and the anchors of a grid of S shapes; IoU in float64, rounded to float32.

    truths: (G, 9) and shapes: (S, 9) float64 tables of boxes, of the shapes around (0, 0); corner: (S, 2) float32
    centre of the shapes; pitch, lattice and slack as in `hbox_grid`.
    """
    x, y, out = np.empty(BLOCK), np.empty(BLOCK), np.empty(BLOCK)
    numbers, ious, hits = np.empty(BLOCK, np.int64), np.empty(BLOCK, np.float32), np.empty(BLOCK, np.int64)
    ties, tie_ious, state = np.empty((64, 2), np.int64), np.empty(64, np.float32), np.zeros(3, np.int64)
    for g in range(len(truths)):
        truth, state[2] = truths[g], state[1]
        top, rows = least, True
        while True:  # once for what reaches `least`; if nothing does, once more with the best so far
            for s in range(len(shapes)):
                shape, counts = shapes[s], lattice[s]
                overlap = needed(np.float64(top), truth[6], shape[6], over_anchor) * (1.0 - 1e-6)
                reach = rbox_reaches(truth, shape, overlap, slack[s])
                if reach[0] < 0.0 or counts[0] == 0:
                    continue
                stride, start_x, start_y = pitch[s, 0], pitch[s, 1] + corner[s, 0], pitch[s, 1] + corner[s, 1]
                row, end = places((truth[1] - start_y) / stride, reach[1] / stride, counts[1])
                count, column, stop = 0, 0, 0
                while row < end or column < stop or count > 0:
                    while count < BLOCK and (column < stop or row < end):  # fill a block
                        if column >= stop:
                            across = np.float32(row) * stride + pitch[s, 1] + corner[s, 1] - truth[1]
                            low, high = -reach[0], reach[0]
                            low, high = narrowed(low, high, across, truth[4], truth[5], reach[2])
                            low, high = narrowed(low, high, across, -truth[5], truth[4], reach[3])
                            low, high = narrowed(low, high, across, shape[4], shape[5], reach[4])
                            low, high = narrowed(low, high, across, -shape[5], shape[4], reach[5])
                            middle, half = (low + high) / 2.0 + truth[0] - start_x, (high - low) / 2.0
                            column, stop = places(middle / stride, half / stride, counts[0]) if half >= 0 else (0, 0)
                            row += 1
                        take = min(stop - column, BLOCK - count)
                        for i in range(take):
                            x[count + i] = np.float32(column + i) * stride + pitch[s, 1] + corner[s, 0] - truth[0]
                            y[count + i] = across
                            numbers[count + i] = counts[2] + (column + i) * counts[3] + (row - 1) * counts[4]
                        column, count = column + take, count + take
                    areas(
                        x, y, count, truth[4], truth[5], truth[2], truth[3], shape[4], shape[5], shape[2], shape[3], out
                    )
                    found = keep(out, numbers, count, truth[6], shape[6], top, over_anchor, hits, ious)
                    ties, tie_ious = record(
                        g, hits, ious, found, rows, climb, best, owner, reached, ties, tie_ious, state
                    )
                    if not rows and state[1] > state[2]:
                        top = tie_ious[state[2]]
                    count = 0
            if not climb or not rows or state[1] > state[2]:
                break
            rows, top = False, rbox_nearest(truth, shapes, corner, pitch, lattice)
    return reached[: state[0]], ties[: state[1], 0], ties[: state[1], 1], tie_ious[: state[1]]


@njit(cache=True, error_model="numpy")
def keep(out, numbers, count, area, anchor_area, least, over_anchor, hits, ious):  # type: ignore[no-untyped-def]
    """Put the numbers and quotients of the pairs that reach `least` and are not 0 into `hits` and `ious`."""
    found = 0
    for i in range(count):
        iou = np.float32(out[i] / (anchor_area if over_anchor else area + anchor_area - out[i]))
        hits[found], ious[found] = numbers[i], iou
        found += iou >= least and iou > 0
    return found


@njit(cache=True, error_model="numpy")
def rbox_nearest(truth, shapes, corner, pitch, lattice):  # type: ignore[no-untyped-def]
    """Return the best IoU of an rbox with anchors that stand nearest to its centre: nearly that of all."""
    top = np.float32(0)
    for s in range(len(shapes)):
        shape, counts, stride = shapes[s], lattice[s], pitch[s, 0]
        overlap = needed(np.float64(top), truth[6], shape[6], False)
        if counts[0] == 0 or counts[1] == 0 or rbox_reaches(truth, shape, overlap, 0.0)[0] < 0.0:
            continue
        start_x, start_y = pitch[s, 1] + corner[s, 0], pitch[s, 1] + corner[s, 1]
        column = min(max(np.rint((truth[0] - start_x) / stride), 0.0), counts[0] - 1.0)
        row = min(max(np.rint((truth[1] - start_y) / stride), 0.0), counts[1] - 1.0)
        x, y = np.float32(column) * stride + start_x - truth[0], np.float32(row) * stride + start_y - truth[1]
        area = intersection_area(x, y, truth[4], truth[5], truth[2], truth[3], shape[4], shape[5], shape[2], shape[3])
        top = max(top, np.float32(area / (truth[6] + shape[6] - area)))
    return top


@njit(cache=True, error_model="numpy")
def rbox_list(truths, anchors, least, over_anchor, climb, best, owner, reached):  # type: ignore[no-untyped-def]
    """Return the maxima of G rboxes and N anchors, as (G, 9) and (9, N) tables. `least` 0 asks for all that overlap."""
    size = anchors.shape[1]
    runs = run_hulls(anchors)
    near, hits, ious = np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.float32)
    ties, tie_ious, state = np.empty((64, 2), np.int64), np.empty(64, np.float32), np.zeros(3, np.int64)
    for g in range(len(truths)):
        truth, state[2] = truths[g], state[1]
        top, rows = least, True
        while True:  # once for what reaches `least`; if nothing does, once more for all that overlap
            count = near_anchors(truth, anchors, runs, np.float64(top), over_anchor, near)
            found = list_quotients(truth, anchors, near, count, top, over_anchor, hits, ious)
            ties, tie_ious = record(g, hits, ious, found, rows, climb, best, owner, reached, ties, tie_ious, state)
            if not climb or not rows or state[1] > state[2]:
                break
            rows, top = False, np.float32(0)
    return reached[: state[0]], ties[: state[1], 0], ties[: state[1], 1], tie_ious[: state[1]]


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
            overlap = needed(least, truth[6], anchors[6, n], over_anchor) * (1.0 - 1e-6)
            most = min(max(wide, 0.0) * max(high, 0.0), truth[6], anchors[6, n])
            near[count] = n
            count += most > 0.0 and most >= overlap
    return count


@njit(cache=True, error_model="numpy")
def list_quotients(truth, anchors, near, count, least, over_anchor, hits, ious):  # type: ignore[no-untyped-def]
    """Compare an rbox with the anchors `near[:count]`; put those that reach `least`, if not 0, in `hits`, `ious`."""
    pairs, out = np.empty((6, BLOCK)), np.empty(BLOCK)
    found = 0
    for start in range(0, count, BLOCK):
        size = min(BLOCK, count - start)
        for i in range(size):
            n = near[start + i]
            pairs[0, i], pairs[1, i] = anchors[0, n] - truth[0], anchors[1, n] - truth[1]
            pairs[2, i], pairs[3, i], pairs[4, i], pairs[5, i] = (
                anchors[2, n],
                anchors[3, n],
                anchors[4, n],
                anchors[5, n],
            )
        for i in range(size):
            out[i] = intersection_area(
                pairs[0, i],
                pairs[1, i],
                truth[4],
                truth[5],
                truth[2],
                truth[3],
                pairs[4, i],
                pairs[5, i],
                pairs[2, i],
                pairs[3, i],
            )
        for i in range(size):
            n = near[start + i]
            iou = np.float32(out[i] / (anchors[6, n] if over_anchor else truth[6] + anchors[6, n] - out[i]))
            hits[found], ious[found] = n, iou
            found += iou >= least and iou > 0
    return found
