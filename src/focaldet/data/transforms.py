"""What is done to a sample on its way to the network: resize, mirror, turn, shift, colours.

Geometric steps give matrices; `Pipeline` joins those that follow each other into one, moves the pixels once and the
corners with them. What only resizes and flips goes the way of the published rows instead, step by step
(`published.PublishedSteps`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from focaldet.data.dataset import Bools, Floats
from focaldet.data.published import OriginalSteps, PublishedSteps, Resizing, hboxes_to_corners, keep_ratio_size
from focaldet.data.warp import Matrix, Picture, keeps_axes, place, resize_bilinear, warp
from focaldet.errors import UsageError, did_you_mean
from focaldet.geometry.quads import quad_areas, shared_areas
from focaldet.structures import Sample, Size

__all__ = [
    "Affine",
    "Color",
    "Flip",
    "Geometric",
    "Grey",
    "Pipeline",
    "Resize",
    "Rotate",
    "Rotate90",
    "VFlip",
    "build_transform",
    "move",
    "resize_bilinear",
]

VISIBLE_SHARE = 0.3
"""A box is kept if so much of its area is still in the picture."""

Transform = Callable[[Sample, np.random.Generator], Sample]


class Geometric(ABC):
    """A step that moves pixels: it draws a matrix and a new size. Called by itself it moves a sample."""

    @abstractmethod
    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the 3 x 3 matrix from a picture of this size to the new one, and the new (height, width)."""

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample moved."""
        return move(sample, *self.draw(sample.size, rng))


@dataclass(frozen=True)
class Resize(Geometric):
    """Fit into (longest side, shortest side), the ratio kept; of several one is drawn."""

    sizes: tuple[tuple[int, int], ...]

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the new size."""
        height, width = keep_ratio_size(size, self.sizes[int(rng.integers(len(self.sizes)))])
        return np.diag([width / size[1], height / size[0], 1.0]), (height, width)


@dataclass(frozen=True)
class Flip(Geometric):
    """Mirror left to right."""

    probability: float = 0.5

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the same size."""
        mirror = np.array([[-1.0, 0, size[1]], [0, 1, 0], [0, 0, 1]])
        return (mirror if rng.random() < self.probability else np.eye(3)), size


@dataclass(frozen=True)
class VFlip(Geometric):
    """Mirror top to bottom."""

    probability: float = 0.5

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the same size."""
        mirror = np.array([[1.0, 0, 0], [0, -1, size[0]], [0, 0, 1]])
        return (mirror if rng.random() < self.probability else np.eye(3)), size


@dataclass(frozen=True)
class Rotate90(Geometric):
    """Turn by one, two or three quarters; the picture's sides are swapped by one and three."""

    probability: float = 0.5

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the new size."""
        matrix = np.eye(3)
        quarters = int(rng.integers(1, 4)) if rng.random() < self.probability else 0
        for _ in range(quarters):  # clockwise on the screen: what was below comes to the left
            matrix = np.array([[0.0, -1, size[0]], [1, 0, 0], [0, 0, 1]]) @ matrix
            size = (size[1], size[0])
        return matrix, size


@dataclass(frozen=True)
class Rotate(Geometric):
    """Turn about the middle by any angle, on a canvas of the same size: corners of the picture are lost.

    Upright boxes become the hulls of what they turn into, and so too large; it is meant for rotated objects.

    Attributes:
        largest: angle in radians up to which it turns, either way.
        probability: of doing anything.
    """

    largest: float = np.pi
    probability: float = 0.5

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the same size."""
        if rng.random() >= self.probability:
            return np.eye(3), size
        theta = rng.uniform(-self.largest, self.largest)  # clockwise on the screen, as y points down
        turn = np.array([[np.cos(theta), -np.sin(theta)], [np.sin(theta), np.cos(theta)]])
        middle = np.array([size[1], size[0]]) / 2
        matrix = np.eye(3)
        matrix[:2, :2], matrix[:2, 2] = turn, middle - turn @ middle
        return matrix, size


@dataclass(frozen=True)
class Affine(Geometric):
    """Scale and shift on a canvas of the same size: a larger picture is cropped, a smaller one lies on grey.

    Attributes:
        scales: least and largest factor, drawn evenly in its logarithm.
        probability: of doing anything.
    """

    scales: tuple[float, float] = (0.7, 1.4)
    probability: float = 0.5

    def draw(self, size: Size, rng: np.random.Generator) -> tuple[Matrix, Size]:
        """Return the matrix and the same size."""
        if rng.random() >= self.probability:
            return np.eye(3), size
        scale = float(np.exp(rng.uniform(*np.log(self.scales))))
        # picture within canvas or canvas within picture, at an even place
        shift_x, shift_y = rng.random(2) * (1 - scale) * (size[1], size[0])
        return np.array([[scale, 0, shift_x], [0, scale, shift_y], [0, 0, 1]]), size


@dataclass(frozen=True)
class Color:
    """Change contrast by a factor about the middle grey, and brightness by grey levels.

    Attributes:
        contrast: the factor lies within this of 1.
        brightness: the grey levels added lie within this of 0.
        probability: of doing anything.
    """

    contrast: float = 0.3
    brightness: float = 32.0
    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample with other colours."""
        if rng.random() >= self.probability:
            return sample
        factor, added = 1 + rng.uniform(-1, 1) * self.contrast, rng.uniform(-1, 1) * self.brightness
        levels = (np.arange(256) - 128) * factor + 128 + added
        table = np.rint(levels.clip(0, 255)).astype(np.uint8)
        return replace(sample, image=np.take(table, sample.image))


@dataclass(frozen=True)
class Grey:
    """Give all three channels the picture's luminance; pictures of other channels stay."""

    probability: float = 0.5

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample without colours."""
        if rng.random() >= self.probability or sample.image.shape[2] != 3:
            return sample
        return replace(sample, image=_luminance(sample.image))


def _luminance(image: Picture) -> Picture:
    """Return the picture in grey, by the weights of ITU-R BT.601 in 1/65536."""
    red, green, blue = (image[:, :, channel].astype(np.uint32) for channel in range(3))
    grey = (red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


@dataclass(frozen=True)
class Pipeline:
    """Steps in a row; the matrices of geometric ones that follow each other are multiplied, the pixels moved once."""

    steps: tuple[Transform, ...]

    def __call__(self, sample: Sample, rng: np.random.Generator) -> Sample:
        """Return the sample after all steps."""
        matrix, size = np.eye(3), sample.size
        for step in self.steps:
            if isinstance(step, Geometric):
                drawn, size = step.draw(size, rng)
                matrix = drawn @ matrix
            else:
                sample = step(move(sample, matrix, size), rng)
                matrix, size = np.eye(3), sample.size
        return move(sample, matrix, size)


def move(sample: Sample, matrix: Matrix, size: Size) -> Sample:
    """Move a sample's pixels and corners by a matrix onto a canvas.

    Upright boxes are the corners' enclosing hboxes, cut to the canvas; one that shows less than VISIBLE_SHARE of its
    area, or is thinner than a pixel, is dropped. Rotated objects are kept whole or dropped: their corners may lie
    beyond the canvas.

    Args:
        sample: picture and objects.
        matrix: 3 x 3, from the picture to the canvas; where it takes axes to axes, it is brought to whole pixels.
        size: (height, width) of the canvas.
    """
    if size == sample.size and np.array_equal(matrix, np.eye(3)):
        return sample
    if keeps_axes(matrix):
        placement = place(matrix, sample.size, size)
        matrix, image = placement.matrix, placement.apply(sample.image)
    else:
        image = warp(sample.image, matrix, size)
    moved = sample.corners.astype(np.float64) @ matrix[:2, :2].T + matrix[:2, 2]
    if sample.rotated:
        corners, kept = moved.astype(np.float32), _still_shown(sample, moved, size)
    else:
        corners, kept = _cut(moved, size)
    stretch_x, stretch_y = np.hypot(matrix[0, :2], matrix[1, :2])
    return replace(
        sample,
        image=image,
        corners=corners[kept],
        labels=sample.labels[kept],
        crowd=sample.crowd[kept],
        difficult=sample.difficult[kept],
        scale=(sample.scale[0] * float(stretch_x), sample.scale[1] * float(stretch_y)),
    )


def _cut(corners: Floats, size: Size) -> tuple[npt.NDArray[np.float32], Bools]:
    """Return the corners (N, 4, 2) of the hulls of others, cut to a canvas, and (N,) which show enough."""
    low, high = corners.min(axis=1), corners.max(axis=1)
    limit = np.array([size[1], size[0]], dtype=np.float64)
    visible_low, visible_high = low.clip(0, limit), high.clip(0, limit)
    sides, visible = high - low, visible_high - visible_low
    kept = (visible.prod(axis=1) >= VISIBLE_SHARE * sides.prod(axis=1)) & (visible >= 1).all(axis=1)
    boxes = np.concatenate([visible_low, visible_high], axis=1).astype(np.float32)
    return hboxes_to_corners(boxes), kept


def _still_shown(sample: Sample, moved: Floats, size: Size) -> Bools:
    """Return (N,) which rotated objects are kept, by the share of what the picture shows that the canvas shows too.

    So an object that the border of the picture cuts is not dropped by a mere flip. One thinner than a pixel is.
    """
    before, after = _share_within(sample.corners.astype(np.float64), sample.size), _share_within(moved, size)
    longest = np.linalg.norm(moved - np.roll(moved, 1, axis=1), axis=2).max(axis=1, initial=0)
    return np.asarray((after >= VISIBLE_SHARE * before) & (quad_areas(moved) >= longest))


def _share_within(corners: Floats, size: Size) -> Floats:
    """Return the share (N,) of quadrilaterals (N, 4, 2) that lies within a picture of (height, width)."""
    height, width = size
    frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float64)
    return shared_areas(corners, np.broadcast_to(frame, corners.shape)) / np.maximum(quad_areas(corners), 1e-9)


AUGMENTATIONS: dict[str, Callable[[], Transform]] = {
    "flip": Flip,
    "vflip": VFlip,
    "rotate90": Rotate90,
    "rotate": Rotate,
    "affine": Affine,
    "color": Color,
    "grey": Grey,
}
"""What `augment` may name, in the order in which it is done: first what moves pixels, so that it is one move.

`flip` and `vflip` together are the flips of mmrotate: none, horizontal, vertical and diagonal, a quarter each.
"""
ORIGINAL = "original"
"""What `augment` may name instead, where pictures are resized as TensorFlow 1 did."""


def build_transform(
    sizes: Sequence[tuple[int, int]],
    augment: Sequence[str] = (),
    *,
    train: bool,
    resize: Literal["opencv", "tensorflow", "torch", "pillow"] = "opencv",
    between: bool = False,
    test_resize: Resizing | None = None,
    least: int = 0,
    coloured: int | None = None,
) -> Transform:
    """Return what is done to a sample between the file and the batch.

    Args:
        sizes: (longest side, shortest side), ratio kept; of several one is drawn for each picture.
        augment: names of AUGMENTATIONS, each with probability 0.5; or "original" alone.
        train: False leaves the augmentation out.
        resize: as OpenCV does; as TensorFlow 1 and the original rotated program did (`published.OriginalSteps`); or as
            torchvision or detectron2 do ("torch", "pillow").
        between: draw, of two sizes, each side as a whole number from the one to the other.
        test_resize: the same when not training (`published.OriginalSteps.resize`), by the size rule of `resize`; None:
            as `resize`.
        least: of the original rotated program, the side to which smaller pictures are extended when not training.
        coloured: of its augmentation, the label whose pictures do not become grey.

    Raises:
        UsageError: an augmentation that does not exist, or that does not go with the way of resizing.
    """
    known = [*AUGMENTATIONS, ORIGINAL]
    unknown = [name for name in augment if name not in known]
    if unknown:
        raise UsageError(f"augment={unknown[0]!r} is not known{did_you_mean(unknown[0], known)}")
    wanted = set(augment)
    if resize == "tensorflow":
        if not (wanted <= {"flip"} or wanted == {ORIGINAL}):
            raise UsageError(
                f"resize='tensorflow' goes with augment=[flip], [{ORIGINAL}] or none, not with {', '.join(augment)}"
            )
        if not train:
            return OriginalSteps(tuple(sizes), flip=False, least=least, resize=test_resize or resize)
        return OriginalSteps(tuple(sizes), flip=bool(wanted), augment=ORIGINAL in wanted, coloured=coloured)
    if ORIGINAL in wanted or test_resize not in (None, "opencv"):
        field = f"augment=[{ORIGINAL}]" if ORIGINAL in wanted else f"test_resize={test_resize!r}"
        raise UsageError(f"{field} goes with resize='tensorflow', not with resize={resize!r}")
    if not train or wanted <= {"flip"}:
        return PublishedSteps(tuple(sizes), flip=train and "flip" in wanted, resize=resize, between=train and between)
    if resize != "opencv" or between:
        field = "sizes_drawn='between'" if between else f"resize={resize!r}"
        raise UsageError(f"{field} goes with augment=[flip] or none, not with {', '.join(augment)}")
    steps = (build() for name, build in AUGMENTATIONS.items() if name in wanted)
    return Pipeline((Resize(tuple(sizes)), *steps))
