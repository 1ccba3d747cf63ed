"""Saving and loading: a file is written beside its place and renamed, so that the last good one survives anything.

Two kinds of file. `checkpoints/*.pt` hold all that resuming needs and open with `weights_only=True`;
`model.safetensors` holds weights, recipe and class names: enough to predict.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
import yaml
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.recipes import Recipe
from focaldet.results.files import write_beside

FORMAT = 2
"""Raised when a checkpoint's layout changes."""


def save_checkpoint(path: Path, state: dict[str, Any], *, keep: Path | None = None) -> None:
    """Save tensors, numbers, strings and containers of them, atomically.

    Args:
        path: where.
        state: what.
        keep: a second name for the file that stands at `path` so far.
    """
    with write_beside(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch wraps a full disk into a RuntimeError of its zip writer
            raise OSError(f"the disk took only a part ({error.args[0].splitlines()[0]})") from error
        if keep is not None and path.exists():
            keep_as(path, keep)


def keep_as(path: Path, keep: Path) -> None:
    """Let a file be found under a second name, whatever becomes of the first; `path` stays where it is."""
    beside = keep.with_name(f".{keep.name}.{os.getpid()}.part")
    try:
        os.link(path, beside)
    except OSError:  # a file system without links
        shutil.copyfile(path, beside)
    beside.replace(keep)


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load what `save_checkpoint` wrote; nothing in the file is ever executed.

    Raises:
        FocaldetError: the file is missing, cut short or of another kind.
    """
    if not path.is_file():
        raise FocaldetError(f"there is no checkpoint {path}")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise FocaldetError(f"{path} is no complete checkpoint of focaldet; it may have been cut short") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise FocaldetError(f"{path} is no checkpoint of this version of focaldet")
    return state


class Checkpoints:
    """The checkpoints of a run: `last.pt`, the one before it, `previous.pt`, and `best.pt`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "checkpoints"
        self.last, self.previous, self.best = (self.folder / f"{name}.pt" for name in ("last", "previous", "best"))

    def clear(self) -> None:
        """Remove all: what an earlier run left would pass for this one's."""
        for path in (self.last, self.previous, self.best):
            path.unlink(missing_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Make a state the last one; the one before it is kept. At no moment is there none."""
        save_checkpoint(self.last, state, keep=self.previous)

    def save_best(self, state: dict[str, Any]) -> None:
        """Make a state the best one."""
        save_checkpoint(self.best, state)

    def load(self, device: torch.device | str, say: Callable[[str], None]) -> dict[str, Any]:
        """Load the last state that is whole, and say so if it is not the last one.

        Raises:
            FocaldetError: there is none; the sentence is that of the last one.
        """
        try:
            return load_checkpoint(self.last, device)
        except FocaldetError as error:
            if not self.previous.is_file():
                raise
            state = load_checkpoint(self.previous, device)
            say(f"{error}; it is skipped, and the run goes on from {self.previous.name}, which is whole")
            return state


def save_weights(path: Path, weights: dict[str, Tensor], recipe: Recipe, terms: str = "") -> None:
    """Save weights with their recipe (class names included) as safetensors, atomically."""
    metadata = {"focaldet": str(FORMAT), "recipe": json.dumps(recipe.to_dict()), "terms": terms}
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    with write_beside(path) as file:
        file.write(safetensors.torch.save(plain, metadata))


def load_weights(path: Path) -> tuple[dict[str, Tensor], Recipe | None]:
    """Load a safetensors file; the recipe is None where the file is not one of ours.

    Raises:
        FocaldetError: the file is missing or cut short.
    """
    if not path.is_file():
        raise FocaldetError(f"there is no weights file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError) as error:
        raise FocaldetError(f"{path} is no complete safetensors file ({error})") from error
    recipe = Recipe.from_dict(json.loads(metadata["recipe"])) if "recipe" in metadata else None
    return weights, recipe


def save_recipe(path: Path, recipe: Recipe) -> None:
    """Write every field of a recipe as YAML, atomically."""
    with write_beside(path, "w") as file:
        yaml.safe_dump(recipe.to_dict(), file, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def load_recipe(path: Path) -> Recipe:
    """Read a `recipe.yaml`.

    Raises:
        FocaldetError: the file is missing, no YAML, or holds fields that no recipe has.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Recipe.from_dict(values)
    except FileNotFoundError as error:
        raise FocaldetError(f"there is no {path}; a run folder holds recipe.yaml") from error
    except (yaml.YAMLError, TypeError) as error:
        raise FocaldetError(f"{path} is no recipe ({str(error).splitlines()[0]})") from error


def rng_state() -> dict[str, Any]:
    """Return the state of every random generator of this process, as tensors and integers."""
    version, keys, gauss = random.getstate()
    numpy_state = np.random.get_state(legacy=False)
    state: dict[str, Any] = {
        "python": {"version": version, "keys": list(keys), "gauss": gauss},
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put every random generator back to where `rng_state` found it."""
    python, numpy_state = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["keys"]), python["gauss"]))
    key = numpy_state["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(
        {
            "bit_generator": "MT19937",
            "state": {"key": key, "pos": numpy_state["pos"]},
            "has_gauss": numpy_state["has_gauss"],
            "gauss": numpy_state["gauss"],
        }
    )
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
