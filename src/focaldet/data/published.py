"""What the published rows do to their data, step by step, each with its own rounding.

COCO rows: `PublishedSteps` (`shared/spec/horizontal.md` section 10). DOTA rows: `OriginalSteps`, as the original
rotated program does it in TensorFlow (`shared/spec/rotated.md` section 3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from focaldet.data.dataset import Bools, Dataset
from focaldet.data.warp import Picture, resize_bilinear
from focaldet.geometry.resize import resize_legacy
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


@dataclass(frozen=True)
class OriginalSteps:
    """Resize to numbers between the levels, then perhaps flip: all that DOTA rows without augmentation do to a tile.

    Attributes:
        sizes: (longest side, shortest side); of several one is drawn.
        flip: whether to mirror every other picture.
        least: smaller pictures are first extended to this side with black, right and below, as the tests do; 0: never.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool
    least: int = 0

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample as the network is to see it, its picture in float32."""
        limits = self.sizes[int(rng.integers(len(self.sizes)))] if len(self.sizes) > 1 else self.sizes[0]
        sample = replace(sample, image=extend_with_black(sample.image, self.least))
        sample = resize_sample_legacy(sample, short_side_size(sample.size, limits))
        return flip_sample(sample) if self.flip and rng.random() < 0.5 else sample


def short_side_size(size: Size, limits: tuple[int, int]) -> Size:
    """Return the size whose shorter side is as asked, and whose longer side follows in whole pixels up to a limit.

    Where the limit cuts it, the picture is stretched: with equal limits every picture becomes a square.

    Args:
        size: (height, width) of the picture.
        limits: longest side, shortest side.

    >>> short_side_size((45, 60), (100, 80)), short_side_size((600, 340), (800, 800))
    ((80, 100), (800, 800))
    """
    height, width = size
    longest, short = max(limits), min(limits)
    if height < width:
        return short, min(short * width // height, longest)
    return min(short * height // width, longest), short


def extend_with_black(image: Picture, least: int) -> Picture:
    """Return a picture (H, W, channels) of at least `least` pixels a side, black where nothing was, right and below."""
    missing = [max(least - side, 0) for side in image.shape[:2]]
    return np.pad(image, [(0, missing[0]), (0, missing[1]), (0, 0)]) if any(missing) else image


def resize_sample_legacy(sample: Sample, size: Size) -> Sample:
    """Resize a picture as TensorFlow 1 did; corners become whole numbers, then those are scaled and rounded down.

    Args:
        sample: its corners are truncated towards zero, as they are in the program's data files.
        size: new (height, width).
    """
    (height, width), (new_height, new_width) = sample.size, size
    pixels = torch.from_numpy(sample.image.astype(np.float32)).permute(2, 0, 1)[None]
    resized = resize_legacy(pixels, size)[0].permute(1, 2, 0)
    corners = sample.corners.astype(np.int64) * (new_width, new_height) // (width, height)
    return replace(
        sample,
        image=np.ascontiguousarray(resized.numpy()),
        corners=corners.astype(np.float32),
        scale=(sample.scale[0] * (new_width / width), sample.scale[1] * (new_height / height)),
    )


def resize_sample(sample: Sample, size: Size) -> Sample:
    """Resize a picture; boxes are multiplied by the factor of each axis in float32, then clipped to the picture.

    Corners of rotated objects are not clipped: what a border cuts is no rectangle any more.
    """
    (height, width), (new_height, new_width) = sample.size, size
    factors = new_width / width, new_height / height
    if sample.rotated:
        corners = sample.corners * np.array(factors, dtype=np.float32)
    else:
        boxes = sample.hboxes * np.array(factors * 2, dtype=np.float32)
        limits = np.array((new_width, new_height) * 2, dtype=np.float32)
        corners = hboxes_to_corners(boxes.clip(0, limits))
    return replace(
        sample,
        image=resize_bilinear(sample.image, size),
        corners=corners,
        scale=(sample.scale[0] * factors[0], sample.scale[1] * factors[1]),
    )


def flip_sample(sample: Sample) -> Sample:
    """Mirror a picture left to right: x1' = W - x2, x2' = W - x1; of rotated objects x' = W - x for each corner."""
    if sample.rotated:
        mirrored = sample.corners * np.array((-1, 1), np.float32) + np.array((sample.size[1], 0), np.float32)
        return replace(sample, image=sample.image[:, ::-1], corners=mirrored)
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
