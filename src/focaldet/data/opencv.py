"""Resizing and turning pictures as OpenCV does, to the last bit, without OpenCV.

The rows of the rotated table were measured on pictures that OpenCV had prepared, so equal answers need equal pixels.
Both functions are bilinear in OpenCV's own arithmetic: weights are multiples of 1/2048 or 1/32. No boxes here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from focaldet.data.warp import Matrix, Picture
from focaldet.structures import Size

Floats = npt.NDArray[np.float32]
Places = npt.NDArray[np.int64]

WEIGHT_BITS = 11
"""Weights of resizing are multiples of 2^-11."""
PLACE_BITS, STEP_BITS = 10, 5
"""Places of turning are added up in multiples of 2^-10 pixel, then cut to multiples of 2^-5."""


def resize_as_opencv(image: Picture, size: Size) -> Picture:
    """Resize as `cv2.resize` does by default (INTER_LINEAR, from 8 bits to 8 bits, no antialiasing).

    Args:
        image: (H, W, channels).
        size: new (height, width).

    >>> resize_as_opencv(np.array([[[0], [200]]], np.uint8), (1, 4))[0, :, 0].tolist()
    [0, 50, 150, 200]
    """
    if image.shape[:2] == tuple(size):
        return image
    (above, below, row_weights), (left, right, weights) = (
        _neighbours(old, new) for old, new in zip(image.shape[:2], size, strict=True)
    )
    pixels = image.astype(np.int32)
    rows = pixels.take(left, axis=1) * weights[0][:, None]
    rows += pixels.take(right, axis=1) * weights[1][:, None]
    rows >>= 4  # so that the next products fit 32 bits; each is cut by itself, and only their sum is rounded
    resized = (rows.take(above, axis=0) * row_weights[0][:, None, None]) >> 16
    resized += (rows.take(below, axis=0) * row_weights[1][:, None, None]) >> 16
    resized += 2
    return (resized >> 2).astype(np.uint8)  # type: ignore[no-any-return]


def resize_floats_as_opencv(image: Picture, size: Size) -> Floats:
    """Resize as `cv2.resize` of OpenCV 4.1 does a picture of floats by default (INTER_LINEAR).

    Args:
        image: (H, W, channels), of any type.
        size: new (height, width).
    """
    pixels = image.astype(np.float32)
    for axis, shape in ((1, (-1, 1)), (0, (-1, 1, 1))):
        first, second, share = _between(image.shape[axis], size[axis])
        share = share.reshape(shape)
        pixels = pixels.take(first, axis) * (1 - share) + pixels.take(second, axis) * share
    return pixels


def _neighbours(old: int, new: int) -> tuple[Places, Places, npt.NDArray[np.int32]]:
    """Return, for each place of a new axis, the two old places that it lies between and their weights (2, new)."""
    first, second, share = _between(old, new)
    weights = np.rint(np.stack([1 - share, share]) * np.float32(1 << WEIGHT_BITS))
    return first, second, weights.astype(np.int32)


def _between(old: int, new: int) -> tuple[Places, Places, Floats]:
    """Return, for each place of a new axis, the two old places that it lies between and the share (new,) of the second.

    Beyond the middles of the first and the last old place, both are that place.
    """
    places = ((np.arange(new) + 0.5) * (1 / (new / old)) - 0.5).astype(np.float32)
    low = np.floor(places)
    first = low.astype(np.int64)
    return first.clip(0, old - 1), (first + 1).clip(0, old - 1), places - low


def warp_as_opencv(image: Floats, matrix: Matrix, size: Size) -> Floats:
    """Move a picture as `cv2.warpAffine` does by default: bilinear, black where the picture shows nothing.

    Args:
        image: (H, W, channels) float32.
        matrix: 3 x 3, affine, from picture to canvas; whole coordinates are the middles of pixels.
        size: (height, width) of the canvas.
    """
    x, y = _places(matrix, size)
    height, width, channels = image.shape
    framed = np.zeros((height + 2, width + 2, channels), np.float32)  # what lies outside is fetched from the frame
    framed[1:-1, 1:-1] = image
    pixels = framed.reshape(-1, channels)
    steps = np.float32(1 << STEP_BITS)
    share_x, share_y = ((place & (1 << STEP_BITS) - 1).astype(np.float32) / steps for place in (x, y))
    column, row = x >> STEP_BITS, y >> STEP_BITS
    moved = np.zeros((*size, channels), np.float32)
    for below, weight_y in ((0, 1 - share_y), (1, share_y)):
        start = ((row + below).clip(-1, height) + 1) * (width + 2)
        for right, weight_x in ((0, 1 - share_x), (1, share_x)):
            place = start + ((column + right).clip(-1, width) + 1)
            moved += pixels.take(place, axis=0) * (weight_y * weight_x)[:, :, None]
    return moved


def _places(matrix: Matrix, size: Size) -> tuple[Places, Places]:
    """Return, for every pixel of a canvas, x and y of what it shows, each (height, width) in steps of 2^-5 pixel."""
    (a, b, c), (d, e, f) = _inverse(matrix)
    unit, half_step = 1 << PLACE_BITS, 1 << (PLACE_BITS - STEP_BITS - 1)
    columns, rows = np.arange(size[1], dtype=np.float64), np.arange(size[0], dtype=np.float64)[:, None]
    x = _whole(a * columns * unit) + _whole((b * rows + c) * unit) + half_step
    y = _whole(d * columns * unit) + _whole((e * rows + f) * unit) + half_step
    return x >> (PLACE_BITS - STEP_BITS), y >> (PLACE_BITS - STEP_BITS)


def _inverse(matrix: Matrix) -> list[list[float]]:
    """Invert the first two rows of an affine matrix, in the order of operations that decides the last bit."""
    (a, b, c), (d, e, f) = matrix[:2].tolist()
    factor = 1 / (a * e - b * d)
    a, b, d, e = e * factor, b * -factor, d * -factor, a * factor
    return [[a, b, -a * c - b * f], [d, e, -d * c - e * f]]


def _whole(values: npt.NDArray[np.floating[Any]]) -> Places:
    whole: Places = np.rint(values).astype(np.int64)
    return whole
