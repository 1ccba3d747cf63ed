"""The best overlaps of anchors and truth boxes, compiled where numba is there, in numpy where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from focaldet.geometry.kernels.choose import why_not
from focaldet.targets import cells
from focaldet.targets.lattices import Lattices
from focaldet.targets.overlap import Doubles, Integers, Maxima, Measure, Numbers, box_table


class Search(Protocol):
    """Anchors that truth boxes are looked for among."""

    @property
    def measure(self) -> Measure:
        """How boxes are compared."""
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

    def maxima(self, boxes: Numbers, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        """As `Search.maxima`; equal in every anchor to the dense matrix of all pairs."""
        if why_not("numba"):
            return cells.grid_maxima(boxes, self.lattices, self.measure, least, over_anchor=over_anchor, climb=climb)
        from focaldet.targets import kernels

        table, measure = self.lattices, self.measure
        found = _Found.of(table.num_anchors, measure)
        places = np.concatenate([table.counts, table.first[:, None], table.steps], axis=1)
        threshold, ends = measure.iou_type(least), (found.best, found.owner, found.reached)
        if measure.rotated:
            shapes = self._shapes
            return found.maxima(
                *kernels.rbox_grid(
                    box_table(boxes),
                    shapes,
                    table.shapes[:, :2].copy(),
                    table.pitch,
                    places,
                    table.slack,
                    threshold,
                    over_anchor,
                    climb,
                    *ends,
                )
            )
        one = measure.box_type(measure.one)
        return found.maxima(
            *kernels.hbox_grid(
                boxes,
                table.shapes,
                table.pitch,
                places,
                table.slack,
                table.tolerance(measure),
                threshold,
                one,
                over_anchor,
                climb,
                *ends,
            )
        )

    @cached_property
    def _shapes(self) -> Doubles:
        return box_table(self.lattices.shapes)


@dataclass(frozen=True)
class ListSearch:
    """Anchors anywhere.

    Attributes:
        anchors: (N, D) in the type and form of the measure.
        measure: how boxes are compared.
    """

    anchors: Numbers
    measure: Measure

    def maxima(self, boxes: Numbers, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        """As `Search.maxima`; `least` 0 asks for every anchor that overlaps a truth box at all."""
        if why_not("numba"):
            return cells.list_maxima(boxes, self.anchors, self.measure, least, over_anchor=over_anchor, climb=climb)
        from focaldet.targets import kernels

        found = _Found.of(len(self.anchors), self.measure)
        threshold, ends = self.measure.iou_type(least), (found.best, found.owner, found.reached)
        if self.measure.rotated:
            table = np.ascontiguousarray(box_table(self.anchors).T)
            return found.maxima(*kernels.rbox_list(box_table(boxes), table, threshold, over_anchor, climb, *ends))
        one = self.measure.box_type(self.measure.one)
        return found.maxima(*kernels.hbox_list(boxes, self.anchors, threshold, one, over_anchor, climb, *ends))


@dataclass(frozen=True)
class _Found:
    """What the kernels write into: a number for every anchor, of which the system hands out only the touched pages."""

    best: Numbers
    owner: Integers
    reached: Integers

    @classmethod
    def of(cls, num_anchors: int, measure: Measure) -> _Found:
        return cls(
            np.zeros(num_anchors, measure.iou_type), np.zeros(num_anchors, np.int32), np.empty(num_anchors, np.int64)
        )

    def maxima(self, reached: Integers, tie_truths: Integers, tie_anchors: Integers, tie_ious: Numbers) -> Maxima:
        anchors = np.sort(reached)
        return Maxima(
            anchors, self.owner[anchors].astype(np.int64), self.best[anchors], tie_truths, tie_anchors, tie_ious
        )
