"""The published tables as code: `list_recipes` names them, `get_recipe` returns one."""

from __future__ import annotations

from focaldet.errors import UsageError, did_you_mean
from focaldet.recipes.coco import ROWS as COCO_ROWS
from focaldet.recipes.dota import ROWS as DOTA_ROWS
from focaldet.recipes.mmrotate import ROWS as MMROTATE_ROWS
from focaldet.recipes.neighbours import ROWS as NEIGHBOUR_ROWS
from focaldet.recipes.recipe import Recipe, State
from focaldet.recipes.small import OURS

__all__ = ["RECIPES", "Recipe", "State", "get_recipe", "list_recipes"]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in COCO_ROWS + NEIGHBOUR_ROWS + DOTA_ROWS + MMROTATE_ROWS + OURS
}


def list_recipes() -> list[str]:
    """Return the names of all recipes, published rows first, in the order of their tables."""
    return list(RECIPES)


def get_recipe(name: str, state: State = "published") -> Recipe:
    """Return a recipe by name, in one of its states.

    Raises:
        UsageError: no recipe has that name; the sentence names the nearest.
    """
    if name not in RECIPES:
        hint = did_you_mean(name, RECIPES) or "; `focaldet recipes list` names them all"
        raise UsageError(f"there is no recipe {name!r}{hint}")
    return RECIPES[name].at(state)
