"""Anchor grids: at every place of every level the same few boxes, of several sizes and shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.structures import AnchorGrid, Size


@dataclass(frozen=True)
class AnchorShapes:
    """The boxes that stand at every place: each ratio (outer loop) in each scale (inner loop), times the stride.

    Lin et al. 2017 (arXiv:1708.02002), section 4: areas of 32^2 to 512^2 on P3 to P7, three ratios, three octave steps.

    Attributes:
        scales: square root of an anchor's area, in strides of its level.
        ratios: height / width.
        strides: pixels between the places of a level, one a level.
        offset: centre of the first place, in strides.
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    strides: tuple[int, ...]
    offset: float = 0.0

    @property
    def num_anchors(self) -> int:
        """Anchors a place."""
        return len(self.scales) * len(self.ratios)

    def level_shapes(self, stride: int) -> Tensor:
        """Return the (K, 4) float32 hboxes of a level around (0, 0), in pixels.

        Exact ties of the assignment are ties of float32, so the products keep the published order, left to right.

        >>> AnchorShapes((4.0,), (0.5, 1.0), (8,)).level_shapes(8)
        tensor([[-22.6274, -11.3137,  22.6274,  11.3137],
                [-16.0000, -16.0000,  16.0000,  16.0000]])
        """
        scales, ratios = torch.tensor(self.scales), torch.tensor(self.ratios)
        height_factor = torch.sqrt(ratios)
        width_factor = 1 / height_factor
        widths = (stride * width_factor[:, None] * scales).flatten()
        heights = (stride * height_factor[:, None] * scales).flatten()
        return torch.stack([-0.5 * widths, -0.5 * heights, 0.5 * widths, 0.5 * heights], dim=-1)

    def grid(self, sizes: Sequence[Size], device: torch.device | str = "cpu") -> AnchorGrid:
        """Return the anchors of maps of the given (height, width), one a level."""
        shapes = tuple(self.level_shapes(stride).to(device) for stride in self.strides)
        return AnchorGrid(shapes, self.strides, tuple(sizes), self.offset)

    def grid_for(self, input_size: Size) -> AnchorGrid:
        """Return the anchors of an input of (height, width) pixels, padding included.

        >>> AnchorShapes((4.0,), (1.0,), (64, 128)).grid_for((800, 1344)).sizes
        ((13, 21), (7, 11))
        """
        height, width = input_size
        return self.grid([(-(-height // stride), -(-width // stride)) for stride in self.strides])
