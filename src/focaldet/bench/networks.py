"""Which networks are measured, and what their pictures show: noise, with so many objects and so many candidates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from focaldet.bench.scenes import objects_anywhere
from focaldet.geometry import rbox_to_polygon
from focaldet.recipes import get_recipe
from focaldet.structures import Size, Truth

NUM_CLASSES = 80
"""Of the COCO rows."""
NUM_OBJECTS = 10
"""In a picture of theirs."""
TILE_OBJECTS = 50
"""In a tile, as in a busy one of DOTA."""
TILE_SIDES = (8.0, 200.0)
"""Pixels: the least and the largest long side of a tile's objects."""


@dataclass(frozen=True)
class Network:
    """A network that every contender builds and runs in its own way.

    Attributes:
        name: what the report calls it.
        recipe: focaldet's.
        truth: makes the objects of a picture of (height, width), always the same.
        passing_share: part of all (anchor, class) pairs whose score exceeds 0.05.
    """

    name: str
    recipe: str
    truth: Callable[[Size], Truth]
    passing_share: float

    @property
    def num_classes(self) -> int:
        """Classes that the network tells apart."""
        return len(get_recipe(self.recipe).classes)


def random_picture(size: Size) -> Tensor:
    """Return a normalized batch (1, 3, H, W) of noise, always the same."""
    return torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))


def random_truth(size: Size, count: int = NUM_OBJECTS) -> Truth:
    """Return some upright objects of every scale within (height, width), always the same."""
    generator = torch.Generator().manual_seed(2)
    limit = torch.tensor([size[1], size[0]])
    extent = (0.03 * 30 ** torch.rand(count, 2, generator=generator)) * limit  # from 3 to 90 % of the picture
    corner = torch.rand(count, 2, generator=generator) * (limit - extent)
    labels = torch.randint(NUM_CLASSES, (count,), generator=generator)
    return Truth(torch.cat([corner, corner + extent], dim=1), labels)


def rotated_truth(size: Size, count: int = TILE_OBJECTS) -> Truth:
    """Return some rotated objects in a tile of (height, width), always the same, as polygons (G, 4, 2).

    Centres lie anywhere in the square of the shorter side. Long sides are 8 to 200 pixels, small ones more often, the
    others up to eight times shorter but 8 at least, and directions are free (`scenes.objects_anywhere`).
    """
    rng = np.random.default_rng(2)
    boxes = torch.from_numpy(objects_anywhere(count, min(size), rng, TILE_SIDES))
    labels = torch.from_numpy(rng.integers(0, ROTATED.num_classes, count))
    return Truth(rbox_to_polygon(boxes).view(-1, 4, 2).float(), labels)


COCO = Network("R-50", "retinanet_r50_1x_coco", random_truth, 3e-4)
"""Some 5,000 candidates of the 16 million pairs of an 800 x 1344 input."""
ROTATED = Network("rotated R-50", "rotated_retinanet_obb_r50_fpn_1x_dota_le90", rotated_truth, 3.4e-4)
"""mmrotate's rotated RetinaNet: 9 anchors a place. As in those below, 1,000 of the pairs of a tile of 1024 x 1024 are
meant to pass, 20 an object; noise makes them 600, 5,200 and 800 there."""
RETINANET_R = Network("RetinaNet-R R-50, 90 anchors", "retinanet-r_r50d_1x_dota", rotated_truth, 3.4e-5)
R3DET = Network("R3Det R-50", "r3det_r50_fpn_1x_dota_oc", rotated_truth, 3.1e-3)
"""mmrotate's: 9 anchors a place, one refine stage, whose boxes, one a place, are the candidates."""
