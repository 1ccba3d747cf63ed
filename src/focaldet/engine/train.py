"""Training a recipe on a dataset: from names and folders to a run that is finished."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from focaldet.engine.build import find_device
from focaldet.engine.checkpoint import load_recipe, save_recipe
from focaldet.engine.detector import Weights
from focaldet.engine.job import prepare
from focaldet.engine.progress import Listener, Quiet
from focaldet.engine.run import Run
from focaldet.engine.trainer import Trainer
from focaldet.errors import UsageError
from focaldet.recipes import Recipe


def train(
    recipe: Recipe | str,
    data: str | Path,
    output: str | Path,
    *,
    format: str | None = None,
    device: torch.device | str = "cpu",
    workers: int = 0,
    weights: Weights = "imagenet",
    resume: bool = False,
    overwrite: bool = False,
    max_minutes: float | None = None,
    listener: Listener | None = None,
    **changes: Any,
) -> Run:
    """Train a recipe on a dataset; score it after each epoch; leave all in a run folder.

    Args:
        recipe: a name of `focaldet.list_recipes()` or a Recipe.
        data: a dataset's folder or file.
        output: the run folder.
        format: of the data, one of FORMAT_NAMES, where several fit.
        device: where to compute.
        workers: processes that read pictures beside the training.
        weights: "imagenet" for the backbone's, None for none, or a file to fine-tune: what fits is taken, class
            channels are joined by name, the rest starts anew; all three are listed.
        resume: go on from `checkpoints/last.pt`.
        overwrite: replace a run that is there.
        max_minutes: end after this time; the learning rate then follows the clock.
        listener: hears about progress.
        **changes: fields of the recipe.

    Raises:
        FocaldetError: the data cannot be read, the folder holds a run already, or a loss is not finite.
    """
    folder, listener, device = Path(output), listener or Quiet(), find_device(device)
    if resume:
        recipe = load_recipe(folder / "recipe.yaml")
        changes = {}
    elif (folder / "recipe.yaml").exists() and not overwrite:
        raise UsageError(
            f"{folder} holds a run already; add --resume to go on, --overwrite to replace it, or name another"
        )
    job = prepare(recipe, data, changes, fitted=resume, format=format)
    trainer = Trainer(job, folder, device, workers=workers, listener=listener, max_minutes=max_minutes)
    if not resume:
        trainer.clear()
    for line in job.notes:
        trainer.say(line)
    if resume:
        trainer.load(folder / "checkpoints" / "last.pt")
    else:
        trainer.start_from(weights)
        save_recipe(folder / "recipe.yaml", job.recipe)
    return trainer.run()
