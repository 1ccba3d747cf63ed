"""Computing a failure again: `focaldet train --replay RUN/failure.pt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from focaldet.engine.build import build_model, find_device
from focaldet.engine.checkpoint import load_checkpoint
from focaldet.engine.failure import Replay, bad_gradients, batch_from_dict, seed_group
from focaldet.engine.forward import Forward
from focaldet.engine.options import Options
from focaldet.engine.stopwatch import Stopwatch
from focaldet.errors import FocaldetError
from focaldet.models.weights import load_strict
from focaldet.recipes import Recipe


def replay(path: str | Path, device: torch.device | str = "cpu") -> Replay:
    """Compute the loss and the gradient of a kept failure again, term by term.

    On the device and versions of the run, every term comes out the same to the bit.

    Args:
        path: the `failure.pt` that a run left.
        device: where to compute.

    Raises:
        FocaldetError: the file is missing, cut short or of another kind.
    """
    state = load_checkpoint(Path(path))
    if "terms" not in state:
        raise FocaldetError(f"{path} is a checkpoint, not a failure that a run kept; give its failure.pt")
    recipe, where = Recipe.from_dict(state["recipe"]), find_device(device)
    forward = _forward(recipe, state, where)
    batch = batch_from_dict(state["batch"])
    seed_group(recipe.seed, state["step"], state["group"])
    losses = forward(batch, state["group"])
    losses["loss"].backward()  # type: ignore[no-untyped-call]
    now = {name: float(value.detach()) for name, value in losses.items()}
    return Replay(state["step"], batch.names, state["terms"], now, bad_gradients(forward.model))


def _forward(recipe: Recipe, state: dict[str, Any], device: torch.device) -> Forward:
    model = build_model(recipe).to(device).to(memory_format=torch.channels_last)
    load_strict(model, state["model"], recipe.classes, recipe.classes)
    forward = Forward(recipe, model.train(), device, Options(), Stopwatch(device, on=False))
    forward.criterion.average.load_state_dict(state["normalizers"])
    return forward
