"""Looking at a picture more than once: at several sizes, and mirrored.

Each look answers for itself, in pixels of the picture as it is; `detector` brings the answers together by one NMS.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from focaldet.data.transforms import Transform
from focaldet.engine.build import build_steps
from focaldet.geometry.hbox import flip_hbox
from focaldet.geometry.rbox import flip_rbox, regularize_rbox
from focaldet.recipes import Recipe
from focaldet.results.detections import Detections
from focaldet.structures import Sample, Size

TTA_FACTORS = (1.0, 0.5, 1.5)
"""Of a recipe's test size, the sizes of test-time augmentation (`shared/spec/horizontal.md` section 9)."""


@dataclass(frozen=True)
class Mirror:
    """One way to see a picture: as it is, or mirrored left to right, upside down or both.

    Attributes:
        horizontal, vertical: which axes are reversed.
    """

    horizontal: bool = False
    vertical: bool = False

    def of(self, sample: Sample) -> Sample:
        """Return a sample with its picture mirrored; objects stay as they are, for nobody asks for them here."""
        steps = [-1 if reverse else 1 for reverse in (self.vertical, self.horizontal)]
        return replace(sample, image=sample.image[:: steps[0], :: steps[1]])

    def back(self, found: Detections, size: Size) -> Detections:
        """Return what was found in a mirrored picture of (height, width) in pixels of the picture as it is."""
        if not (self.horizontal or self.vertical):
            return found
        if found.rotated:
            boxes = regularize_rbox(flip_rbox(found.boxes, size, self.horizontal, self.vertical))
        else:
            boxes = flip_hbox(found.boxes, size, self.horizontal, self.vertical)
        return replace(found, boxes=boxes)


def build_looks(recipe: Recipe) -> tuple[tuple[Transform, ...], tuple[Mirror, ...]]:
    """Return how a recipe looks at a picture when it is not training: what resizes it, a size each, and the mirrors."""
    sizes = recipe.test_sizes or (recipe.test_size,)
    steps = tuple(build_steps(recipe.replace(test_size=size), train=False) for size in sizes)
    mirrors = (Mirror(flip == "horizontal", flip == "vertical") for flip in recipe.test_flips)
    return steps, (Mirror(), *mirrors)


def with_tta(recipe: Recipe, tta: bool) -> Recipe:
    """Return a recipe that looks at each picture many times, or once.

    Many: at the sizes that the recipe names itself, or else at its test size, half of it and one and a half times it;
    each mirrored too, left to right, and where boxes are rotated upside down.
    """
    if not tta:
        return recipe.replace(test_sizes=(), test_flips=())
    flips = ("horizontal",) if recipe.kind == "hbox" else ("horizontal", "vertical")
    return recipe.replace(test_sizes=recipe.test_sizes or tta_sizes(recipe.test_size), test_flips=flips)


def tta_sizes(size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Return the sizes of test-time augmentation for a test size (longest side, shortest side).

    >>> tta_sizes((1333, 800))
    ((1333, 800), (666, 400), (2000, 1200))
    """
    return tuple((round(size[0] * factor), round(size[1] * factor)) for factor in TTA_FACTORS)


def joined(found: Sequence[Detections]) -> Detections:
    """Return the answers of several looks at one picture as one list, best first, with all that is there twice."""
    if len(found) == 1:
        return found[0]
    boxes, scores, labels = (torch.cat([getattr(one, name) for one in found]) for name in ("boxes", "scores", "labels"))
    return Detections(boxes, scores, labels, found[0].classes)
