"""Weights as a user gives them: a file of ours, one of another program, or a state dict; told by what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from focaldet.engine.checkpoint import FORMAT, load_checkpoint, load_weights
from focaldet.errors import FocaldetError
from focaldet.models.pickled import read_pickled
from focaldet.models.tensorflow import read_variables
from focaldet.models.weights import recognize_dialect, to_ours
from focaldet.recipes import Recipe
from focaldet.recipes.recipe import COCO_CLASSES

NAMELESS = ("torchvision", "detectron2")
"""Dialects whose files name no classes; of 80 classes they are taken for COCO's, as those of all published files."""


@dataclass(frozen=True)
class GivenWeights:
    """Weights with what is known about them.

    Attributes:
        state: entries under our names.
        dialect: whose names they had.
        classes: names of the classes in the order of the channels, where that is known.
        recipe: what they were trained with, where the file is one of ours.
    """

    state: Mapping[str, Tensor]
    dialect: str
    classes: tuple[str, ...] | None = None
    recipe: Recipe | None = None


def read_weights(weights: str | Path | Mapping[str, Tensor]) -> GivenWeights:
    """Read weights from a run folder, a file or a state dict, and bring them under our names.

    Args:
        weights: a run folder; `.safetensors` or a checkpoint of ours; `.pth` or `.pkl` of another program; `.npz` of
            TensorFlow variables; or entries by name.

    Raises:
        FocaldetError: there is no such file, it was cut short, or its names are those of no known detector.
    """
    if isinstance(weights, Mapping):
        return translate(weights)
    path = Path(weights)
    if path.is_dir():
        path = path / "model.safetensors"
    if path.suffix == ".safetensors":
        state, recipe = load_weights(path)
        return _ours(state, recipe) if recipe else translate(state, path=path)
    if path.suffix == ".npz":
        return translate(read_variables(path), path=path)
    pickled = read_pickled(path)
    if pickled.rest.get("format") == FORMAT and isinstance(pickled.rest.get("recipe"), dict):
        checkpoint = load_checkpoint(path)
        kept = checkpoint["average"] or checkpoint  # what was scored, where the run averaged its weights
        return _ours(kept["model"], Recipe.from_dict(checkpoint["recipe"]))
    return translate(pickled.state, named_classes(pickled.rest.get("meta")), path)


def _ours(state: Mapping[str, Tensor], recipe: Recipe) -> GivenWeights:
    return GivenWeights(state, "focaldet", recipe.classes, recipe)


def translate(
    state: Mapping[str, Tensor], classes: tuple[str, ...] | None = None, path: Path | None = None
) -> GivenWeights:
    """Recognize the dialect of a state dict and give its entries our names.

    Args:
        state: entries under the names of any known dialect.
        classes: their names, where the file says them.
        path: where they are from, for the message.

    Raises:
        FocaldetError: the names are those of no known detector.
    """
    try:
        dialect = recognize_dialect(state)
        ours = to_ours(state, dialect)
    except FocaldetError as error:
        raise FocaldetError(f"{path}: {error}") from None if path else error
    if classes is None and dialect in NAMELESS and num_classes(ours) == len(COCO_CLASSES):
        classes = COCO_CLASSES
    return GivenWeights(ours, dialect, classes)


def num_classes(state: Mapping[str, Tensor]) -> int | None:
    """Return for how many classes entries under our names speak, of upright boxes; None where it is not to be told."""
    logits, deltas = (state.get(f"head.{name}.bias") for name in ("logits", "deltas"))
    return None if logits is None or deltas is None else 4 * len(logits) // max(len(deltas), 1)


def named_classes(meta: Any) -> tuple[str, ...] | None:
    """Return the names of classes that the "meta" of mmdetection's files holds, in 2.x by itself, in 3.x in a dict.

    >>> named_classes({"CLASSES": ["ship", "car"]}), named_classes({"dataset_meta": {"classes": ("ship",)}})
    (('ship', 'car'), ('ship',))
    """
    if not isinstance(meta, dict):
        return None
    for place in (meta, meta.get("dataset_meta")):
        for name in ("CLASSES", "classes"):
            names = place.get(name) if isinstance(place, dict) else None
            if isinstance(names, (list, tuple)) and names and all(isinstance(item, str) for item in names):
                return tuple(names)
    return None
