"""mmrotate's recipes against its table (`spec/rotated.md` sections 8, 9.3 and 10), which stands here as data."""

from __future__ import annotations

from typing import Any

import pytest

from focaldet.recipes.dota import DOTA_CLASSES
from focaldet.recipes.mmrotate import ROWS
from focaldet.recipes.recipe import Recipe

TABLE = """
rotated_retinanet_hbb_r50_fpn_1x_dota_oc    64.55 oc    no  no  none rbox-hull l1        4 0
rotated_retinanet_obb_r50_fpn_1x_dota_oc    none  oc    no  no  none rbox      l1        4 0
rotated_retinanet_obb_r50_fpn_1x_dota_le90  68.42 le90  yes yes none rbox      l1        4 0
rotated_retinanet_obb_r50_fpn_1x_dota_le135 69.79 le135 no  yes 1    rbox      l1        4 0
r3det_r50_fpn_1x_dota_oc                    69.80 oc    no  no  none rbox-hull smooth_l1 4 1
r3det_tiny_r50_fpn_1x_dota_oc               70.18 oc    no  no  none rbox-hull smooth_l1 2 1
r3det_refine_r50_fpn_1x_dota_oc             none  oc    no  no  none rbox-hull smooth_l1 4 2
"""
"""Name, figure, angle, edge_swap, proj_xy, norm_factor, assignment, loss, convolutions of a tower, refine stages."""


@pytest.mark.parametrize(("line", "recipe"), list(zip(TABLE.strip().splitlines(), ROWS, strict=True)))
def test_recipe_of_the_table(line: str, recipe: Recipe) -> None:
    name, figure, angle, swap, project, norm, assign, loss, convs, stages = line.split()
    assert (recipe.name, recipe.source) == (name, name)
    assert recipe.reported == (None if figure == "none" else float(figure))
    assert recipe.angle == angle
    assert (recipe.edge_swap, recipe.proj_xy) == (swap == "yes", project == "yes")
    assert recipe.norm_factor == (None if norm == "none" else float(norm))
    assert (recipe.assign, recipe.box_loss) == (assign, loss)
    assert (recipe.head_convs, recipe.refine_stages) == (int(convs), int(stages))
    assert recipe.augment == (("flip",) if "hbb" in name else ("flip", "vflip"))
    assert recipe.rectangle == ("by-sides" if angle == "le135" else "least-area")
    assert "1.x" in recipe.note and f"anchor_angle={angle}" in recipe.note


@pytest.mark.parametrize("recipe", ROWS, ids=lambda recipe: recipe.name)
def test_what_all_share(recipe: Recipe) -> None:
    facts: dict[str, Any] = {
        "backbone": "resnet50", "frozen": "stem+layer1", "backbone_norm": "affine", "neck": "fpn", "p6_from": "c5",
        "p7_relu": False, "anchor_ratios": (1.0, 0.5, 2.0), "anchor_offset": 0.0, "anchor_angle": "zero",
        "positive": 0.5, "negative": 0.4, "negative_inclusive": False, "claim": "ties-overwrite", "alpha": 0.25,
        "gamma": 2.0, "box_weight": 1.0, "batch": 2, "normalize_over": 2, "lr": 0.0025, "momentum": 0.9,
        "weight_decay": 1e-4, "decay_all": True, "clip": 35.0, "clip_per": "total", "epochs": 12, "drops": (8, 11),
        "warmup_steps": 500, "warmup_from": 1 / 3, "tile": 1024, "overlap": 200, "cut": "mmrotate",
        "sizes": ((1024, 1024),), "test_size": (1024, 1024), "pad": 32, "score": 0.05, "per_level": 2000,
        "per_level_of": "anchors", "nms": 0.1, "max_detections": 2000, "max_per_class": None, "centres": "clamped",
        "merge_nms": "nms", "merge_per_class": None, "min_side": 2.0, "difficult": "trained",
    }  # fmt: skip
    assert {name: getattr(recipe, name) for name in facts} == facts
    assert recipe.peak_lr == 0.0025
    assert set(recipe.classes) == set(DOTA_CLASSES) and recipe.classes[0] == "plane"


def test_the_refined_ones() -> None:
    for recipe in ROWS[4:]:
        assert recipe.box_beta == 0.11
        assert (recipe.refine_convs, recipe.refine_points) == ("shared", 1)
        assert (recipe.refine_sampling, recipe.refine_output) == ("transposed", "p+f+sample")
        assert (recipe.refine_gradient, recipe.stages) == ("detached", "last")
        assert (recipe.refine_positive, recipe.refine_negative) == ((0.6, 0.7), (0.5, 0.6))
