"""Recipes side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from rich.console import Console

from focaldet.recipes import RECIPES, get_recipe
from focaldet.recipes.dota import ROWS as DOTA_ROWS
from focaldet.recipes.recipe import Recipe
from focaldet.recipes.tables import (
    IDENTITY,
    diff_table,
    differences,
    differing_fields,
    groups,
    list_tables,
    overview,
    resolved,
    show_table,
    shown,
    text,
)

ALL = list(RECIPES.values())


def printed(table: Any, width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def tables_of(recipes: Sequence[Recipe]) -> list[Any]:
    tables: Any = list_tables(recipes)
    return list(tables.renderables)


def test_groups_are_of_one_model_and_paper() -> None:
    names = [[recipe.name for recipe in group] for group in groups(ALL)]
    assert [name for group in names for name in group] == list(RECIPES)
    # COCO's table and what else there is, torchvision's, detectron2's; DOTA's RetinaNet-H, RetinaNet-R, R3Det, R3Det*,
    # R3Det++; mmrotate's RetinaNet and R3Det; ours
    assert [len(group) for group in names[:-1]] == [10, 11, 2, 1, 8, 3, 5, 3, 4, 3]
    assert len(groups([recipe for recipe in ALL if not recipe.published])) == 1


def test_differing_fields_are_those_that_differ() -> None:
    rows = groups(ALL)[0]
    found = differing_fields(rows)
    for name in rows[0].to_dict():
        varies = len({repr(getattr(recipe, name)) for recipe in rows}) > 1
        assert name in IDENTITY or varies == (name in found)


def test_overview_tells_what_is_a_rows_own() -> None:
    entry = next(entry for entry in overview(ALL) if entry["name"] == "retinanet_r101_2x_coco")
    assert entry["reported"] == 38.9
    assert entry["differs"]["backbone"] == "resnet101"
    assert entry["differs"]["drops"] == [16, 22]


@pytest.mark.parametrize("width", [80, 100, 160])
def test_the_list_fits_a_terminal_and_tells_every_difference(width: int) -> None:
    seen = printed(list_tables(ALL), width)
    assert max(map(len, seen.splitlines())) <= width
    for recipe in ALL:
        line = next(line for line in seen.splitlines() if f" {recipe.name} " in f" {line} ")
        assert recipe.reported is None or str(recipe.reported) in line
    for group in groups(ALL):
        (table,) = tables_of(group)
        told = " ".join(str(column.header) for column in table.columns).replace("\n", "") + str(table.caption)
        assert all(name in told for name in differing_fields(group))


def test_what_one_row_has_alone_is_told_below_the_table() -> None:
    seen = printed(list_tables(DOTA_ROWS), 160)
    assert "retinanet-h_r50d_1x_dota_180 alone: anchor_squares=rounded, angle=tf180, refit=original-180" in seen
    assert "[original]" in seen  # a list in a table


def test_quirks_of_all_rows_and_of_some() -> None:
    base = get_recipe("retinanet_r50_1x_coco")
    other = base.at("clean").replace(name="retinanet_other", claim="ties-overwrite")
    caption = str(tables_of([base, other])[0].caption)
    assert "quirks claim=ties-overwrite\nquirks of some nms_labels=offset, warmup_until=last" in caption


def test_show_tells_all_fields() -> None:
    recipe = get_recipe("retinanet-small")
    seen = printed(show_table(recipe))
    assert all(name in seen for name in resolved(recipe) if name != "name")


def test_show_tells_the_figure_of_each_class_where_it_is_known() -> None:
    recipe = get_recipe("retinanet-r_r50d_1x_dota")
    assert shown(recipe)["reported_classes"]["helicopter"] == 14.58
    assert "plane 88.38, baseball-diamond 68.45," in printed(show_table(recipe), 160)
    assert "reported_classes" not in shown(get_recipe("retinanet_r50_1x_coco"))
    assert "reported_classes" not in differences(recipe, get_recipe("retinanet-r_r50d_2x_dota"))


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
