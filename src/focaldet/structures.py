"""What one station hands the next: Sample, Truth, Batch, AnchorGrid, StageOutput, StageTargets.

Shape letters, the same in every file: B images, A anchors, G truth boxes, C classes, D numbers of a box (4 or 5).
Sizes are (height, width), points (x, y), boxes in continuous pixels without "+1".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BACKGROUND = -1
"""Owner of an anchor that belongs to no truth box and is trained to say so."""
IGNORED = -2
"""Owner of an anchor that takes no part in the loss."""

Size = tuple[int, int]


@dataclass(frozen=True)
class Truth:
    """What is to be found in one picture.

    Attributes:
        boxes: (G, D) boxes, or (G, 4, 2) polygons as annotated.
        labels: (G,) int64, 0 to C-1.
        ignored: (G,) bool, objects that are neither to be found nor background (crowds); None means none.
    """

    boxes: Tensor
    labels: Tensor
    ignored: Tensor | None = None


@dataclass
class Sample:
    """One picture with its labels, on the way from file to batch; transforms return a new one.

    Attributes:
        image: (H, W, channels) uint8, RGB where there are three; float32 of the same range where rows resize to floats.
        corners: (N, 4, 2) float32 corners of the objects, in pixels of `image`; of an upright box in the order
            (x1, y1) (x2, y1) (x2, y2) (x1, y2).
        labels: (N,) int64.
        crowd: (N,) bool, regions full of objects.
        difficult: (N,) bool.
        id: the picture's number in the dataset's own numbering (COCO's image id).
        index: the picture's position in the dataset.
        name: its file, as shown to users.
        original: (height, width) of the picture in its file, EXIF orientation applied.
        scale: (x, y) factors from the original picture to `image`.
        rotated: whether the corners stand for rotated objects, or else for upright boxes.
    """

    image: npt.NDArray[Any]
    corners: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    difficult: npt.NDArray[np.bool_]
    id: int
    index: int
    name: str
    original: Size
    scale: tuple[float, float] = (1.0, 1.0)
    rotated: bool = False

    @property
    def size(self) -> Size:
        """(height, width) of `image` as it stands."""
        return int(self.image.shape[0]), int(self.image.shape[1])

    @property
    def hboxes(self) -> npt.NDArray[np.float32]:
        """(N, 4) enclosing hboxes of the corners."""
        low, high = self.corners.min(axis=1), self.corners.max(axis=1)
        return np.concatenate([low, high], axis=1).astype(np.float32, copy=False)


@dataclass
class Batch:
    """Pictures of one step, normalized and padded to one size, with all that is known about them.

    Attributes:
        images: (B, channels, H, W) float32, channels in the recipe's own order.
        truths: one per picture, in the frame `input` (pixels of `images`); empty lists of boxes where nothing is known.
        sizes: (height, width) of each picture before padding.
        padded: (height, width) of each picture rounded up by itself; anchors beyond have no place in the loss.
        scales: (B, 2) float64, (x, y) factors from original picture to input.
        originals: (height, width) of each picture in its file.
        ids, indices, names: which pictures these are.
        targets: what the anchors should say, where it was worked out with the batch (fixed anchors), else None.
        assign_seconds: what working it out took.
    """

    images: Tensor
    truths: list[Truth]
    sizes: list[Size]
    padded: list[Size]
    scales: Tensor
    originals: list[Size]
    ids: list[int]
    indices: list[int]
    names: list[str]
    targets: StageTargets | None = None
    assign_seconds: float = 0.0


@dataclass(frozen=True)
class AnchorGrid:
    """Fixed anchors: on every level the same K shapes at every place, never written out unless asked for.

    Place (x, y) of level l has its centre at `offset * stride + start + (x, y) * stride`; x runs fastest, then y, and
    within a place the shapes in their order: anchor index = (y * W + x) * K + shape, levels joined in order.

    Attributes:
        shapes: one float32 tensor a level: (K, 4) hboxes or (K, 5) rboxes around (0, 0).
        strides: pixels between places, one a level.
        sizes: (height, width) of each level's map.
        offset: centre of the first place, in strides.
        start: the same in pixels, where it is one on all levels; added to `offset`.
        coded: the shapes that deltas are relative to, where these are not the assigned ones: one (K, 5) tensor a level,
            the hboxes of `shapes` as rboxes in the angle form of the recipe. None: `shapes` are assigned and coded.
            A function: what makes them of the assigned ones at their places, where the rounding there is to count.
        written: what `level` and `at` do to anchors at their places, (N, D) to (N, 5); None: nothing.
        steps: pixels between places along (y, x), one pair a level, where they are not `strides` on both axes.
    """

    shapes: tuple[Tensor, ...]
    strides: tuple[int, ...]
    sizes: tuple[Size, ...]
    offset: float = 0.0
    start: float = 0.0
    coded: tuple[Tensor, ...] | Callable[[Tensor], Tensor] | None = None
    written: Callable[[Tensor], Tensor] | None = None
    steps: tuple[Size, ...] | None = None

    @property
    def rotated(self) -> bool:
        """Whether the anchors are rboxes."""
        return self.written is not None or self.shapes[0].shape[1] == 5

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Anchors a level."""
        return tuple(h * w * len(s) for (h, w), s in zip(self.sizes, self.shapes, strict=True))

    @property
    def starts(self) -> tuple[float, ...]:
        """Centre of the first place of each level, x and y alike, in pixels."""
        return tuple(self.offset * stride + self.start for stride in self.strides)

    @property
    def places_apart(self) -> tuple[Size, ...]:
        """Pixels between places along (y, x), one pair a level."""
        return self.steps or tuple((stride, stride) for stride in self.strides)

    def level(self, index: int) -> Tensor:
        """Return the (h * w * K, D) float32 anchors of one level, in the frame `input`."""
        (height, width), start, shapes = self.sizes[index], self.starts[index], self.shapes[index]
        step_y, step_x = self.places_apart[index]
        x = torch.arange(width, device=shapes.device, dtype=torch.float32) * step_x + start
        y = torch.arange(height, device=shapes.device, dtype=torch.float32) * step_y + start
        grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
        centres = torch.stack([grid_x, grid_y], dim=-1)
        return self._written(_moved(shapes, centres[:, :, None]).reshape(-1, shapes.shape[1]))

    def levels(self) -> list[Tensor]:
        """Return every level's anchors."""
        return [self.level(index) for index in range(len(self.sizes))]

    def at(self, numbers: Tensor) -> Tensor:
        """Return the (P, D) anchors with the given numbers (levels joined), without writing the others out."""
        device = numbers.device
        kinds = torch.tensor([len(shapes) for shapes in self.shapes], device=device)
        counts, widths = (
            torch.tensor(self.counts, device=device),
            torch.tensor([w for _, w in self.sizes], device=device),
        )
        level = torch.bucketize(numbers, counts.cumsum(0), right=True)
        number = numbers - (counts.cumsum(0) - counts)[level]
        place, kind = number // kinds[level], number % kinds[level]
        centres = torch.stack([place % widths[level], place // widths[level]], dim=-1).float()
        steps, starts = torch.tensor(self.places_apart, device=device).float(), torch.tensor(self.starts, device=device)
        centres = centres * steps[level].flip(1) + starts[level, None]
        shapes = torch.cat(self.shapes).to(device)[(kinds.cumsum(0) - kinds)[level] + kind]
        return self._written(_moved(shapes, centres))

    def as_coded(self) -> AnchorGrid:
        """Return the same grid with the anchors that deltas are relative to."""
        if self.coded is None:
            return self
        if callable(self.coded):
            return replace(self, coded=None, written=self.coded)
        return replace(self, shapes=self.coded, coded=None)

    def _written(self, anchors: Tensor) -> Tensor:
        return anchors if self.written is None else self.written(anchors)

    def places_within(self, size: Size) -> tuple[Size, ...]:
        """Return, a level, how many (rows, columns) of places belong to a picture padded to `size` by itself."""
        return tuple(
            (min(h, -(-size[0] // stride)), min(w, -(-size[1] // stride)))
            for (h, w), stride in zip(self.sizes, self.strides, strict=True)
        )


def _moved(shapes: Tensor, centres: Tensor) -> Tensor:
    """Return hboxes (..., 4) or rboxes (..., 5) moved by (..., 2), with one rounding a number."""
    if shapes.shape[-1] == 4:
        return shapes + torch.cat([centres, centres], dim=-1)
    turned = torch.cat([centres, centres.new_zeros(*centres.shape[:-1], 3)], dim=-1)
    return shapes + turned


@dataclass
class StageOutput:
    """What one stage of a detector says, one tensor a level: views of NHWC maps.

    Attributes:
        logits: (B, A_l, C), before the sigmoid.
        deltas: (B, A_l, D), relative to `anchors`.
        anchors: (1 or B, A_l, D), as coded; in the angle form of the recipe.
        valid: (1 or B, A_l) bool, anchors that count, or None where all do.
        extra: further maps by name.
    """

    logits: list[Tensor]
    deltas: list[Tensor]
    anchors: list[Tensor]
    valid: list[Tensor] | None = None
    extra: dict[str, list[Tensor]] = field(default_factory=dict)

    def flat(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return (logits, deltas, anchors) with the levels joined: (B, A, C), (B, A, D), (1 or B, A, D)."""
        return torch.cat(self.logits, 1), torch.cat(self.deltas, 1), torch.cat(self.anchors, 1)


@dataclass
class StageTargets:
    """What the anchors of one stage should have said, for a batch; sparse, as nearly all of them are background.

    An anchor that is named neither by `positives` nor by `ignored` nor shut out by `valid` is background.
    Flat anchor numbers count picture by picture: `picture * A + anchor`, levels joined.

    Attributes:
        positives: (P,) int64 flat numbers of positive anchors, rising.
        labels: (P,) int64 class of each positive.
        deltas: (P, D) float32, what the box tower should say.
        truths: (P,) int64 which truth box of its picture each positive stands for.
        ignored: (I,) int64 flat numbers of anchors that take no part, rising; apart from `positives`.
        valid: (B, A) bool, anchors whose place belongs to the picture itself, or None where all do.
        num_positives: (B,) int64.
        num_anchors: A.
        masks: what the pixels of each level should say, (B, H, W) int64: 0 background, 1 + label an object, IGNORED no
            part; or None where the stage has no semantic branch.
    """

    positives: Tensor
    labels: Tensor
    deltas: Tensor
    truths: Tensor
    ignored: Tensor
    valid: Tensor | None
    num_positives: Tensor
    num_anchors: int
    masks: list[Tensor] | None = None

    def to(self, device: torch.device | str) -> StageTargets:
        """Return the same targets on another device."""
        return StageTargets(
            positives=self.positives.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
            deltas=self.deltas.to(device, non_blocking=True),
            truths=self.truths.to(device, non_blocking=True),
            ignored=self.ignored.to(device, non_blocking=True),
            valid=None if self.valid is None else self.valid.to(device, non_blocking=True),
            num_positives=self.num_positives.to(device, non_blocking=True),
            num_anchors=self.num_anchors,
            masks=None if self.masks is None else [mask.to(device, non_blocking=True) for mask in self.masks],
        )


def empty_truth(numbers: int = 4) -> Truth:
    """Return a Truth without objects, for boxes of `numbers` numbers."""
    return Truth(torch.zeros(0, numbers), torch.zeros(0, dtype=torch.int64))


def round_up(size: Sequence[int], multiple: int) -> Size:
    """Round (height, width) up to a multiple.

    >>> round_up((800, 1333), 32)
    (800, 1344)
    """
    height, width = size
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple
