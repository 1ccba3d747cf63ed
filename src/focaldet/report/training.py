"""Training that ends with a page: what `focaldet.train` and `focaldet train` do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from focaldet.engine.distributed import find_place
from focaldet.engine.run import Run
from focaldet.engine.train import train as train_only
from focaldet.recipes import Recipe
from focaldet.report.run import report_run


def train(recipe: Recipe | str, data: str | Path, output: str | Path, **options: Any) -> Run:
    """Train a recipe on a dataset, score it after each epoch, and write `report.html` into the run folder.

    Args:
        recipe: a name of `focaldet.list_recipes()` or a Recipe.
        data: a dataset's folder or file.
        output: the run folder.
        **options: those of `focaldet.engine.train.train` (format, device, processes, weights, resume, overwrite,
            listener, and how to work: workers, max_minutes, save_every, ...), and fields of the recipe to change.

    Raises:
        FocaldetError: the data cannot be read, the folder holds a run already, or a loss is not finite.
    """
    run = train_only(recipe, data, output, **options)
    if find_place().rank > 0:
        return run  # the first process writes the page
    page = {name: options[name] for name in ("format", "device", "workers", "listener") if name in options}
    report_run(run.folder, data, **page)
    return run
