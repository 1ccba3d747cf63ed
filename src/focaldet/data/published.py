"""What the published rows do to their data, step by step, each with its own rounding.

COCO rows: `PublishedSteps` (`shared/spec/horizontal.md` section 10). DOTA rows: `OriginalSteps`, as the original
rotated program does it in TensorFlow (`shared/spec/rotated.md` section 3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from focaldet.data.neighbours import NEIGHBOURS, Neighbour, Resizer, draw_limits
from focaldet.data.opencv import resize_as_opencv, resize_floats_as_opencv, warp_as_opencv
from focaldet.data.warp import Matrix, Picture, resize_bilinear
from focaldet.geometry.resize import resize_legacy
from focaldet.structures import Sample, Size

Boxes = npt.NDArray[np.float32]

GREY_SHARE, TURNED_SHARE = 0.3, 0.6
"""Of the pictures of DOTA rows with augmentation, those that become grey and those that are turned."""
TURNS_DEG = tuple(range(-90, 106, 15))
"""Angles of which one is drawn; zero and, as the original's list ended one step late, 105 are among them."""


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
        resize: as which program, "opencv" (mmdetection), "torch" (torchvision) or "pillow" (detectron2).
        between: draw, of two sizes, each side as a whole number from the one to the other.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool
    resize: Neighbour = "opencv"
    between: bool = False

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample as the network is to see it."""
        limits = draw_limits(self.sizes, rng, between=self.between)
        if self.resize == "opencv":
            sample = resize_sample(sample, keep_ratio_size(sample.size, limits))
        else:
            size_of, resize = NEIGHBOURS[self.resize]
            sample = resize_sample(sample, size_of(sample.size, limits), resize)
        return flip_sample(sample) if self.flip and rng.random() < 0.5 else sample


@dataclass(frozen=True)
class OriginalSteps:
    """What DOTA rows do to a tile: grey, turn, resize between the levels, mirror; rows "without" only the last two.

    Attributes:
        sizes: (longest side, shortest side); of several one is drawn.
        flip: whether to mirror every other picture left to right.
        augment: whether to do the rest of the augmentation too: grey and turns before, upside down behind.
        coloured: label of objects that keep their picture from becoming grey; None: none does.
        least: smaller pictures are first extended to this side with black, right and below, as the tests do; 0: never.
        resize: as TensorFlow 1 did, to float32, or as OpenCV does, to grey levels; "opencv-truncated" is a quirk of the
            original program's tests: pictures that were extended are resized in floats and then cut to whole levels.
    """

    sizes: tuple[tuple[int, int], ...]
    flip: bool
    augment: bool = False
    coloured: int | None = None
    least: int = 0
    resize: Resizing = "tensorflow"

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample as the network is to see it."""
        if self.augment:
            if rng.random() < GREY_SHARE and self.coloured not in sample.labels:
                sample = grey_sample(sample)
            if rng.random() < TURNED_SHARE:
                sample = turn_sample(sample, int(rng.choice(TURNS_DEG)))
        limits = self.sizes[int(rng.integers(len(self.sizes)))] if len(self.sizes) > 1 else self.sizes[0]
        extended = replace(sample, image=extend_with_black(sample.image, self.least))
        as_it_came = self.resize == "opencv-truncated" and extended.image is sample.image
        resize = RESIZERS["opencv" if as_it_came else self.resize]
        sample = resize_sample_original(extended, short_side_size(extended.size, limits), resize)
        sample = flip_sample(sample) if self.flip and rng.random() < 0.5 else sample
        return flip_sample_vertically(sample) if self.augment and rng.random() < 0.5 else sample


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


def resize_sample_original(sample: Sample, size: Size, resize: Resizer) -> Sample:
    """Resize a picture; corners become whole numbers, then those are scaled and rounded down.

    Args:
        sample: its corners are truncated towards zero, as they are in the program's data files.
        size: new (height, width).
        resize: what resizes the picture.
    """
    (height, width), (new_height, new_width) = sample.size, size
    corners = sample.corners.astype(np.int64) * (new_width, new_height) // (width, height)
    return replace(
        sample,
        image=resize(sample.image, size),
        corners=corners.astype(np.float32),
        scale=(sample.scale[0] * (new_width / width), sample.scale[1] * (new_height / height)),
    )


def resize_as_tensorflow(image: npt.NDArray[Any], size: Size) -> npt.NDArray[np.float32]:
    """Resize a picture (H, W, channels) as TensorFlow 1 did, without rounding to grey levels."""
    pixels = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    return np.ascontiguousarray(resize_legacy(pixels, size)[0].permute(1, 2, 0).numpy())


def _resize_truncated(image: Picture, size: Size) -> Picture:
    return resize_floats_as_opencv(image, size).astype(np.uint8)


Resizing = Literal["tensorflow", "opencv", "opencv-truncated"]
RESIZERS: dict[str, Resizer] = {
    "tensorflow": resize_as_tensorflow,
    "opencv": resize_as_opencv,
    "opencv-truncated": _resize_truncated,
}


def grey_sample(sample: Sample) -> Sample:
    """Give all three channels the picture's luminance, not rounded to grey levels; pictures of other channels stay."""
    if sample.image.shape[2] != 3:
        return sample
    red, green, blue = np.moveaxis(sample.image.astype(np.float32), 2, 0)
    grey = red * np.float32(0.299) + green * np.float32(0.587) + blue * np.float32(0.114)
    return replace(sample, image=np.repeat(grey[:, :, None], 3, axis=2))


def turn_sample(sample: Sample, angle_deg: int) -> Sample:
    """Turn a picture about its middle on a canvas that holds all of it, black around; corners become whole numbers.

    Args:
        sample: its corners are truncated towards zero, before and after they are turned.
        angle_deg: counter-clockwise on the screen.
    """
    if angle_deg == 0:
        return sample
    matrix, size = turn_matrix(sample.size, angle_deg)
    corners = np.trunc(sample.corners.astype(np.float64)) @ matrix[:2, :2].T + matrix[:2, 2]
    image = warp_as_opencv(sample.image.astype(np.float32), matrix, size)
    return replace(sample, image=image, corners=np.trunc(corners).astype(np.float32))


def turn_matrix(size: Size, angle_deg: int) -> tuple[Matrix, Size]:
    """Return the 3 x 3 matrix that turns a picture of (height, width), and the (height, width) of the canvas.

    The order of operations decides which corners reach the next whole number.
    """
    height, width = size
    x, y = width // 2, height // 2
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    canvas = int(height * abs(cos) + width * abs(sin)), int(height * abs(sin) + width * abs(cos))
    shift_x = (1 - cos) * x - sin * y + (canvas[1] / 2 - x)
    shift_y = sin * x + (1 - cos) * y + (canvas[0] / 2 - y)
    return np.array([[cos, sin, shift_x], [-sin, cos, shift_y], [0, 0, 1]]), canvas


def resize_sample(sample: Sample, size: Size, resize: Resizer = resize_bilinear) -> Sample:
    """Resize a picture; boxes are multiplied by the factor of each axis in float32, then clipped to the picture.

    Corners of rotated objects are not clipped: what a border cuts is no rectangle any more.

    Args:
        sample: picture and objects.
        size: new (height, width).
        resize: what resizes the picture.
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
        image=resize(sample.image, size),
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


def flip_sample_vertically(sample: Sample) -> Sample:
    """Mirror a picture of rotated objects upside down: y' = H - y for each corner."""
    mirrored = sample.corners * np.array((1, -1), np.float32) + np.array((0, sample.size[0]), np.float32)
    return replace(sample, image=sample.image[::-1], corners=mirrored)


def hboxes_to_corners(boxes: Boxes) -> npt.NDArray[np.float32]:
    """Turn (N, 4) hboxes into (N, 4, 2) corners, clockwise on the screen from the upper left."""
    return boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2)
