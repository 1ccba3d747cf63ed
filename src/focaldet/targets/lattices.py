"""A grid of anchors as a table: every shape of every level stands on a lattice of places."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from focaldet.structures import AnchorGrid, Size
from focaldet.targets.overlap import Doubles, Integers, Measure

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Lattices:
    """The S shapes of all levels, each with the lattice of places that it stands on; x before y in every pair.

    Attributes:
        shapes: (S, D) float32 boxes around (0, 0).
        pitch: (S, 2) float32 pixels between places, and the centre of the first place.
        counts: (S, 2) places along x and y that take part; shapes without any are left out.
        first: (S,) number of the anchor at the first place.
        steps: (S, 2) how far the anchor's number moves from place to place.
        slack: (S,) pixels by which rounding can move a corner, generously.
        num_anchors: A.
    """

    shapes: Floats
    pitch: Floats
    counts: Integers
    first: Integers
    steps: Integers
    slack: Doubles
    num_anchors: int

    @classmethod
    def of(cls, grid: AnchorGrid, valid: tuple[Size, ...] | None = None) -> Lattices:
        """Tabulate a grid; `valid` gives the (rows, columns) that take part on each level, all when None."""
        kinds = np.array([len(shapes) for shapes in grid.shapes])
        level = np.repeat(np.arange(len(kinds)), kinds)
        within = np.arange(len(level)) - (np.cumsum(kinds) - kinds)[level]
        shapes = torch.cat(grid.shapes).cpu().numpy()
        pitch = np.stack([np.array(grid.strides, np.float32), np.array(grid.starts, np.float32)], axis=1)
        sizes = np.array(grid.sizes, np.int64)
        counts = np.minimum(sizes, np.array(valid, np.int64)) if valid is not None else sizes
        offsets = np.cumsum(grid.counts) - np.array(grid.counts)
        steps = np.stack([kinds, kinds * sizes[:, 1]], axis=1)
        furthest = np.abs(pitch[:, 1]) + pitch[:, 0] * sizes.max(axis=1)
        slack = (furthest[level] + np.abs(shapes).max(axis=1)).astype(np.float64) * 2.0**-22
        keep = np.all(counts > 0, axis=1)[level]
        level, within = level[keep], within[keep]
        return cls(
            shapes=shapes[keep],
            pitch=pitch[level],
            counts=np.ascontiguousarray(counts[level][:, ::-1]),
            first=offsets[level] + within,
            steps=steps[level],
            slack=slack[keep],
            num_anchors=sum(grid.counts),
        )

    def numbers(self) -> Integers:
        """Return the numbers of all anchors that take part, rising."""
        every = [
            first + along_x * np.arange(columns) + along_y * np.arange(rows)[:, None]
            for first, (columns, rows), (along_x, along_y) in zip(self.first, self.counts, self.steps, strict=True)
        ]
        return np.sort(np.concatenate([np.zeros(0, np.int64), *(numbers.ravel() for numbers in every)]))

    def tolerance(self, measure: Measure) -> Doubles:
        """Return (S,) relative amounts by which rounding can change an overlap that matters, generously."""
        hulls = measure.hulls(self.shapes)
        shorter = (hulls[:, 2:] - hulls[:, :2]).min(axis=1)
        tolerance: Doubles = np.minimum(1e-5 + 8 * self.slack / np.maximum(shorter, 1e-30), 1.0)
        return tolerance


def as_rotated(grid: AnchorGrid) -> AnchorGrid:
    """Return a grid of hboxes as one of rboxes with theta 0."""
    if grid.rotated:
        return grid
    shapes = tuple(
        torch.cat([(s[:, :2] + s[:, 2:]) / 2, s[:, 2:] - s[:, :2], torch.zeros_like(s[:, :1])], dim=1)
        for s in grid.shapes
    )
    return replace(grid, shapes=shapes)
