"""Whether a recipe's anchors and limits fit the objects of a dataset: said before training, where change is cheap."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from focaldet.data.dataset import ANY_CLASS, Dataset
from focaldet.data.published import keep_ratio_size
from focaldet.engine.build import build_anchors, build_assign_rule, build_truth_forms
from focaldet.engine.detector import is_scene
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
    every = wanted_objects(dataset)
    for index in chosen.tolist():
        first, last = dataset.starts[index : index + 2].tolist()
        wanted = every[first:last]
        original = (int(dataset.sizes[index, 0]), int(dataset.sizes[index, 1]))
        size = keep_ratio_size(original, recipe.sizes[0])
        factors = np.array([size[1] / original[1], size[0] / original[0]], dtype=np.float32)
        corners = torch.from_numpy(dataset.corners[first:last][wanted] * factors)
        found = assign(shapes.grid_for(round_up(size, recipe.pad)), forms.to_assign(corners), rule)
        reached += len(np.unique(found.truths.numpy()))
        objects += len(corners)
    return Reach(reached, objects, len(chosen))


def missing_answers(dataset: Dataset, recipe: Recipe) -> str | None:
    """Say so if a picture has more objects than the recipe answers; None: none has.

    Scenes are left out: they are looked at tile by tile, and each tile has its own answers.
    """
    most = recipe.max_detections
    until = np.concatenate([[0], wanted_objects(dataset).cumsum()])
    scenes = np.array([is_scene(recipe, size) for size in dataset.sizes.tolist()], dtype=bool)
    objects = np.where(scenes, 0, np.diff(until[dataset.starts]))
    fullest = int(objects.argmax())
    if most is None or objects[fullest] <= most:
        return None
    return (
        f"{dataset.path(fullest)} has {objects[fullest]} objects, but the recipe answers at most max_detections={most} "
        "a picture, so the rest cannot be found; set it higher"
    )


def wanted_objects(dataset: Dataset) -> npt.NDArray[np.bool_]:
    """Return (N,) which objects a detector is asked for: those that nobody ignores."""
    wanted: npt.NDArray[np.bool_] = ~(dataset.crowd | dataset.difficult | (dataset.labels == ANY_CLASS))
    return wanted
