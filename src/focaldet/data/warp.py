"""Move pixels: resize as OpenCV does, and warp by a matrix. No boxes here.

Matrices are 3 x 3 and map continuous coordinates, in which the pixel in the upper left corner covers [0, 1]: its centre is
at (0.5, 0.5).
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from focaldet.structures import Size

Picture = npt.NDArray[np.uint8]
Matrix = npt.NDArray[np.float64]


def resize_bilinear(image: Picture, size: Size) -> Picture:
    """Resize without antialiasing; equals OpenCV's INTER_LINEAR within one grey level (spec section 10).

    torch's 8-bit kernel rounds after each of its two passes, OpenCV's fixed-point one once: neither errs by a whole level.
    One implementation on every machine, so that a run does not depend on whether OpenCV is there.

    Args:
        image: (H, W, channels).
        size: new (height, width).
    """
    if image.shape[:2] == tuple(size):
        return image
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
    resized = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
