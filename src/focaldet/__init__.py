"""Dense detection with focal loss: published tables as recipes that train, score, predict and equal their originals.

The names below are the public ones; each is imported when it is first used, so that `import focaldet` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from focaldet.engine.detector import load
    from focaldet.engine.evaluate import evaluate
    from focaldet.engine.score import score
    from focaldet.errors import FocaldetError
    from focaldet.recipes import get_recipe, list_recipes
    from focaldet.recipes.recipe import Recipe
    from focaldet.report.training import train
    from focaldet.results.detections import Detections
    from focaldet.structures import Truth

    __version__: str

__all__ = [
    "Detections",
    "FocaldetError",
    "Recipe",
    "Truth",
    "__version__",
    "evaluate",
    "get_recipe",
    "list_recipes",
    "load",
    "score",
    "train",
]

_HOMES = {
    "Detections": "results.detections",
    "FocaldetError": "errors",
    "Recipe": "recipes.recipe",
    "Truth": "structures",
    "evaluate": "engine.evaluate",
    "get_recipe": "recipes",
    "list_recipes": "recipes",
    "load": "engine.detector",
    "score": "engine.score",
    "train": "report.training",
}
"""Which module each public name lives in."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("focaldet")
        elif name in _HOMES:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
