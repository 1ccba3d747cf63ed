"""Recipes side by side."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from focaldet.recipes import RECIPES, get_recipe
from focaldet.recipes.recipe import Recipe
from focaldet.recipes.tables import (
    diff_table,
    differences,
    differing_fields,
    groups,
    list_tables,
    overview,
    resolved,
    show_table,
    text,
)

ALL = list(RECIPES.values())


def printed(table: Any, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_groups_keep_published_tables_apart_from_ours() -> None:
    names = [[recipe.name for recipe in group] for group in groups(ALL)]
    assert [name for group in names for name in group] == list(RECIPES)
    assert len(names[0]) == 10


def test_differing_fields_are_those_that_differ() -> None:
    rows = groups(ALL)[0]
    found = differing_fields(rows)
    for name in rows[0].to_dict():
        varies = len({repr(getattr(recipe, name)) for recipe in rows}) > 1
        assert varies == (name in found or name in ("name", "row", "reported", "source"))


def test_overview_tells_what_is_a_rows_own() -> None:
    entry = next(entry for entry in overview(ALL) if entry["name"] == "retinanet_r101_2x_coco")
    assert entry["reported"] == 38.9
    assert entry["differs"]["backbone"] == "resnet101"
    assert entry["differs"]["drops"] == [16, 22]


def test_the_list_fits_a_terminal_and_tells_every_difference() -> None:
    shown = printed(list_tables(ALL))
    for recipe in ALL:
        assert recipe.name in shown
    for name in differing_fields(groups(ALL)[0]):
        assert name in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_quirks_that_differ_take_a_column() -> None:
    base = get_recipe("retinanet_r50_1x_coco")
    shown = printed(list_tables([base, base.at("clean").replace(name="other")]), width=160)
    assert "quirks" in shown
    assert "nms_labels=offset" in shown


def test_show_tells_all_fields() -> None:
    recipe = get_recipe("retinanet-small")
    shown = printed(show_table(recipe))
    assert all(name in shown for name in resolved(recipe) if name != "name")


def test_diff_is_symmetric_and_empty_for_equals() -> None:
    one, other = get_recipe("retinanet_r50_1x_coco"), get_recipe("retinanet-small")
    assert differences(one, one) == {}
    assert differences(one, other) == {name: values[::-1] for name, values in differences(other, one).items()}
    assert "peak_lr" in differences(one, one.replace(batch=32))
    assert "mobilenetv2_100" in printed(diff_table(one, other))


def test_lists_of_names_are_no_markup() -> None:
    recipe = get_recipe("retinanet-small").replace(classes=("ship", "harbor"))
    assert "[ship,harbor]" in printed(show_table(recipe))


def test_long_lists_are_shortened() -> None:
    assert text(Recipe(name="x").classes).endswith("... 80 in all]")
