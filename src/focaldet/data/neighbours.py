"""How torchvision and detectron2 resize: which size a picture gets, and what makes it of its pixels.

`shared/spec/horizontal.md` section 14.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
import torch.nn.functional as F

from focaldet.structures import Size

Neighbour = Literal["opencv", "torch", "pillow"]
Resizer = Callable[[npt.NDArray[Any], Size], npt.NDArray[Any]]
"""(H, W, channels) and a new (height, width) -> a picture of that size."""


def cut_size(size: Size, limits: tuple[int, int]) -> Size:
    """Return the size that torchvision gives a picture: each side times one factor, cut to a whole number.

    Args:
        size: (height, width) of the picture.
        limits: longest side, shortest side.

    >>> cut_size((427, 640), (1333, 800))
    (800, 1199)
    """
    factor = min(min(limits) / min(size), max(limits) / max(size))
    return max(1, int(size[0] * factor)), max(1, int(size[1] * factor))


def rounded_size(size: Size, limits: tuple[int, int]) -> Size:
    """Return the size that detectron2 gives a picture: the shorter side first, then within the longest; rounded.

    >>> rounded_size((427, 640), (1333, 800)), rounded_size((300, 640), (1333, 800))
    ((800, 1199), (625, 1333))
    """
    factor = min(limits) / min(size)
    sides = [float(min(limits)) if side == min(size) else side * factor for side in size]
    if max(sides) > max(limits):
        again = max(limits) / max(sides)
        sides = [side * again for side in sides]
    height, width = (max(1, int(side + 0.5)) for side in sides)
    return height, width


def resize_as_torch(image: npt.NDArray[Any], size: Size) -> npt.NDArray[np.float32]:
    """Resize a picture bilinearly without smoothing and without rounding to grey levels."""
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float()
    resized = F.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    return np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())


def resize_as_pillow(image: npt.NDArray[Any], size: Size) -> npt.NDArray[np.uint8]:
    """Resize a picture bilinearly as Pillow does, which smooths one that shrinks; each channel by itself."""
    channels = [
        np.asarray(
            PIL.Image.fromarray(np.ascontiguousarray(image[:, :, channel])).resize(
                size[::-1], PIL.Image.Resampling.BILINEAR
            )
        )
        for channel in range(image.shape[2])
    ]
    return np.stack(channels, axis=2)


NEIGHBOURS: dict[str, tuple[Callable[[Size, tuple[int, int]], Size], Resizer]] = {
    "torch": (cut_size, resize_as_torch),
    "pillow": (rounded_size, resize_as_pillow),
}
"""By the name of a way to resize: what size a picture gets, and what makes it."""


def draw_limits(
    sizes: Sequence[tuple[int, int]], rng: np.random.Generator, *, between: bool = False
) -> tuple[int, int]:
    """Draw a (longest side, shortest side): one of those given, or between two, each side a whole number.

    >>> draw_limits([(1333, 640), (1333, 800)], np.random.default_rng(0), between=True)
    (1333, 776)
    """
    if between:
        low, high = sizes
        longest, shortest = (int(rng.integers(min(pair), max(pair) + 1)) for pair in zip(low, high, strict=True))
        return longest, shortest
    return sizes[int(rng.integers(len(sizes)))] if len(sizes) > 1 else sizes[0]
