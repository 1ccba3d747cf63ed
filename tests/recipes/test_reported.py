"""Figures of single classes, whose means are those of the table."""

from __future__ import annotations

import pytest

from focaldet.recipes.dota import ROWS
from focaldet.recipes.recipe import Recipe
from focaldet.recipes.reported import BY_ROW, CLASSES, reported_classes


@pytest.mark.parametrize("recipe", [row for row in ROWS if row.row in BY_ROW], ids=lambda recipe: recipe.name)
def test_the_mean_is_what_the_table_reports(recipe: Recipe) -> None:
    figures = reported_classes(recipe)
    assert tuple(figures) == CLASSES and set(figures) == set(recipe.classes)
    assert sum(figures.values()) / 15 == pytest.approx(recipe.reported, abs=0.006)  # two decimals each
