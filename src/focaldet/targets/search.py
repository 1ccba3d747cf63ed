"""The best overlaps of anchors and truth boxes, compiled where numba is there, in numpy where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from focaldet.geometry.kernels.choose import why_not
from focaldet.structures import BACKGROUND
from focaldet.targets import cells
from focaldet.targets.lattices import Lattices
from focaldet.targets.overlap import Integers, Maxima, Measure, Numbers, box_table


class Search(Protocol):
    """Anchors that truth boxes are looked for among."""

    @property
    def measure(self) -> Measure:
        """How boxes are compared."""
        ...

    def numbers(self) -> Integers:
        """Return the numbers of the anchors that take part, rising."""
        ...

    def maxima(self, boxes: Numbers, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        """Return the maxima of truth boxes and these anchors.

        Args:
            boxes: (G, D) in the type and form of the measure.
            least: from which on an anchor's best overlap is told, above 0.
            over_anchor: divide the intersection by the anchor's area, not the union's.
            climb: look for the best anchors of each truth box as well, however little they overlap.
        """
        ...


@dataclass(frozen=True)
class GridSearch:
    """The anchors of a grid.

    Attributes:
        lattices: the grid as a table.
        measure: how boxes are compared.
    """

    lattices: Lattices
    measure: Measure

    def numbers(self) -> Integers:
        """As `Search.numbers`."""
        return self.lattices.numbers()

    def maxima(self, boxes: Numbers, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        """As `Search.maxima`; equal in every anchor to the dense matrix of all pairs."""
        table, measure = self.lattices, self.measure
        if not compiled():
            return cells.grid_maxima(boxes, table, measure, least, over_anchor=over_anchor, climb=climb)
        from focaldet.targets import kernels

        ask = (measure.iou_type(least), over_anchor, climb)
        lattice = np.concatenate([table.counts, table.first[:, None], table.steps], axis=1)
        if measure.rotated:
            shapes, corner = box_table(table.shapes), np.ascontiguousarray(table.shapes[:, :2])
            return Maxima(
                *kernels.rbox_grid(
                    box_table(boxes), shapes, corner, table.pitch, lattice, table.slack, ask, table.num_anchors
                )
            )
        one, tolerance = measure.box_type(measure.one), table.tolerance(measure)
        return Maxima(
            *kernels.hbox_grid(
                boxes, table.shapes, table.pitch, lattice, table.slack, tolerance, one, ask, table.num_anchors
            )
        )


@dataclass(frozen=True)
class ListSearch:
    """Anchors anywhere.

    Attributes:
        anchors: (N, D) in the type and form of the measure.
        measure: how boxes are compared.
    """

    anchors: Numbers
    measure: Measure

    def numbers(self) -> Integers:
        """As `Search.numbers`."""
        return np.arange(len(self.anchors))

    def maxima(self, boxes: Numbers, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        """As `Search.maxima`."""
        if not compiled():
            return cells.list_maxima(boxes, self.anchors, self.measure, least, over_anchor=over_anchor, climb=climb)
        from focaldet.targets import kernels

        ask = (self.measure.iou_type(least), over_anchor, climb)
        if self.measure.rotated:
            table = np.ascontiguousarray(box_table(self.anchors).T)
            return Maxima(*kernels.rbox_list(box_table(boxes), table, ask))
        one = self.measure.box_type(self.measure.one)
        return Maxima(*kernels.hbox_list(boxes, self.anchors, one, ask))


def compiled() -> bool:
    """Whether the numba kernels can be used here."""
    return not why_not("numba")


def owners_of(anchors: Numbers, boxes: Numbers, measure: Measure, reached: Numbers) -> tuple[Integers, Numbers]:
    """Return for anchors (N, D) the truth box of (G, D) that each overlaps most, the earliest of equals, and the IoU.

    Args:
        anchors: in the type and form of the measure; neighbours should stand near each other, as on a grid.
        boxes: likewise.
        measure: how boxes are compared.
        reached: (N,) an IoU that each anchor has with some truth box; of an anchor that meets none, which has 0 here,
            the answer's truth box means nothing.
    """
    best, owners = reached.copy(), np.full(len(anchors), BACKGROUND)
    if not compiled():
        found = cells.list_maxima(boxes, anchors, measure, 0.0, over_anchor=False, climb=False)
        best[found.anchors], owners[found.anchors] = found.ious, found.truths
        return owners, best
    from focaldet.targets import kernels

    if measure.rotated:
        kernels.rbox_owners(box_table(boxes), np.ascontiguousarray(box_table(anchors).T), best, owners)
    else:
        kernels.hbox_owners(boxes, anchors, measure.box_type(measure.one), best, owners)
    return owners, best
