"""How boxes are compared, and what a search of the anchors answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from focaldet.geometry.iou import MIN_UNION
from focaldet.geometry.rotated_iou import rotated_iou_aligned_torch

Numbers = npt.NDArray[np.floating[Any]]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

Pixels = Literal["continuous", "plus_one"]


@dataclass(frozen=True)
class Measure:
    """What IoU means, and in which numbers it is compared.

    Attributes:
        rotated: boxes are (N, 5) rboxes: exact IoU in float64, rounded to float32, so that overlaps that are equal for
            a reason tie. Else (N, 4) hboxes.
        pixels: of hboxes. "continuous": float32 throughout, in the published order of operations, so that ties are
            those of the published rows. "plus_one": every side counts one pixel more, in float64.
    """

    rotated: bool
    pixels: Pixels = "continuous"

    @property
    def one(self) -> float:
        """What a side counts beyond the difference of its ends."""
        return 1.0 if self.pixels == "plus_one" else 0.0

    @property
    def least(self) -> float:
        """The IoU from which on boxes overlap at all: rboxes that only touch do by what float64 rounds."""
        return 1e-9 if self.rotated else float(np.finfo(np.float32).tiny)

    @property
    def box_type(self) -> type[np.floating[Any]]:
        """Type of the boxes as they are compared."""
        return np.float64 if self.rotated or self.pixels == "plus_one" else np.float32

    @property
    def iou_type(self) -> type[np.floating[Any]]:
        """Type of an IoU and of the thresholds."""
        return np.float64 if self.pixels == "plus_one" else np.float32

    def hulls(self, boxes: Numbers) -> Doubles:
        """Return (N, 4) float64 hboxes around boxes (N, D)."""
        if self.rotated:
            table = box_table(boxes)
            hulls: Doubles = np.concatenate([table[:, :2] - table[:, 7:], table[:, :2] + table[:, 7:]], axis=1)
            return hulls
        upright: Doubles = boxes.astype(np.float64) + np.array([0, 0, self.one, self.one])
        return upright

    def areas(self, boxes: Numbers) -> Doubles:
        """Return (N,) float64 areas; 0 where a side is negative."""
        sides = boxes[:, 2:4] if self.rotated else boxes[:, 2:].astype(np.float64) - boxes[:, :2] + self.one
        areas: Doubles = np.maximum(sides, 0).astype(np.float64).prod(axis=1)
        return areas

    def quotients(self, boxes: Numbers, anchors: Numbers, over_anchor: bool) -> Numbers:
        """Return (P,) intersections over union, or over the anchor, of pairs of boxes and anchors (P, D)."""
        if self.rotated:
            first, second = torch.from_numpy(anchors).double(), torch.from_numpy(boxes).double()
            ratio = rotated_iou_aligned_torch(first, second, over="first" if over_anchor else "union")
            return ratio.numpy().astype(np.float32)
        one = self.box_type(self.one)
        low, high = np.maximum(boxes[:, :2], anchors[:, :2]), np.minimum(boxes[:, 2:], anchors[:, 2:])
        overlap = np.maximum(high - low + one, 0).prod(axis=1)
        area, anchor_area = ((box[:, 2:] - box[:, :2] + one).prod(axis=1) for box in (boxes, anchors))
        whole = anchor_area if over_anchor else area + anchor_area - overlap
        ratio_of_hboxes: Numbers = overlap / np.maximum(whole, self.box_type(MIN_UNION))
        return ratio_of_hboxes


def box_table(boxes: Numbers) -> Doubles:
    """Return (N, 9) float64 of rboxes (N, 5): x, y, w/2, h/2, cos, sin, area, half extents of the upright hull."""
    x, y, w, h, theta = boxes.astype(np.float64).T
    cos, sin = np.cos(theta), np.sin(theta)
    wide, high = (w * abs(cos) + h * abs(sin)) / 2, (w * abs(sin) + h * abs(cos)) / 2
    outwards = 1 + 1e-12  # more than float64 rounds
    return np.stack([x, y, w / 2, h / 2, cos, sin, w * h, wide * outwards, high * outwards], axis=1)


@dataclass(frozen=True)
class Maxima:
    """The best overlaps from both sides.

    Attributes:
        anchors: (M,) numbers of the anchors whose best overlap reaches what was asked for, rising.
        truths: (M,) the truth box of it, the earliest of equals.
        ious: (M,) that overlap.
        tie_truths: (T,) rising, truth box and
        tie_anchors: (T,) number of every anchor that ties for the best overlap of a truth box, if that is above 0.
        tie_ious: (T,) that overlap.
    """

    anchors: Integers
    truths: Integers
    ious: Numbers
    tie_truths: Integers
    tie_anchors: Integers
    tie_ious: Numbers
