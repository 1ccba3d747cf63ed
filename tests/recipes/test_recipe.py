"""The Recipe record: types, ranges, states, and what follows from the fields."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from focaldet.errors import FocaldetError, UsageError
from focaldet.recipes import Recipe, get_recipe, list_recipes
from focaldet.recipes.recipe import QUIRKS

# the table of the design's public surface: name, reported figure
COCO_TABLE = [
    ("retinanet_r50-caffe_1x_coco", 36.3),
    ("retinanet_r50_1x_coco", 36.5),
    ("retinanet_r50_2x_coco", 37.4),
    ("retinanet_r101-caffe_1x_coco", 38.5),
    ("retinanet_r101_1x_coco", 38.5),
    ("retinanet_r101_2x_coco", 38.9),
    ("retinanet_x101-32x4d_1x_coco", 39.9),
    ("retinanet_x101-32x4d_2x_coco", 40.1),
    ("retinanet_x101-64x4d_1x_coco", 41.0),
    ("retinanet_x101-64x4d_2x_coco", 40.8),
]


def test_the_ten_rows_of_the_table() -> None:
    rows = [recipe for recipe in map(get_recipe, list_recipes()) if recipe.row and recipe.name.endswith("_coco")]
    assert [(recipe.name, recipe.reported) for recipe in rows] == COCO_TABLE
    assert [recipe.row for recipe in rows] == list(range(1, 11))
    assert all(recipe.paper and recipe.source for recipe in rows)


def test_names_are_unique_and_found() -> None:
    assert len(set(list_recipes())) == len(list_recipes())
    assert all(get_recipe(name).name == name for name in list_recipes())


def test_a_wrong_name_gets_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean 'retinanet-small'"):
        get_recipe("retinanet-smal")
    with pytest.raises(UsageError, match="recipes list"):
        get_recipe("zzz")


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_survives_its_dict(name: str) -> None:
    recipe = get_recipe(name)
    assert Recipe.from_dict(recipe.to_dict()) == recipe


def test_clean_turns_every_quirk_off() -> None:
    recipe = get_recipe("retinanet_r50_1x_coco")
    assert recipe.quirks == ("claim=ties-overwrite", "nms_labels=offset", "warmup_until=last")
    clean = recipe.at("clean")
    assert clean.quirks == ()
    changed = {name for name in recipe.to_dict() if getattr(recipe, name) != getattr(clean, name)}
    assert changed == {"claim", "nms_labels", "warmup_until"}
    assert all(quirk.value != quirk.clean or quirk.value != quirk.fixed for quirk in QUIRKS)
    assert recipe.at("published") == recipe.at("fixed") == recipe
    assert get_recipe("retinanet_r50_1x_coco", state="clean") == clean
    with pytest.raises(UsageError, match="state='dirty' does not exist"):
        recipe.at("dirty")  # type: ignore[arg-type]


def test_our_own_recipes_have_no_quirk() -> None:
    ours = [recipe for recipe in map(get_recipe, list_recipes()) if not recipe.published]
    assert ours and all(not recipe.quirks for recipe in ours)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epoch": 3}, "'epoch' is no field of a recipe (did you mean 'epochs'?)"),
        ({"epochs": "3"}, "epochs='3' should be of type int"),
        ({"epochs": True}, "epochs=True should be of type int"),
        ({"epochs": 0}, "epochs=0 must be above 0"),
        ({"lr": "fast"}, "lr='fast' should be of type float"),
        ({"lr": 0}, "lr=0.0 must be above 0"),
        ({"style": "cafe"}, "style='cafe' is not one of 'pytorch', 'caffe' (did you mean 'caffe'?)"),
        ({"classes": []}, "classes is empty"),
        ({"classes": ["ship", "ship"]}, "classes names a class twice"),
        ({"classes": "ship"}, "classes='ship' should be a list, such as [a, b]"),
        ({"batch": 3}, "batch=3 is no multiple of normalize_over=2"),
        ({"negative": 0.6}, "negative=0.6 <= positive=0.5"),
        ({"prior": 1.0}, "prior=1.0 must lie between 0 and 1"),
        ({"levels": [3, 5]}, "levels=(3, 5) must rise by one"),
        ({"levels": []}, "levels=() must rise by one"),
        ({"mean": [1.0]}, "mean and std need in_channels=3 numbers each"),
        ({"test_size": [800]}, "test_size=[800] should have 2 entries"),
        ({"min_side": 0}, "min_side=0.0 must be above 0"),
    ],
)
def test_a_wrong_value_is_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(FocaldetError) as error:
        get_recipe("retinanet_r50_1x_coco").replace(**changes)
    assert sentence in str(error.value)


def test_unknown_fields_of_a_file_are_named() -> None:
    with pytest.raises(UsageError, match="'epoch' is no field"):
        Recipe.from_dict({"name": "x", "epoch": 3})


def test_a_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        get_recipe("retinanet-small").epochs = 3  # type: ignore[misc]


@pytest.mark.parametrize(("channels", "mean"), [(1, (123.675,)), (4, (123.675, 116.28, 103.53, 123.675))])
def test_more_or_fewer_channels_take_one_field(channels: int, mean: tuple[float, ...]) -> None:
    recipe = get_recipe("retinanet_r50_1x_coco").replace(in_channels=channels)
    assert recipe.mean == mean
    assert len(recipe.std) == channels


def test_the_learning_rate_follows_the_batch() -> None:
    recipe = get_recipe("retinanet_r50_1x_coco")
    assert recipe.peak_lr == 0.01
    assert recipe.replace(batch=2).peak_lr == pytest.approx(0.00125, rel=1e-15)


def test_steps_of_an_epoch() -> None:
    recipe = get_recipe("retinanet_r50_1x_coco")
    assert recipe.steps_per_epoch(1) == 7330  # 117,266 pictures to 8 GPUs of 2
    own = recipe.replace(images_per_epoch=None)
    assert own.steps_per_epoch(16) == 1
    assert own.steps_per_epoch(17) == 2
    assert recipe.num_anchors == 9
