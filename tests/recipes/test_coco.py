"""What the published configurations of RetinaNet on COCO come to."""

from __future__ import annotations

import pytest

from focaldet.recipes import get_recipe
from focaldet.recipes.coco import ROWS

PICTURES = 117_266


def test_ninety_thousand_steps_with_drops_after_sixty_and_eighty() -> None:
    for name in ("retinanet_r50_90k_coco", "retinanet_r50_detectron2"):
        recipe = get_recipe(name)
        steps = recipe.steps_per_epoch(PICTURES)
        assert [steps * epochs for epochs in (*recipe.drops, recipe.epochs)] == [60_000, 80_000, 90_000]
        assert recipe.pictures == PICTURES


def test_one_gpu_has_half_the_batch_and_half_the_rate() -> None:
    eight, one = get_recipe("retinanet_r18_1x_coco"), get_recipe("retinanet_r18_1x-1gpu_coco")
    assert (eight.peak_lr, one.peak_lr) == (0.01, 0.005)
    assert (one.batch, one.normalize_over, one.gpus) == (8, 8, 1)


def test_three_times_is_what_twelve_epochs_of_thrice_the_data_are() -> None:
    recipe = get_recipe("retinanet_r50_3x_coco_ms")
    assert (recipe.epochs, recipe.drops) == (3 * 12, (3 * 9, 3 * 11))
    assert (recipe.sizes, recipe.sizes_drawn) == (((1333, 640), (1333, 800)), "between")
    caffe = get_recipe("retinanet_r101-caffe_3x_coco_ms")
    assert [shortest for _, shortest in caffe.sizes] == [640, 672, 704, 736, 768, 800]
    assert (caffe.epochs, caffe.drops, caffe.sizes_drawn) == (36, (28, 34), "listed")


def test_the_half_precision_row_is_the_run_that_was_published() -> None:
    recipe = get_recipe("retinanet_r50_1x_coco_amp")
    assert (recipe.precision, recipe.loss_scale, recipe.clip, recipe.clip_per) == ("fp16", 512.0, 35.0, "total")
    assert recipe.replace(precision="float32", loss_scale=None, clip=None).to_dict() == {
        **get_recipe("retinanet_r50_1x_coco").to_dict(),
        **{name: getattr(recipe, name) for name in ("name", "row", "reported", "source")},
    }


@pytest.mark.parametrize("recipe", ROWS, ids=lambda recipe: str(recipe.name))
def test_every_row_is_seen_at_800_and_has_a_figure_or_none(recipe) -> None:  # type: ignore[no-untyped-def]
    assert recipe.test_size == (1333, 800)
    assert (recipe.reported is None) == (
        (recipe.name.startswith("retinanet_r50-caffe_") and recipe.row == 0) or "90k" in recipe.name
    )
