"""The rotated table of DOTA against the tables of its specification, which stand here once more as data."""

from __future__ import annotations

from typing import Any

import pytest

from focaldet.recipes import Recipe
from focaldet.recipes.dota import ROWS

NAMES = """
1 retinanet-h_r50d_1x-8gpu_dota 53.17
2 retinanet-h_r50d_1x_dota 63.18
3 retinanet-h_r50d_2x_dota 62.79
4 retinanet-h_r101d_1x_dota 64.73
5 retinanet-h_r152d_1x_dota 65.79
6 retinanet-h_r50d_1x_dota_atan 65.11
7 retinanet-h_r50d_1x_dota_180 64.10
8 retinanet-r_r50d_1x_dota 61.94
9 retinanet-r_r50d_2x_dota 62.25
10 retinanet-r_r50d_1x_dota_iou 62.69
11 r3det_r50d_2x_dota 66.31
12 r3det-star_r50d_2x_dota 67.20
13 r3det_r101d_3x_dota 71.69
14 r3det_r152d_4x_dota 72.81
15 r3det-star_r152d_4x_dota 73.74
16 r3det-pp_r50d_2x_dota 68.54
17 r3det-pp_r152d_4x_dota 74.41
18 r3det-pp_r152d_6x_dota_ms 76.56
"""
"""Of the design's public surface: row, name, reported figure."""

MASTER = """
1  resnet50d  h21 0.2 smooth_l1           8 1 67500  40500/54000   6750  flip
2  resnet50d  h21 0.2 smooth_l1_one_sided 1 1 540000 324000/432000 6750  flip
3  resnet50d  h21 1.0 smooth_l1           8 2 135000 81000/108000  13500 flip
4  resnet101d h21 0.2 smooth_l1_one_sided 1 1 540000 324000/432000 6750  flip
5m resnet152d h21 1.0 smooth_l1           8 2 135000 81000/108000  13500 flip
5  resnet152d h21 1.0 smooth_l1           1 1 540000 324000/432000 6750  flip
6  resnet50d  h21 0.2 smooth_l1_atan      1 1 540000 324000/432000 6750  flip
7  resnet50d  h21 0.2 smooth_l1_one_sided 1 1 540000 324000/432000 6750  flip
8  resnet50d  r90 1.0 smooth_l1           1 1 540000 324000/432000 3375  flip
9  resnet50d  r90 1.0 smooth_l1           8 2 135000 81000/108000  6750  flip
10 resnet50d  r90 1.0 iou_smooth_l1       1 1 540000 324000/432000 3375  flip
11 resnet50d  h21 1.0 smooth_l1_one_sided 4 2 270000 162000/216000 13500 flip
12 resnet50d  h21 1.0 smooth_l1           8 2 135000 81000/108000  13500 flip
13 resnet101d h21 1.0 smooth_l1           8 3 202500 121500/162000 20250 original
14 resnet152d h21 1.0 smooth_l1           8 4 270000 162000/216000 27000 original
15 resnet152d h21 1.0 smooth_l1           8 4 270000 162000/216000 27000 original
16 resnet50d  h21 1.0 smooth_l1           8 2 135000 81000/108000  13500 flip
17 resnet152d h21 1.0 smooth_l1           8 4 270000 162000/216000 27000 original
18 resnet152d h55 1.0 smooth_l1           4 6 810000 486000/648000 40500 original
"""
"""Section 0.1: backbone, anchors, REG_WEIGHT, loss, GPUs, k, steps, drops, warm-up steps, augmentation. 5m: row 5 as it
was measured."""


def row(number: str) -> Recipe:
    """A row; "5m" is the recipe that row 5's figure was measured with."""
    found = [recipe for recipe in ROWS if recipe.row == int(number.rstrip("m"))]
    return found[-1] if number.endswith("m") else found[0]


@pytest.mark.parametrize("line", NAMES.strip().splitlines())
def test_names_and_figures(line: str) -> None:
    number, name, figure = line.split()
    assert (row(number).name, row(number).reported) == (name, float(figure))


@pytest.mark.parametrize("line", MASTER.strip().splitlines())
def test_row_of_the_master_table(line: str) -> None:
    number, backbone, anchors, weight, loss, gpus, k, steps, drops, warmup, augment = line.split()
    recipe = row(number)
    assert recipe.backbone == backbone
    assert recipe.anchors.partition("-")[0] == anchors
    assert recipe.assign == ("rbox" if anchors == "r90" else "hull")
    assert (recipe.box_weight, recipe.box_loss) == (float(weight), loss)
    assert recipe.gpus == recipe.batch == int(gpus) and recipe.normalize_over == 1
    assert recipe.peak_lr == 5e-4
    epoch = recipe.steps_per_epoch(0)
    assert recipe.epochs == 20 * int(k)
    assert recipe.epochs * epoch == int(steps)
    assert [drop * epoch for drop in recipe.drops] == [int(step) for step in drops.split("/")]
    assert recipe.warmup_steps == int(warmup)
    assert recipe.augment == (augment,)


def test_every_recipe_is_in_the_table() -> None:
    assert len(ROWS) == len(MASTER.strip().splitlines())
    assert len({recipe.name for recipe in ROWS}) == len(ROWS)


@pytest.mark.parametrize("recipe", ROWS, ids=lambda recipe: recipe.name)
def test_what_all_rows_share(recipe: Recipe) -> None:
    """Sections 1 to 3."""
    facts: dict[str, Any] = {
        "frozen": "stem", "backbone_norm": "frozen", "norm_eps": 1.001e-5, "neck": "fpn-average", "p6_from": "p5",
        "p7_relu": True, "head_convs": 4, "prior": 0.01, "positive": 0.5, "negative": 0.4, "negative_inclusive": True,
        "claim": "none", "alpha": 0.25, "gamma": 2.0, "max_log_scale": None, "momentum": 0.9, "weight_decay": 1e-4,
        "decay_all": False, "clip": 10.0, "clip_per": "variable", "bias_gradient": 2.0, "warmup_from": 0.1,
        "images_per_epoch": 27_000, "min_picture": 0, "min_side": None, "difficult": "trained", "score": 0.05,
        "nms": 0.1, "per_level": None, "tile": 600, "overlap": 150, "cut": "original", "iou_floor": 1e-6, "pad": 1,
    }  # fmt: skip
    assert {name: getattr(recipe, name) for name in facts} == facts
    assert recipe.mean == (123.675, 116.28, 103.53) and len(recipe.classes) == 15


def test_what_the_refined_rows_are() -> None:
    """Sections 4 and 5."""
    stages = {recipe.row: recipe.refine_stages for recipe in ROWS}
    assert [stages[number] for number in range(1, 19)] == [0] * 10 + [1, 2, 1, 1, 2, 1, 1, 1]
    for recipe in ROWS[-8:]:
        assert (recipe.refine_positive, recipe.refine_negative) == ((0.6, 0.7), (0.5, 0.6))
        assert (recipe.refine_convs, recipe.refine_points, recipe.refine_output) == ("per-level", 1, "f+sample")
        assert recipe.inld == ((4, 4, 3, 2, 2) if recipe.row >= 16 else ())
        assert recipe.test_resize == "opencv-truncated"
        assert recipe.test_flips == ()
    last = row("18")
    assert last.sizes == last.test_sizes
    assert [short for _, short in last.sizes] == [800, 400, 600, 900, 1000, 1100, 1200]
    assert {longest for longest, _ in last.sizes} == {1500}
    assert all(row(str(number)).test_sizes == () for number in range(1, 18))


def test_both_recipes_of_row_5_say_which_was_measured() -> None:
    assert row("5m").name == "retinanet-h_r152d_2x-8gpu_dota"
    assert row("5m").name in row("5").note and row("5").name in row("5m").note
    assert row("5m").reported == row("5").reported == 65.79


# --- section 0.2: field, rows, values in the states published, fixed and clean ---
ALL, H180, R, STAR = range(1, 19), (7,), (8, 9, 10), (12, 15)
REFINED = range(11, 19)
STATES: list[tuple[str, Any, Any, Any, Any]] = [
    ("box_loss", (2, 4, 7, 11), "smooth_l1_one_sided", "smooth_l1", "smooth_l1"),
    ("box_loss", (1, 3, 5, 8, 9, *range(12, 19)), "smooth_l1", "smooth_l1", "smooth_l1"),
    ("box_loss", (6,), "smooth_l1_atan", "smooth_l1_atan", "smooth_l1_atan"),
    ("box_loss", (10,), "iou_smooth_l1", "iou_smooth_l1", "iou_smooth_l1"),
    ("iou_floor", ALL, 1e-6, 1e-6, 1e-6),
    ("anchors", R, "r90-crossed", "r90", "r90"),
    ("anchors", (*range(1, 8), *range(11, 18)), "h21", "h21", "h21"),
    ("anchors", (18,), "h55", "h55", "h55"),
    ("refine_sampling", REFINED, "original-transposed", "original", "true"),
    ("refine_gradient", REFINED, "attached", "attached", "detached"),
    ("test_resize", REFINED, "opencv-truncated", "opencv-truncated", "opencv"),
    ("box_sides", REFINED, "exact", "plus_one", "exact"),
    ("box_sides", range(1, 11), "exact", "exact", "exact"),
    ("stages", STAR, "last", "refined", "last"),
    ("stages", (11, 13, 14, 16, 17, 18), "last", "last", "last"),
    ("max_per_class", ALL, 100, 200, None),
    ("max_detections", ALL, None, None, 2000),
    ("merge_corners", ALL, "whole", "compared-whole", "exact"),
    ("merge_nms", range(1, 18), "single-scale", "after-2020", "after-2020"),
    ("merge_nms", (18,), "multi-scale", "after-2020", "after-2020"),
    ("merge_per_class", range(1, 16), 500, 5000, None),
    ("merge_per_class", (16, 17), 1500, 5000, None),
    ("merge_per_class", (18,), 1000, 5000, None),
    ("refit", H180, "original-180", "original-180", "none"),
    ("anchor_squares", H180, "rounded", "rounded", "alike"),
    ("drop_from", ALL, "second", "second", "first"),
    ("nms_equal", ALL, "suppress", "suppress", "keep"),
]  # fmt: skip


@pytest.mark.parametrize("recipe", ROWS, ids=lambda recipe: recipe.name)
def test_the_three_states(recipe: Recipe) -> None:
    """Each field that differs between states stands in the table, and has the table's values."""
    expected = {name: values for name, rows, *values in STATES if recipe.row in rows}
    states = [recipe.at(state) for state in ("published", "fixed", "clean")]
    for name in recipe.to_dict():
        values = [getattr(state, name) for state in states]
        if name in expected or len(set(map(repr, values))) > 1:
            assert values == list(expected[name]), name
    assert states[2].quirks == ()
