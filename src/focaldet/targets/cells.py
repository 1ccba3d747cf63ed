"""The same search in numpy, for where there is no compiler: windows of places, and the pairs in them one by one.

Anchors of one shape stand on a lattice, and the overlap of their hulls with a box's is the product of a part along x
and a part along y, each falling from its peak at the box's centre. So the anchors that can reach a given overlap lie
in a window of places, and its borders follow from the box, the shape and that overlap alone. Windows are computed in
float64 and a little too wide; what lies in them is then compared exactly, pair by pair.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from focaldet.targets.lattices import Floats, Lattices
from focaldet.targets.overlap import Doubles, Integers, Maxima, Measure, Numbers

BLOCK = 1 << 16
"""Pairs of box and anchor looked at in one go: enough to pay for the calls, few enough for the cache."""


@dataclass(frozen=True)
class Pairs:
    """P pairs in the order of the truth boxes: the box, the anchor's number, their overlap."""

    truth: Integers
    anchor: Integers
    iou: Numbers


@np.errstate(over="ignore", invalid="ignore")  # a box of 1e20 pixels has an infinite area in float32, and IoU 0
def grid_maxima(
    boxes: Numbers, lattices: Lattices, measure: Measure, least: float, *, over_anchor: bool, climb: bool
) -> Maxima:
    """Return the maxima of boxes (G, D) and the anchors on lattices; column maxima only if `climb`."""
    found = _grid_pairs(boxes, np.full(len(boxes), least), lattices, measure, over_anchor)
    ties = _no_pairs(measure)
    if climb:
        lone = np.setdiff1d(np.arange(len(boxes)), found.truth)
        near = np.maximum(_nearest(boxes[lone], lattices, measure), measure.least)
        low = _grid_pairs(boxes[lone], near, lattices, measure, False)
        ties = _ties(_joined([found, Pairs(lone[low.truth], low.anchor, low.iou)]), len(boxes))
    return _maxima(found, ties, lattices.num_anchors)


@np.errstate(over="ignore", invalid="ignore")
def list_maxima(
    boxes: Numbers, anchors: Numbers, measure: Measure, least: float, *, over_anchor: bool, climb: bool
) -> Maxima:
    """Return the maxima of boxes (G, D) and anchors (N, D); column maxima only if `climb`."""
    parts = [_no_pairs(measure)]
    hulls, anchor_hulls = measure.hulls(boxes), measure.hulls(anchors)
    step = max(1, BLOCK // max(1, len(anchors)))
    for start in range(0, len(boxes), step):
        some = hulls[start : start + step, None]
        sides = np.minimum(some[..., 2:], anchor_hulls[:, 2:]) - np.maximum(some[..., :2], anchor_hulls[:, :2])
        truth, anchor = np.nonzero((sides > 0).all(axis=2))
        iou = measure.quotients(boxes[start + truth], anchors[anchor], over_anchor)
        parts.append(_picked(Pairs(start + truth, anchor, iou), iou >= measure.iou_type(measure.least)))
    every = _joined(parts)
    found = _picked(every, every.iou >= measure.iou_type(least))
    return _maxima(found, _ties(every, len(boxes)) if climb else _no_pairs(measure), len(anchors))


def _maxima(found: Pairs, ties: Pairs, num_anchors: int) -> Maxima:
    best, owners = np.zeros(num_anchors, found.iou.dtype), np.zeros(num_anchors, np.int64)
    np.maximum.at(best, found.anchor, found.iou)
    own = np.flatnonzero(found.iou == best[found.anchor])[::-1]  # the last written stays: the earliest truth box
    owners[found.anchor[own]] = found.truth[own]
    anchors = np.flatnonzero(best)
    return Maxima(anchors, owners[anchors], best[anchors], ties.truth, ties.anchor, ties.iou)


def _ties(found: Pairs, count: int) -> Pairs:
    """Return, in the order of the truth boxes, the pairs that tie for the best of their truth box."""
    best = np.zeros(count, found.iou.dtype)
    np.maximum.at(best, found.truth, found.iou)
    ties = np.flatnonzero((found.iou == best[found.truth]) & (found.iou > 0))
    return _picked(found, ties[np.argsort(found.truth[ties], kind="stable")])


def _grid_pairs(boxes: Numbers, least: Doubles, lattices: Lattices, measure: Measure, over_anchor: bool) -> Pairs:
    """Return all pairs whose overlap is at least `least` (G,) of their box and above 0."""
    area, anchor_area = measure.areas(boxes)[:, None], measure.areas(lattices.shapes)
    iou = least[:, None]  # IoU = overlap / (both - overlap), solved
    overlap = iou * anchor_area if over_anchor else iou / (1 + iou) * (area + anchor_area)
    overlap = np.broadcast_to(overlap, (len(boxes), len(lattices.shapes))) * (1 - lattices.tolerance(measure))
    smallest = least.astype(measure.iou_type)
    parts = [_no_pairs(measure)]
    for block in windows(measure.hulls(boxes), measure.hulls(lattices.shapes), overlap, lattices).blocks():
        truth, number, anchors = placed(block, lattices)
        exact = measure.quotients(boxes[truth], anchors.astype(measure.box_type), over_anchor)
        parts.append(_picked(Pairs(truth, number, exact), (exact >= smallest[truth]) & (exact > 0)))
    return _joined(parts)


def _nearest(boxes: Numbers, lattices: Lattices, measure: Measure) -> Numbers:
    """Return (N,) the best IoU of each box with the anchors that stand nearest to its centre: nearly that of all."""
    middle = np.rint(_middles(measure.hulls(boxes), measure.hulls(lattices.shapes), lattices))
    low = np.clip(middle, 0, lattices.counts - 1).astype(np.int64)
    box, shape = (index.ravel() for index in np.indices(low.shape[:2]))
    best = np.zeros(len(boxes), measure.iou_type)
    for block in Windows(box, shape, low.reshape(-1, 2), np.ones((len(box), 2), np.int64)).blocks():
        truth, _, anchors = placed(block, lattices)
        np.maximum.at(best, truth, measure.quotients(boxes[truth], anchors.astype(measure.box_type), False))
    return best


@dataclass(frozen=True)
class Windows:
    """W rectangles of places, in the order of their boxes.

    Attributes:
        box: (W,) which box.
        shape: (W,) which shape of the lattices.
        low: (W, 2) first place along x and y.
        count: (W, 2) places along x and y, at least 1.
    """

    box: Integers
    shape: Integers
    low: Integers
    count: Integers

    def __getitem__(self, part: slice) -> Windows:
        return Windows(self.box[part], self.shape[part], self.low[part], self.count[part])

    def blocks(self) -> Iterator[Windows]:
        """Split into runs of about `BLOCK` places; a window is never cut."""
        ends = np.cumsum(self.count.prod(axis=1))
        start = 0
        while start < len(ends):
            before = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, before + BLOCK, side="right")))
            yield self[start:stop]
            start = stop


def windows(hulls: Doubles, shapes: Doubles, overlap: Doubles, lattices: Lattices) -> Windows:
    """Return the windows that hold every anchor whose intersection with a box has at least a given area.

    Args:
        hulls: (N, 4) of the boxes.
        shapes: (S, 4) hulls of the anchors' shapes, around (0, 0).
        overlap: (N, S) square pixels that the intersection with an anchor of each shape must reach, above 0.
        lattices: of S shapes.
    """
    size = np.maximum(hulls[:, 2:] - hulls[:, :2], 0)[:, None]
    anchor_size = shapes[:, 2:] - shapes[:, :2]
    slack = 2 * lattices.slack[:, None]
    shorter = np.minimum(size, anchor_size) + slack  # the most that an intersection can measure along x and y
    # A part along x of at least overlap / shorter_y is needed, and it shrinks by a pixel with every pixel of distance.
    reach = (size + anchor_size) / 2 + slack - overlap[..., None] / shorter[..., ::-1]
    middle, reach = _middles(hulls, shapes, lattices), reach / lattices.pitch[:, :1]
    low = np.clip(np.ceil(middle - reach), 0, lattices.counts).astype(np.int64)
    high = np.clip(np.floor(middle + reach), -1, lattices.counts - 1).astype(np.int64)
    found = (overlap <= shorter.prod(axis=-1)) & (high >= low).all(axis=-1)
    box, shape = np.nonzero(found)
    return Windows(box, shape, low[found], (high - low + 1)[found])


def _middles(hulls: Doubles, shapes: Doubles, lattices: Lattices) -> Doubles:
    """Return (N, S, 2): where the centres of (N, 4) hulls lie, in places from the first, x and y."""
    centre, own = (hulls[:, :2] + hulls[:, 2:]) / 2, (shapes[:, :2] + shapes[:, 2:]) / 2
    middles: Doubles = (centre[:, None] - own - lattices.pitch[:, 1:]) / lattices.pitch[:, :1]
    return middles


def placed(block: Windows, lattices: Lattices) -> tuple[Integers, Integers, Floats]:
    """List what lies in windows: the boxes (P,), the anchors' numbers (P,) and, as the grid rounds them, anchors."""
    window, place = ragged(block.count.prod(axis=1))
    row, column = np.divmod(place, block.count[window, 0])
    shape, places = block.shape[window], np.stack([column, row], axis=1) + block.low[window]
    pitch, anchors = lattices.pitch[shape], lattices.shapes[shape]
    centres = places.astype(np.float32) * pitch[:, :1] + pitch[:, 1:]
    anchors[:, :2] += centres
    if anchors.shape[1] == 4:
        anchors[:, 2:] += centres
    return block.box[window], lattices.first[shape] + (places * lattices.steps[shape]).sum(axis=1), anchors


def ragged(counts: Integers) -> tuple[Integers, Integers]:
    """Return, for runs of the given lengths, which run every element is in and its position there.

    >>> [part.tolist() for part in ragged(np.array([2, 1, 3]))]
    [[0, 0, 1, 2, 2, 2], [0, 1, 0, 0, 1, 2]]
    """
    run = np.repeat(np.arange(len(counts)), counts)
    return run, np.arange(len(run)) - (np.cumsum(counts) - counts)[run]


def _picked(pairs: Pairs, which: Integers | npt.NDArray[np.bool_]) -> Pairs:
    return Pairs(pairs.truth[which], pairs.anchor[which], pairs.iou[which])


def _no_pairs(measure: Measure) -> Pairs:
    return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, measure.iou_type))


def _joined(parts: list[Pairs]) -> Pairs:
    return Pairs(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("truth", "anchor", "iou")))
