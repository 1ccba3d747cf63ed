"""Training a recipe on a dataset: from names and folders to a run that is finished."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from focaldet.engine.build import find_device
from focaldet.engine.checkpoint import load_recipe, save_recipe
from focaldet.engine.detector import Weights
from focaldet.engine.distributed import Processes, find_place, joined
from focaldet.engine.job import prepare
from focaldet.engine.launch import launched
from focaldet.engine.options import Options
from focaldet.engine.progress import Listener, Quiet
from focaldet.engine.run import Run
from focaldet.engine.trainer import Trainer
from focaldet.errors import UsageError
from focaldet.recipes import Recipe

OPTIONS = tuple(item.name for item in fields(Options))
"""Keywords of `train` that say how to work."""


def train(
    recipe: Recipe | str,
    data: str | Path,
    output: str | Path,
    *,
    format: str | None = None,
    device: torch.device | str = "cpu",
    processes: int = 1,
    weights: Weights = "imagenet",
    resume: bool = False,
    overwrite: bool = False,
    listener: Listener | None = None,
    **changes: Any,
) -> Run:
    """Train a recipe on a dataset; score it after each epoch; leave all in a run folder.

    Where torchrun or srun started this process as one of several, it takes its place among them.

    Args:
        recipe: a name of `focaldet.list_recipes()` or a Recipe.
        data: a dataset's folder or file.
        output: the run folder.
        format: of the data, one of FORMAT_NAMES, where several fit.
        device: where to compute; with several processes "cuda" is a GPU for each.
        processes: how many share the work on this machine; this one starts the others. Each step's pictures are dealt
            to them, so that the result is that of one process up to rounding.
        weights: "imagenet" for the backbone's, None for none, or a file to fine-tune: what fits is taken, class
            channels are joined by name, the rest starts anew; all three are listed.
        resume: go on from `checkpoints/last.pt`, or the one before it if that is cut short.
        overwrite: replace a run that is there.
        listener: hears about progress.
        **changes: how to work, as `Options` has it (workers, max_minutes, save_every, eval_every, patience, compile,
            recompute, channels_last, tensorboard, profile), and fields of the recipe.

    Raises:
        FocaldetError: the data cannot be read, the folder holds a run already, a loss is not finite, or another process
            has ended.
    """
    options = Options(**{name: changes.pop(name) for name in OPTIONS if name in changes})
    found, place = find_device(device), find_place()
    with ExitStack() as stack:
        if processes > 1 and place.count == 1:
            check_devices(found, processes)
            arguments: dict[str, Any] = {
                "recipe": recipe,
                "data": data,
                "output": output,
                "format": format,
                "device": str(device),
            }
            arguments |= {"weights": weights, "resume": resume, "overwrite": overwrite, **vars(options), **changes}
            place = stack.enter_context(launched(processes, arguments))
        if place.count > 1 and found.type == "cuda":
            found = torch.device("cuda", place.local_rank)
            torch.cuda.set_device(found)
        team = stack.enter_context(joined(place, found))
        if resume:
            changes = {}
        trainer = begin(
            recipe, data, Path(output), changes, format, weights, resume, overwrite, found, options, listener, team
        )
        trainer.way_on = command_to_go_on(trainer.recipe.name, data, output, format, device, processes, options)
        return trainer.run()


def command_to_go_on(
    name: str,
    data: str | Path,
    output: str | Path,
    format: str | None,
    device: torch.device | str,
    processes: int,
    options: Options,
) -> str:
    """Return the command line that resumes a run as it was started; the arguments are those of `train`.

    >>> command_to_go_on("retinanet-small", "my data", "run", None, "cpu", 1, Options(workers=2))
    "focaldet train retinanet-small 'my data' --output run --workers 2 --resume"
    """
    words = ["focaldet", "train", name, str(data), *([f"format={format}"] if format else []), "--output", str(output)]
    words += ["--device", str(device)] if str(device) != "cpu" else []
    words += ["--processes", str(processes)] if processes > 1 else []
    return shlex.join([*words, *options.words(), "--resume"])


def begin(
    recipe: Recipe | str,
    data: str | Path,
    folder: Path,
    changes: dict[str, Any],
    format: str | None,
    weights: Weights,
    resume: bool,
    overwrite: bool,
    device: torch.device,
    options: Options,
    listener: Listener | None,
    team: Processes,
) -> Trainer:
    """Return a trainer at the first step to take; the arguments are those of `train`."""
    with team.together():
        if resume:
            recipe = load_recipe(folder / "recipe.yaml")
        elif team.first and (folder / "recipe.yaml").exists() and not overwrite:
            raise UsageError(
                f"{folder} holds a run already; add --resume to go on, --overwrite to replace it, or name another"
            )
    with team.together():
        job = prepare(recipe, data, changes, fitted=resume, format=format)
        trainer = Trainer(job, folder, device, options=options, listener=listener or Quiet(), processes=team)
    if not resume:
        trainer.clear()
    for line in job.notes:
        trainer.say(line)
    with team.together():
        trainer.load() if resume else trainer.start_from(weights)
    if team.first and not resume:
        save_recipe(folder / "recipe.yaml", job.recipe)
    if options.max_minutes is not None:
        trainer.say("the run ends by the clock: it can go on, but two such runs are not equal to the bit")
    return trainer


def check_devices(device: torch.device, processes: int) -> None:
    """Refuse more processes than there are GPUs, or all on one.

    Raises:
        UsageError: each process needs a GPU of its own.
    """
    if device.type != "cuda":
        return
    if device.index is not None:
        raise UsageError(f"{processes} processes need a GPU each; use device cuda instead of {device}")
    if processes > torch.cuda.device_count():
        raise UsageError(f"{processes} processes need a GPU each; this machine has {torch.cuda.device_count()}")
