"""Anchor grids: at every place of every level the same few boxes, of several sizes and shapes, upright or turned."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from focaldet.geometry.rotated_coders import CoderAngle, RboxCoder
from focaldet.structures import AnchorGrid, Size

AnchorAngle = Literal["zero", "oc", "oc-negative", "le90", "le135"]

OCTAVE = (1.0, 2.0 ** (1 / 3), 2.0 ** (2 / 3))
"""Three steps within a factor of two."""
ORIGINAL_STRIDES = (8, 16, 32, 64, 128)


@dataclass(frozen=True)
class AnchorShapes:
    """The boxes that stand at every place: each ratio (outer loop) in each scale (inner loop), times the stride.

    Lin et al. 2017 (arXiv:1708.02002), section 4: areas of 32^2 to 512^2 on P3 to P7, three ratios, three octave steps.

    Attributes:
        scales: square root of an anchor's area, in strides of its level.
        ratios: height / width.
        strides: pixels between the places of a level, one a level.
        offset: centre of the first place, in strides.
        start: the same in pixels, where it is one on all levels; added to `offset`.
        angle: how the same boxes are written as rboxes. None: not at all, they are hboxes. "zero": theta 0, w along x
            (mmrotate 0.x). A form of box: the one that mmrotate gives them in that form, 1.x by default
            (`shared/spec/rotated.md` section 9.3); of boxes with equal sides that is the turned one.
        coded: for hboxes that find rotated boxes: the form in which deltas are relative to them, while they are
            assigned as hboxes; "zero": w along x, theta 0. None: they are coded as they are assigned.
        squares: how hboxes with equal sides are coded. "alike": all in one way. "rounded": each by its sides at its
            place, where float32 makes the one or the other longer, so that in forms with the longer side first some are
            a quarter turn from the others. A quirk of the original program that moves numbers in "tf180".
    """

    scales: tuple[float, ...]
    ratios: tuple[float, ...]
    strides: tuple[int, ...]
    offset: float = 0.0
    start: float = 0.0
    angle: AnchorAngle | None = None
    coded: CoderAngle | Literal["zero"] | None = None
    squares: Literal["alike", "rounded"] = "alike"

    plus_one: ClassVar[bool] = False
    """Whether a side is x2 - x1 + 1 where hboxes are coded as rboxes."""

    @property
    def num_anchors(self) -> int:
        """Anchors a place."""
        return len(self.scales) * len(self.ratios)

    @property
    def box_numbers(self) -> int:
        """Numbers of an anchor as it is coded, and so of its deltas: D."""
        return 4 if self.angle is None and self.coded is None else 5

    @property
    def levels(self) -> tuple[int, ...]:
        """Pyramid levels that carry anchors; level k has stride 2^k."""
        return tuple(stride.bit_length() - 1 for stride in self.strides)

    def level_shapes(self, stride: int) -> Tensor:
        """Return the (K, 4) hboxes or (K, 5) rboxes of a level around (0, 0), in pixels; float32.

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
        if self.angle is not None:
            return _written(widths, heights, self.angle)
        return torch.stack([-0.5 * widths, -0.5 * heights, 0.5 * widths, 0.5 * heights], dim=-1)

    def grid(self, sizes: Sequence[Size], device: torch.device | str = "cpu") -> AnchorGrid:
        """Return the anchors of maps of the given (height, width), one a level."""
        shapes = [self.level_shapes(stride) for stride in self.strides]
        on_device = tuple(level.to(device) for level in shapes)
        return AnchorGrid(on_device, self.strides, tuple(sizes), self.offset, self.start, self._coded(on_device))

    def grid_for(self, input_size: Size) -> AnchorGrid:
        """Return the anchors of an input of (height, width) pixels, padding included.

        >>> AnchorShapes((4.0,), (1.0,), (64, 128)).grid_for((800, 1344)).sizes
        ((13, 21), (7, 11))
        """
        height, width = input_size
        return self.grid([(-(-height // stride), -(-width // stride)) for stride in self.strides])

    def _coded(self, shapes: tuple[Tensor, ...]) -> tuple[Tensor, ...] | Callable[[Tensor], Tensor] | None:
        """Return what `AnchorGrid.coded` is."""
        if self.coded is None:
            return None
        if self.coded == "zero":
            unturned = replace(self, angle="zero", coded=None)
            return tuple(unturned.level_shapes(stride).to(shapes[0].device) for stride in self.strides)
        as_rboxes = partial(RboxCoder(self.coded).from_hbox, plus_one=self.plus_one)
        return as_rboxes if self.squares == "rounded" else tuple(as_rboxes(hboxes) for hboxes in shapes)


@dataclass(frozen=True)
class TemplateShapes(AnchorShapes):
    """The original rotated program's upright anchors: small boxes of whole pixels, multiplied by stride and scale.

    Of each ratio one template of about 4 x 4: its width is sqrt(16 / ratio) and its height width * ratio, both rounded
    to whole numbers, so 1/3 is 7 x 2 and 3 is 2 x 6. Corners are centre -/+ 0.5 * (size - 1), as pixels counted "+1".

    Attributes:
        scales: multiples of a template, in strides.
    """

    plus_one: ClassVar[bool] = True

    def level_shapes(self, stride: int) -> Tensor:
        """Return the (K, 4) float32 hboxes of a level around (0, 0), in pixels.

        >>> TemplateShapes((1.0,), (1.0, 1 / 3), (8,)).level_shapes(8)
        tensor([[-15.5000, -15.5000,  15.5000,  15.5000],
                [-27.5000,  -7.5000,  27.5000,   7.5000]])
        """
        widths = [round(math.sqrt(16 / ratio)) for ratio in self.ratios]
        heights = [round(width * ratio) for width, ratio in zip(widths, self.ratios, strict=True)]
        templates = torch.tensor([widths, heights], dtype=torch.float64)
        sizes = templates[:, :, None] * stride * torch.tensor(self.scales, dtype=torch.float64)
        half = 0.5 * (sizes.flatten(1).T - 1)
        return torch.cat([-half, half], dim=1).float()


@dataclass(frozen=True)
class TurnedShapes(AnchorShapes):
    """The original rotated program's turned anchors: each angle (outermost), ratio and scale, as rboxes.

    Attributes:
        angles: theta in degrees, of the w side.
        crossed: w = size * sqrt(ratio) and h = size / sqrt(ratio), as before January 2020; else the other way around.
            With a set of ratios that is closed under inversion this changes the order, not the set.
    """

    angles: tuple[int, ...] = (0,)
    crossed: bool = False

    @property
    def num_anchors(self) -> int:
        """Anchors a place."""
        return len(self.scales) * len(self.ratios) * len(self.angles)

    @property
    def box_numbers(self) -> int:
        """Numbers of an anchor: D."""
        return 5

    def level_shapes(self, stride: int) -> Tensor:
        """Return the (K, 5) float32 rboxes of a level around (0, 0), in pixels and radians.

        >>> TurnedShapes((4.0,), (0.25,), (8,), angles=(-90, -30)).level_shapes(8)
        tensor([[ 0.0000,  0.0000, 64.0000, 16.0000, -1.5708],
                [ 0.0000,  0.0000, 64.0000, 16.0000, -0.5236]])
        """
        root = torch.from_numpy(np.sqrt(np.array(self.ratios, np.float32)))[:, None]  # rounds right, unlike torch's
        sizes = stride * torch.tensor(self.scales)
        widths, heights = (sizes / root).flatten(), (sizes * root).flatten()
        if self.crossed:
            widths, heights = heights, widths
        theta = torch.deg2rad(torch.tensor(self.angles, dtype=torch.float64)).float().repeat_interleave(len(widths))
        sides = torch.stack([widths, heights], dim=-1).repeat(len(self.angles), 1)
        return torch.cat([torch.zeros_like(sides), sides, theta[:, None]], dim=1)


@dataclass(frozen=True)
class WholeShapes(AnchorShapes):
    """torchvision's anchors: sides and corners of whole pixels, at steps that the input's side is shared out into.

    Of a scale s the side is int(s * stride); a corner is half a side, rounded to the even whole number. A level of h
    rows in an input of H has them H // h pixels apart, so 61 and not 64 for the 13 rows of P6 of an input of 800
    (`shared/spec/horizontal.md` section 14). H is a multiple of the finest level's stride.
    """

    def level_shapes(self, stride: int) -> Tensor:
        """Return the (K, 4) float32 hboxes of a level around (0, 0), in pixels.

        >>> WholeShapes((4.0 * 2 ** (1 / 3),), (0.5, 1.0), (8,)).level_shapes(8)
        tensor([[-28., -14.,  28.,  14.],
                [-20., -20.,  20.,  20.]])
        """
        sides = torch.tensor([float(int(stride * scale)) for scale in self.scales])
        height_factor = torch.sqrt(torch.tensor(self.ratios))[:, None]
        widths, heights = ((1 / height_factor) * sides).flatten(), (height_factor * sides).flatten()
        return (torch.stack([-widths, -heights, widths, heights], dim=-1) / 2).round()

    def grid(self, sizes: Sequence[Size], device: torch.device | str = "cpu") -> AnchorGrid:
        """Return the anchors of maps of the given (height, width), one a level; the first is the finest."""
        height, width = (side * self.strides[0] for side in sizes[0])
        return replace(
            super().grid(sizes, device), steps=tuple((height // rows, width // columns) for rows, columns in sizes)
        )


COCO_ANCHORS = AnchorShapes(tuple(4 * step for step in OCTAVE), (0.5, 1.0, 2.0), ORIGINAL_STRIDES)
"""Those of the COCO rows."""


def original_upright(
    more: bool = False, coded: CoderAngle = "tf90", squares: Literal["alike", "rounded"] = "alike"
) -> TemplateShapes:
    """Return the original rotated program's H anchors: 21 a place, or 55 ("H + R + more", row 18) with `more`.

    `shared/spec/rotated.md` section 2.1. The centre of the first place is at 1.5 pixels on every level. They are
    assigned as hboxes and coded as rboxes; in "tf90" w is the height + 1 and h the width + 1.
    """
    scales = (0.5, 0.75, *OCTAVE) if more else OCTAVE
    extra = (7.0, 1 / 7, 9.0, 1 / 9) if more else ()
    ratios = (1.0, 1 / 2, 2.0, 1 / 3, 3.0, 5.0, 1 / 5, *extra)
    return TemplateShapes(scales, ratios, ORIGINAL_STRIDES, start=1.5, coded=coded, squares=squares)


def original_turned(crossed: bool = False) -> TurnedShapes:
    """Return the original rotated program's R anchors, 90 a place (`shared/spec/rotated.md` section 2.2)."""
    return TurnedShapes(
        scales=tuple(4 * step for step in OCTAVE),
        ratios=(1.0, 1 / 3, 3.0, 5.0, 1 / 5),
        strides=ORIGINAL_STRIDES,
        offset=0.5,
        angles=(-90, -75, -60, -45, -30, -15),
        crossed=crossed,
    )


def _written(widths: Tensor, heights: Tensor, angle: AnchorAngle) -> Tensor:
    """Return upright boxes of the given sides as (K, 5) rboxes around (0, 0) in one of the forms."""
    if angle == "zero":
        turned = torch.zeros_like(widths, dtype=torch.bool)
    else:
        turned = heights >= widths if angle in ("le90", "le135") else torch.ones_like(widths, dtype=torch.bool)
    quarter = math.pi / 2 if angle in ("oc", "le135") else -math.pi / 2
    zero = torch.zeros_like(widths)
    sides = torch.where(turned, heights, widths), torch.where(turned, widths, heights)
    return torch.stack([zero, zero, *sides, torch.where(turned, quarter, zero)], dim=-1)
