"""A detector's weights in one program's file -> the same in another's, whole or not at all."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focaldet.engine.build import build_model
from focaldet.engine.checkpoint import load_recipe, save_weights
from focaldet.engine.weights import GivenWeights, read_weights
from focaldet.errors import FocaldetError, UsageError, did_you_mean
from focaldet.models.weights import from_ours, load_strict
from focaldet.recipes import Recipe, get_recipe
from focaldet.results.files import write_beside

TARGETS = {
    "focaldet": (".safetensors",),
    "mmdetection": (".pth",),
    "torchvision": (".pth",),
    "detectron2": (".pkl", ".pth"),
}
"""Programs whose files can be written, and how these end."""
OWN_RECIPES = {"detectron2": "retinanet_r50_detectron2", "torchvision": "retinanet_r50_torchvision"}
"""What weights of a program are taken for, where no recipe is named."""

PLAIN_RESNET = re.compile(r"resnet(18|34|50|101|152)|resnext(50|101|152)_\d+x\d+d")
"""Backbones that all three programs have, under names of their own."""
NEEDS: dict[str, dict[str, Sequence[Any]]] = {
    "mmdetection": {"neck": ("fpn",), "neck_norm": ("none",), "head_norm": ("none",)},
    "torchvision": {
        "kind": ("hbox",),
        "style": ("pytorch",),
        "neck": ("fpn",),
        "neck_norm": ("none",),
        "levels": ((3, 4, 5, 6, 7),),
        "p7_relu": (True,),
        "anchors": ("whole",),
    },
    "detectron2": {
        "kind": ("hbox",),
        "neck": ("fpn",),
        "neck_norm": ("none",),
        "head_norm": ("none",),
        "levels": ((3, 4, 5, 6, 7),),
        "p7_relu": (True,),
        "anchors": ("octave",),
    },
}
"""Values of a recipe's fields under which a program can compute the same; with others its answers would differ."""


@dataclass(frozen=True)
class WeightConversion:
    """What was written.

    Attributes:
        target: the file.
        format: whose names it has.
        recipe: what the weights are those of.
        entries: how many.
    """

    target: Path
    format: str
    recipe: str
    entries: int

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as a json document."""
        return {"target": str(self.target), "format": self.format, "recipe": self.recipe, "entries": self.entries}


def convert_weights(
    source: str | Path,
    target: str | Path,
    format: str | None = None,
    *,
    recipe: str | None = None,
    overwrite: bool = False,
) -> WeightConversion:
    """Write a detector's weights under the names, and in the layout, of another program.

    Args:
        source: a run folder, a file of ours, or one of any known program.
        target: the file to write.
        format: whose, one of TARGETS; None where the ending of `target` tells it.
        recipe: what foreign weights are those of, a recipe's name or `.yaml`; None where it is plain.
        overwrite: replace what is there.

    Raises:
        UsageError: a format that does not exist or goes with another ending, or a target that is there.
        FocaldetError: the weights cannot be read or do not fit the recipe, which lists what is missing, left over or of
            another shape; or the other program would compute something else with them.
    """
    target = Path(target)
    chosen = _check_target(target, format, overwrite)
    given = read_weights(source)
    of_which = _recipe_of(given, source, recipe)
    check_allowed(of_which, chosen)
    model = build_model(of_which)
    load_strict(model, given.state, of_which.classes)
    state = {key: value for key, value in model.state_dict().items() if key in given.state or chosen != "detectron2"}
    _write(target, chosen, state, of_which)
    return WeightConversion(target, chosen, of_which.name, len(state))


def _check_target(target: Path, format: str | None, overwrite: bool) -> str:
    """Return the target's format, if it can be written there."""
    fitting = [name for name, suffixes in TARGETS.items() if target.suffix in suffixes]
    if format is not None and format not in TARGETS:
        raise UsageError(
            f"weights cannot be written as {format!r}{did_you_mean(format, TARGETS)}; use {', '.join(TARGETS)}"
        )
    if format is not None and format not in fitting:
        raise UsageError(f"weights of {format} end in {' or '.join(TARGETS[format])}; {target} does not")
    if format is None and len(fitting) != 1:
        raise UsageError(f"whose weights {target} should be is not clear; name one by --format: {', '.join(TARGETS)}")
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already; add --overwrite to replace it, or name another")
    return format or fitting[0]


def _recipe_of(given: GivenWeights, source: str | Path, named: str | None) -> Recipe:
    """Return what weights are those of, with the classes that they know."""
    if given.recipe is not None and named is None:
        return given.recipe
    name = named or OWN_RECIPES.get(given.dialect)
    if name is None:
        raise UsageError(
            f"{source} holds weights of {given.dialect}, which do not say what network they are of; "
            "name its recipe by --recipe (`focaldet recipes list` has them)"
        )
    if name == OWN_RECIPES["torchvision"] and named is None and "head.class_tower.0.norm.weight" in given.state:
        name = f"{name}-v2"
    recipe = load_recipe(Path(name)) if name.endswith((".yaml", ".yml")) else get_recipe(name)
    return recipe.replace(classes=given.classes) if given.classes else recipe


def check_allowed(recipe: Recipe, format: str) -> None:
    """Refuse what another program would compute something else with, or has no names for.

    Raises:
        FocaldetError: the sentence names the fields.
    """
    if format == "focaldet":
        return
    if not PLAIN_RESNET.fullmatch(recipe.backbone):
        raise FocaldetError(
            f"{format} has no names for backbone={recipe.backbone}; it has them for ResNets and ResNeXts"
        )
    if recipe.refine_stages:
        raise FocaldetError(f"{format} has no names for the refine stages of {recipe.name}")
    needs = NEEDS[format]
    wrong = [name for name, values in needs.items() if getattr(recipe, name) not in values]
    if wrong:
        have = ", ".join(f"{name}={getattr(recipe, name)!r}" for name in wrong)
        would = ", ".join(f"{name}={needs[name][0]!r}" for name in wrong)
        raise FocaldetError(
            f"{format} would compute something else with weights of {recipe.name}: they are for {have}, it has {would}"
        )


def _write(target: Path, format: str, state: Mapping[str, Tensor], recipe: Recipe) -> None:
    if format == "focaldet":
        save_weights(target, dict(state), recipe)
        return
    theirs = {key: value.detach().cpu().contiguous() for key, value in from_ours(state, format).items()}
    with write_beside(target) as file:
        if format == "detectron2" and target.suffix == ".pkl":
            arrays = {key: value.numpy() for key, value in theirs.items()}
            pickle.dump({"model": arrays, "__author__": "focaldet"}, file)
        elif format == "mmdetection":
            names = {"CLASSES": recipe.classes}  # 2.x looks for them here, 3.x in a dict of its own
            torch.save(
                {"meta": {**names, "dataset_meta": {**names, "classes": recipe.classes}}, "state_dict": theirs}, file
            )
        else:
            torch.save({"model": theirs} if format == "detectron2" else theirs, file)
