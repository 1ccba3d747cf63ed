"""A recipe fitted to data: which pictures training uses, which classes, which schedule."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focaldet.data.dataset import Dataset
from focaldet.data.formats import open_dataset
from focaldet.data.view import training_view
from focaldet.engine.build import change_recipe, fit_recipe
from focaldet.engine.evaluate import refuse_unknown_classes
from focaldet.engine.reach import anchor_reach, missing_answers
from focaldet.engine.schedule import Schedule
from focaldet.errors import FocaldetError
from focaldet.recipes import Recipe, get_recipe


@dataclass
class Job:
    """A recipe fitted to its data, with the data opened: what training starts from."""

    recipe: Recipe
    training: Dataset
    validation: Dataset | None
    notes: list[str] = field(default_factory=list)

    @property
    def schedule(self) -> Schedule:
        """The learning rate over the run."""
        recipe = self.recipe
        return Schedule(
            peak=recipe.peak_lr,
            steps_per_epoch=recipe.steps_per_epoch(len(self.training)),
            epochs=recipe.epochs,
            drops=recipe.drops,
            warmup_steps=recipe.warmup_steps,
            warmup_from=recipe.warmup_from,
            warmup_until=recipe.warmup_until,
            shape=recipe.schedule,
            drop_from=recipe.drop_from,
        )


def prepare(
    recipe: Recipe | str, data: str | Path, changes: dict[str, Any], *, fitted: bool = False, format: str | None = None
) -> Job:
    """Open the data and fit the recipe to it: pictures that training uses, classes and schedule.

    Args:
        recipe: a name, or a Recipe.
        data: a dataset's folder or file.
        changes: fields of the recipe that the user asked for; they stay as they are.
        fitted: whether the recipe is that of a run which goes on, fitted before: then every field stays.
        format: of the data, one of FORMAT_NAMES, where several fit.

    Raises:
        FocaldetError: the data cannot be read, no picture is left to train on, or the validation pictures have a class
            that is not trained.
    """
    recipe = change_recipe(get_recipe(recipe) if isinstance(recipe, str) else recipe, changes)
    asked = tuple(recipe.classes) if fitted or "classes" in changes else None
    dataset = open_dataset(data, "train", kind=recipe.kind, format=format, classes=asked)
    notes = [dataset.describe()]
    training = training_view(
        dataset,
        empty_pictures=recipe.empty_pictures,
        min_picture=recipe.min_picture,
        min_side=recipe.min_side,
        rectangle=recipe.rectangle,
    )
    if len(training) == 0:
        raise FocaldetError(
            f"{data}: no picture is left to train on of {len(dataset)}; none has an object of the classes"
        )
    if len(training) < len(dataset):
        notes.append(
            f"training uses {len(training):,} of {len(dataset):,} pictures (the others hold no object or are tiny)"
        )
    recipe, lines = (recipe, []) if fitted else fit_recipe(recipe, training, changes)
    training = training.with_classes(recipe.classes)
    validation = open_dataset(data, "val", kind=recipe.kind, format=format, classes=asked, missing_ok=True)
    if validation is not None:
        refuse_unknown_classes(recipe.classes, validation)
    if not fitted:
        lines.append(str(anchor_reach(training, recipe)))
        lines += filter(None, [missing_answers(training, recipe)])
    notes += lines + ([] if validation is not None else ["no validation pictures: no AP, no best checkpoint"])
    return Job(recipe, training, validation, notes)
