"""What the COCO rows do to their data, step by step, each with its own rounding (spec section 10)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from focaldet.data.dataset import Bools, Dataset
from focaldet.data.warp import resize_bilinear
from focaldet.structures import Sample, Size

Boxes = npt.NDArray[np.float32]


def keep_ratio_size(size: Size, limits: tuple[int, int]) -> Size:
    """Return the size at which a picture just fits: each side times one factor, plus a half, cut to a whole number.

    Args:
        size: (height, width) of the picture.
        limits: longest side, shortest side.

    >>> keep_ratio_size((480, 640), (1333, 800))
    (800, 1067)
    """
    height, width = size
    # the order of these operations decides the last bit and so, now and then, a pixel
    factor = min(max(limits) / max(height, width), min(limits) / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


@dataclass(frozen=True)
class PublishedSteps:
    """Resize, then perhaps flip: all that the rows do before they normalize.

    Attributes:
        sizes: (longest side, shortest side); of several one is drawn.
        flip: whether to mirror every other picture.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample as the network is to see it."""
        limits = self.sizes[int(rng.integers(len(self.sizes)))] if len(self.sizes) > 1 else self.sizes[0]
        sample = resize_sample(sample, keep_ratio_size(sample.size, limits))
        return flip_sample(sample) if self.flip and rng.random() < 0.5 else sample


def resize_sample(sample: Sample, size: Size) -> Sample:
    """Resize a picture; boxes are multiplied by the factor of each axis in float32, then clipped to the picture."""
    (height, width), (new_height, new_width) = sample.size, size
    factors = new_width / width, new_height / height
    boxes = sample.hboxes * np.array(factors * 2, dtype=np.float32)
    limits = np.array((new_width, new_height) * 2, dtype=np.float32)
    return replace(
        sample,
        image=resize_bilinear(sample.image, size),
        corners=hboxes_to_corners(boxes.clip(0, limits)),
        scale=(sample.scale[0] * factors[0], sample.scale[1] * factors[1]),
    )


def flip_sample(sample: Sample) -> Sample:
    """Mirror a picture left to right: x1' = W - x2, x2' = W - x1."""
    boxes = sample.hboxes
    boxes[:, [0, 2]] = np.float32(sample.size[1]) - boxes[:, [2, 0]]
    return replace(sample, image=sample.image[:, ::-1], corners=hboxes_to_corners(boxes))


def hboxes_to_corners(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Turn (N, 4) hboxes into (N, 4, 2) corners, clockwise on the screen from the upper left."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)


def trainable_objects(dataset: Dataset) -> Bools:
    """Return (N,) which objects the rows train on.

    Not those marked `ignore`, outside their picture, of no area, or thinner than a pixel. Crowds stay: they are told
    apart later. The area is the file's, which need not be that of the box.
    """
    x, y, width, height = dataset.boxes.T
    limits = dataset.sizes[dataset.object_pictures]
    inside_x = np.minimum(x + width, limits[:, 1]) - np.maximum(x, 0)
    inside_y = np.minimum(y + height, limits[:, 0]) - np.maximum(y, 0)
    wanted: Bools = ~dataset.ignore & (inside_x > 0) & (inside_y > 0)
    wanted &= (dataset.areas > 0) & (width >= 1) & (height >= 1)
    return wanted


def training_view(dataset: Dataset, *, empty_pictures: bool = False, min_side: int = 32) -> Dataset:
    """Return what the rows train on: pictures with any annotation at all, not too small, and their fit objects.

    Args:
        dataset: as read, in the classes that are asked for.
        empty_pictures: keep pictures without annotations too.
        min_side: pixels that the shorter side must have.
    """
    wanted = dataset.sizes.min(axis=1) >= min_side
    if not empty_pictures:
        wanted &= dataset.counts > 0
    return dataset.keep_objects(trainable_objects(dataset)).select(np.flatnonzero(wanted))
