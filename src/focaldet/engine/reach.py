"""Whether the anchors of a recipe fit the objects of a dataset: said before training, where it is cheap to change."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from focaldet.data.dataset import ANY_CLASS, Dataset
from focaldet.data.published import keep_ratio_size
from focaldet.engine.build import build_anchors, build_assign_rule, build_truth_forms
from focaldet.recipes import Recipe
from focaldet.structures import round_up
from focaldet.targets.assign import assign

MOST_PICTURES = 400
"""Of a larger dataset, so many are looked at, evenly spaced."""


@dataclass(frozen=True)
class Reach:
    """How many objects the anchors reach without being forced to.

    Attributes:
        reached: objects that own an anchor by its IoU alone.
        objects: those looked at; ignored ones are not.
        pictures: those looked at.
    """

    reached: int
    objects: int
    pictures: int

    def __str__(self) -> str:
        share = 100 * self.reached / max(self.objects, 1)
        return (
            f"anchors: {share:.1f} % of {self.objects:,} objects in {self.pictures:,} pictures own an anchor by its "
            "IoU alone"
        )


def anchor_reach(dataset: Dataset, recipe: Recipe) -> Reach:
    """Count the objects that some anchor overlaps by at least the recipe's `positive`, at its first training size.

    An object whose only such anchors belong to others is not counted as reached.
    """
    shapes, forms = build_anchors(recipe), build_truth_forms(recipe)
    rule = replace(build_assign_rule(recipe), claim="none", ignored_iof=None)
    chosen = np.unique(np.linspace(0, len(dataset) - 1, min(len(dataset), MOST_PICTURES)).astype(int))
    reached = objects = 0
    for index in chosen.tolist():
        first, last = dataset.starts[index : index + 2].tolist()
        wanted = ~(dataset.crowd | dataset.difficult | (dataset.labels == ANY_CLASS))[first:last]
        original = (int(dataset.sizes[index, 0]), int(dataset.sizes[index, 1]))
        size = keep_ratio_size(original, recipe.sizes[0])
        factors = np.array([size[1] / original[1], size[0] / original[0]], dtype=np.float32)
        corners = torch.from_numpy(dataset.corners[first:last][wanted] * factors)
        found = assign(shapes.grid_for(round_up(size, recipe.pad)), forms.to_assign(corners), rule)
        reached += len(np.unique(found.truths.numpy()))
        objects += len(corners)
    return Reach(reached, objects, len(chosen))
