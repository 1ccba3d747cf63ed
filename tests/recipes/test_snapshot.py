"""Every resolved recipe, field by field: a change of a base shows, in review, on each row that it moves.

After a change that is meant, write the file again and look at its difference:

    python tests/recipes/test_snapshot.py
"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from focaldet.recipes import RECIPES, Recipe
from focaldet.recipes.dota import DOTA_CLASSES
from focaldet.recipes.mmrotate import CLASSES as MMROTATE_CLASSES
from focaldet.recipes.recipe import COCO_CLASSES
from focaldet.recipes.tables import resolved

LISTS = {COCO_CLASSES: "COCO's 80", DOTA_CLASSES: "DOTA's 15", MMROTATE_CLASSES: "mmrotate's 15"}
SNAPSHOT = Path(__file__).with_name("snapshot.yaml")


def entry(recipe: Recipe) -> dict[str, object]:
    fields = resolved(recipe)
    fields["classes"] = LISTS.get(recipe.classes, fields["classes"])  # they stand once, at the end of the file
    return fields


def snapshot() -> dict[str, object]:
    lists = {name: list(classes) for classes, name in LISTS.items()}
    return {**{name: entry(recipe) for name, recipe in RECIPES.items()}, **lists}


@pytest.mark.parametrize("name", snapshot())
def test_recipe_is_as_it_was(name: str) -> None:
    stored = yaml.safe_load(SNAPSHOT.read_text(encoding="utf-8"))
    assert snapshot()[name] == stored.get(name)


def test_no_recipe_was_lost() -> None:
    assert list(yaml.safe_load(SNAPSHOT.read_text(encoding="utf-8"))) == list(snapshot())


if __name__ == "__main__":
    text = yaml.safe_dump(snapshot(), sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
    SNAPSHOT.write_text(text, encoding="utf-8")
