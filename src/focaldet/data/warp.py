"""Move pixels: resize as OpenCV does, place a picture on a canvas by a matrix, or turn it freely. No boxes here.

Matrices are 3 x 3 and map continuous coordinates, in which the pixel in the upper left corner covers [0, 1]: its centre
is at (0.5, 0.5).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch.nn import functional

from focaldet.structures import Size

Picture = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]

FILL = 116
"""Grey level where a canvas shows no picture: about the mean of photographs, so nearly 0 after normalization."""


def resize_bilinear(image: Picture, size: Size) -> Picture:
    """Resize without antialiasing; equals OpenCV's INTER_LINEAR within one grey level (spec section 10).

    torch's 8-bit kernel rounds after each of its two passes, OpenCV's fixed-point one once: neither is off by a level.
    One implementation on every machine, so that a run does not depend on whether OpenCV is there.

    Args:
        image: (H, W, channels).
        size: new (height, width).
    """
    if image.shape[:2] == tuple(size):
        return image
    image = np.require(image, requirements=["C", "W"])  # torch warns of arrays that are read-only: these it copies
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


@dataclass(frozen=True)
class Span:
    """What one axis of a picture becomes: pixels `source` to `source_end` go to `target` to `target_end`.

    Attributes:
        source, source_end: of the picture's axis.
        target, target_end: of the canvas's axis.
        reverse: whether they come in the opposite order.
    """

    source: int
    source_end: int
    target: int
    target_end: int
    reverse: bool

    @property
    def scale_and_shift(self) -> tuple[float, float]:
        """The numbers a and t of target = a * source + t."""
        scale = (self.target_end - self.target) / (self.source_end - self.source)
        if self.reverse:
            return -scale, self.target_end + scale * self.source
        return scale, self.target - scale * self.source


@dataclass(frozen=True)
class Placement:
    """A picture's way onto a canvas, in whole pixels: crop, resize, transpose, reverse, paste.

    Attributes:
        x, y: what fills each axis of the canvas.
        transpose: whether the canvas's x axis shows the picture's y axis.
        size: (height, width) of the canvas.
    """

    x: Span
    y: Span
    transpose: bool
    size: Size

    @property
    def matrix(self) -> Matrix:
        """The matrix that the pixels follow exactly, and that boxes must follow too."""
        (scale_x, shift_x), (scale_y, shift_y) = self.x.scale_and_shift, self.y.scale_and_shift
        if self.transpose:
            return np.array([[0, scale_x, shift_x], [scale_y, 0, shift_y], [0, 0, 1]])
        return np.array([[scale_x, 0, shift_x], [0, scale_y, shift_y], [0, 0, 1]])

    def apply(self, image: Picture) -> Picture:
        """Return the canvas, (height, width, channels); what the picture does not cover is FILL."""
        rows, columns = (self.x, self.y) if self.transpose else (self.y, self.x)
        part = image[rows.source : rows.source_end, columns.source : columns.source_end]
        part = resize_bilinear(part, (rows.target_end - rows.target, columns.target_end - columns.target))
        part = part.transpose(1, 0, 2) if self.transpose else part
        part = part[:: -1 if self.y.reverse else 1, :: -1 if self.x.reverse else 1]
        if part.shape[:2] == self.size:
            return part
        canvas = np.full((*self.size, image.shape[2]), FILL, dtype=np.uint8)
        canvas[self.y.target : self.y.target_end, self.x.target : self.x.target_end] = part
        return canvas


def place(matrix: Matrix, source: Size, size: Size) -> Placement:
    """Bring a matrix to whole pixels: the nearest map from a crop of the picture to a rectangle of the canvas.

    A picture is then moved by one crop and one resize, ten times faster than by a free warp; the crop's borders move by
    half a pixel at most, and boxes follow `Placement.matrix`, so that they fit the pixels exactly.

    Args:
        matrix: from picture to canvas; axes go to axes (resize, mirror, quarter turn, shift, in any order).
        source: (height, width) of the picture, of which the canvas must show a part.
        size: (height, width) of the canvas.
    """
    transpose = abs(matrix[0, 1]) > abs(matrix[0, 0])
    height, width = source
    length_x, length_y = (height, width) if transpose else (width, height)
    return Placement(
        x=_span(matrix[0, 1 if transpose else 0], matrix[0, 2], length_x, size[1]),
        y=_span(matrix[1, 0 if transpose else 1], matrix[1, 2], length_y, size[0]),
        transpose=bool(transpose),
        size=size,
    )


def _span(scale: float, shift: float, source: int, target: int) -> Span:
    """Round target = scale * source + shift to whole pixels, at least one on each side."""
    low, high = _whole(sorted((shift, scale * source + shift)), target)
    start, end = _whole(sorted(((low - shift) / scale, (high - shift) / scale)), source)
    return Span(start, end, low, high, reverse=scale < 0)


def _whole(ends: list[float], length: int) -> tuple[int, int]:
    """Round an interval to pixels of [0, length], at least one."""
    low = min(max(round(ends[0]), 0), length - 1)
    return low, min(max(round(ends[1]), low + 1), length)


def keeps_axes(matrix: Matrix) -> bool:
    """Whether a matrix takes axes to axes, so that `place` can do what it says."""
    along, across = np.abs(matrix[[0, 1], [0, 1]]).max(), np.abs(matrix[[0, 1], [1, 0]]).max()
    return bool(min(along, across) <= 1e-9 * max(along, across))


def warp(image: Picture, matrix: Matrix, size: Size) -> Picture:
    """Move a picture by any matrix, bilinear without antialiasing; what the picture does not cover is FILL.

    Pillow does it, which is everywhere and keeps to 8 bits: 1024 x 1024 pixels take about 20 ms.

    Args:
        image: (H, W, channels).
        matrix: 3 x 3, affine, from picture to canvas.
        size: (height, width) of the canvas.
    """
    back = np.linalg.inv(matrix)[:2].ravel().tolist()
    if image.shape[2] == 3:
        return _warp_bands(Image.fromarray(np.ascontiguousarray(image)), back, size)
    bands = [Image.fromarray(np.ascontiguousarray(image[:, :, band])) for band in range(image.shape[2])]
    return np.stack([_warp_bands(band, back, size) for band in bands], axis=2)


def _warp_bands(image: Image.Image, back: list[float], size: Size) -> Picture:
    fill = (FILL,) * len(image.getbands())
    moved = image.transform((size[1], size[0]), Image.Transform.AFFINE, back, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.array(moved)
