"""The few anchors of a grid that can overlap a box enough, found without a look at the others.

Anchors of one shape stand on a lattice, and their overlap with a box is the product of a part along x and a part along
y, each falling from its peak at the box's centre. So the anchors that reach a given overlap lie in a window of places,
and its borders follow from the box, the shape and that overlap alone. Windows are computed in float64 and a little too
wide; what lies in them is then computed exactly as a dense float32 matrix would, anchor by anchor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.geometry.iou import MIN_UNION
from focaldet.structures import AnchorGrid, Size

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

BLOCK = 1 << 16
"""Pairs of box and anchor looked at in one go: enough to pay for the calls, few enough for the cache."""


@dataclass(frozen=True)
class Lattices:
    """The S shapes of all levels, each with the lattice of places that it stands on; x before y in every pair.

    Attributes:
        shapes: (S, 4) float32 hboxes around (0, 0).
        strides: (S,) float32 pixels between places.
        starts: (S,) float32 centre of the first place.
        counts: (S, 2) places along x and y that take part; shapes without any are left out.
        first: (S,) number of the anchor at the first place.
        steps: (S, 2) how far the anchor's number moves from place to place.
        slack: (S,) pixels by which rounding can move a corner, generously.
    """

    shapes: Floats
    strides: Floats
    starts: Floats
    counts: Integers
    first: Integers
    steps: Integers
    slack: Doubles

    @classmethod
    def of(cls, grid: AnchorGrid, valid: tuple[Size, ...] | None = None) -> Lattices:
        """Tabulate a grid; `valid` gives the (rows, columns) that take part on each level, all when None."""
        kinds = np.array([len(shapes) for shapes in grid.shapes])
        level = np.repeat(np.arange(len(kinds)), kinds)
        within = np.arange(len(level)) - (np.cumsum(kinds) - kinds)[level]
        shapes = np.concatenate([shapes.cpu().numpy() for shapes in grid.shapes])
        strides = np.array(grid.strides, np.float32)
        sizes = np.array(grid.sizes, np.int64)
        counts = np.minimum(sizes, np.array(valid, np.int64)) if valid is not None else sizes
        starts = np.array([grid.offset * stride for stride in grid.strides], np.float32)
        offsets = np.cumsum(grid.counts) - np.array(grid.counts)
        steps = np.stack([kinds, kinds * sizes[:, 1]], axis=1)
        furthest = np.abs(starts) + strides * sizes.max(axis=1)
        slack = (furthest[level] + np.abs(shapes).max(axis=1)).astype(np.float64) * 2.0**-22
        keep = np.all(counts > 0, axis=1, keepdims=True)[level, 0]
        level, within = level[keep], within[keep]
        first = offsets[level] + within
        return cls(
            shapes[keep], strides[level], starts[level], counts[level][:, ::-1], first, steps[level], slack[keep]
        )

    def areas(self) -> Doubles:
        """Return the (S,) areas of the shapes."""
        size = (self.shapes[:, 2:] - self.shapes[:, :2]).astype(np.float64)
        areas: Doubles = size[:, 0] * size[:, 1]
        return areas

    def tolerance(self) -> Doubles:
        """Return (S,) relative amounts by which rounding can change an overlap that matters, generously."""
        shorter = (self.shapes[:, 2:] - self.shapes[:, :2]).min(axis=1).astype(np.float64)
        tolerance: Doubles = np.minimum(1e-5 + 8 * self.slack / np.maximum(shorter, 1e-30), 1.0)
        return tolerance

    def middles(self, boxes: Floats) -> Doubles:
        """Return (N, S, 2): where the centres of (N, 4) boxes lie, in places from the first."""
        centre = (boxes[:, :2].astype(np.float64) + boxes[:, 2:]) / 2
        own = (self.shapes[:, :2].astype(np.float64) + self.shapes[:, 2:]) / 2 + self.starts[:, None]
        middles: Doubles = (centre[:, None] - own) / self.strides[:, None]
        return middles

    def sides(self, shape: Integers, place: Integers, axis: int) -> tuple[Floats, Floats]:
        """Return the lower and upper edge along one axis of shapes at places, with the float32 rounding of the grid."""
        centre = place.astype(np.float32) * self.strides[shape] + self.starts[shape]
        return centre + self.shapes[shape, axis], centre + self.shapes[shape, axis + 2]


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


def windows(boxes: Floats, overlap: Doubles, lattices: Lattices) -> Windows:
    """Return the windows that hold every anchor whose intersection with a box has at least a given area.

    Args:
        boxes: (N, 4) hboxes.
        overlap: (N, S) square pixels that the intersection with an anchor of each shape must reach, above 0.
        lattices: of S shapes.
    """
    size = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)[:, None]
    anchor_size = (lattices.shapes[:, 2:] - lattices.shapes[:, :2]).astype(np.float64)
    slack = 2 * lattices.slack[:, None]
    shorter = np.minimum(size, anchor_size) + slack  # the most that an intersection can measure along x and y
    # A part along x of at least overlap / shorter_y is needed, and it shrinks by a pixel with every pixel of distance.
    reach = (size + anchor_size) / 2 + slack - overlap[..., None] / shorter[..., ::-1]
    middle, reach = lattices.middles(boxes), reach / lattices.strides[:, None]
    low = np.clip(np.ceil(middle - reach), 0, lattices.counts).astype(np.int64)
    high = np.clip(np.floor(middle + reach), -1, lattices.counts - 1).astype(np.int64)
    found = (overlap <= shorter.prod(axis=-1)) & (high >= low).all(axis=-1)
    box, shape = np.nonzero(found)
    return Windows(box, shape, low[found], (high - low + 1)[found])


@dataclass(frozen=True)
class Pairs:
    """P pairs of box and anchor, in the order of the boxes; float32 throughout.

    Attributes:
        box: (P,) which box.
        anchor: (P,) number of the anchor.
        overlap: (P,) area of the intersection.
        area: (P,) area of the anchor.
    """

    box: Integers
    anchor: Integers
    overlap: Floats
    area: Floats

    def iou(self, boxes: Floats) -> Floats:
        """Return (P,) IoU, in the order of operations of `hbox_iou`."""
        areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        iou: Floats = self.overlap / np.maximum(areas[self.box] + self.area - self.overlap, np.float32(MIN_UNION))
        return iou

    def iof(self) -> Floats:
        """Return (P,) intersections over the area of the anchor."""
        iof: Floats = self.overlap / self.area.clip(min=np.float32(MIN_UNION))
        return iof


def pairs(boxes: Floats, block: Windows, lattices: Lattices) -> Pairs:
    """List what lies in the windows, with overlap and area exactly as the pairwise float32 operations give them."""
    _, x_overlap, x_side, x_number = _along(boxes, block, lattices, 0)
    y_window, y_overlap, y_side, y_number = _along(boxes, block, lattices, 1)
    counts = block.count[:, 0]
    row, column = ragged(counts[y_window])  # a row of places for every place along y
    column += (np.cumsum(counts) - counts)[y_window][row]
    return Pairs(
        box=block.box[y_window][row],
        anchor=y_number[row] + x_number[column] + lattices.first[block.shape][y_window][row],
        overlap=x_overlap[column] * y_overlap[row],
        area=x_side[column] * y_side[row],
    )


def _along(boxes: Floats, block: Windows, lattices: Lattices, axis: int) -> tuple[Integers, Floats, Floats, Integers]:
    """Return for every place along one axis of every window: the window, overlap, anchor's side, anchor's number."""
    window, place = ragged(block.count[:, axis])
    place += block.low[window, axis]
    shape, box = block.shape[window], block.box[window]
    low, high = lattices.sides(shape, place, axis)
    overlap = np.minimum(high, boxes[box, axis + 2]) - np.maximum(low, boxes[box, axis])
    return window, np.maximum(overlap, np.float32(0)), high - low, place * lattices.steps[shape, axis]


def ragged(counts: Integers) -> tuple[Integers, Integers]:
    """Return, for runs of the given lengths, which run every element is in and its position there.

    >>> [part.tolist() for part in ragged(np.array([2, 1, 3]))]
    [[0, 0, 1, 2, 2, 2], [0, 1, 0, 0, 1, 2]]
    """
    run = np.repeat(np.arange(len(counts)), counts)
    return run, np.arange(len(run)) - (np.cumsum(counts) - counts)[run]


def nearest_iou(boxes: Floats, lattices: Lattices) -> Floats:
    """Return (N,) the best IoU of each box with the anchors that stand nearest to its centre, one step to each side.

    That is the best of all anchors, but for rounding: a lower bound to search with.
    """
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    shape = np.arange(len(lattices.shapes))[None, :, None]
    below = np.floor(lattices.middles(boxes))
    overlaps, sides = [], []
    for axis in (0, 1):
        places = below[..., axis, None] + np.arange(2)
        places = np.clip(places, 0, lattices.counts[:, axis, None] - 1).astype(np.int64)
        low, high = lattices.sides(np.broadcast_to(shape, places.shape), places, axis)
        overlap = np.minimum(high, boxes[:, axis + 2, None, None]) - np.maximum(low, boxes[:, axis, None, None])
        overlaps.append(np.maximum(overlap, np.float32(0)))
        sides.append(high - low)
    overlap = overlaps[0][..., None] * overlaps[1][..., None, :]
    union = areas[:, None, None, None] + sides[0][..., None] * sides[1][..., None, :] - overlap
    iou: Floats = (overlap / np.maximum(union, np.float32(MIN_UNION))).max(axis=(1, 2, 3), initial=np.float32(0))
    return iou


def anchors_at(grid: AnchorGrid, numbers: Tensor) -> Tensor:
    """Return the (P, 4) float32 anchors with the given numbers (levels joined), without writing the others out."""
    anchors = torch.empty(len(numbers), 4)
    first = 0
    for shapes, stride, (_, width), count in zip(grid.shapes, grid.strides, grid.sizes, grid.counts, strict=True):
        here = (numbers >= first) & (numbers < first + count)
        number = numbers[here] - first
        place = number // len(shapes)
        centre = torch.stack([place % width, place // width], dim=-1).float() * stride + grid.offset * stride
        anchors[here] = centre.repeat(1, 2) + shapes.cpu()[number % len(shapes)]
        first += count
    return anchors
