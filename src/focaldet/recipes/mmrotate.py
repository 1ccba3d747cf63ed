"""mmrotate's configurations on DOTA 1.0, under their own names (`spec/rotated.md` sections 8.1, 8.2, 9.3 and 10)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from focaldet.recipes.recipe import Recipe

CLASSES = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip
"""In the order of mmrotate's channels."""

BASE = Recipe(
    name="mmrotate",
    paper="arXiv:2204.13317",
    kind="rbox",
    classes=CLASSES,
    anchor_ratios=(1.0, 0.5, 2.0),
    anchor_angle="zero",
    claim="ties-overwrite",
    batch=2,
    lr=0.0025,
    lr_per=2,
    clip=35.0,
    warmup_from=1 / 3,
    min_picture=0,
    min_side=2.0,
    sizes=((1024, 1024),),
    test_size=(1024, 1024),
    difficult="trained",
    augment=("flip", "vflip"),
    per_level=2000,
    per_level_of="anchors",
    nms=0.1,
    nms_labels="offset",
    max_detections=2000,
    centres="clamped",
    tile=1024,
    whole=1.0,
    overlap=200,
    tile_pad=(124, 116, 104),
)


def _version(newer: str) -> str:
    """Return the note on checkpoints of both versions of mmrotate."""
    return f"loads checkpoints of mmrotate 0.x; those of 1.x by {newer}"


OC: dict[str, Any] = {"angle": "oc", "note": _version("angle=oc-negative anchor_angle=oc-negative")}
LE90: dict[str, Any] = {
    "angle": "le90", "edge_swap": True, "proj_xy": True, "note": _version("anchor_angle=le90"),
}  # fmt: skip
LE135: dict[str, Any] = {
    "angle": "le135", "norm_factor": 1.0, "proj_xy": True, "rectangle": "by-sides",
    "note": _version("anchor_angle=le135 rectangle=least-area"),
}  # fmt: skip
HBB = replace(BASE, assign="rbox-hull")
OBB = replace(BASE, assign="rbox")
R3DET = replace(
    HBB,
    refine_stages=1,
    refine_convs="shared",
    refine_sampling="transposed",
    refine_output="p+f+sample",
    box_loss="smooth_l1",
    box_beta=0.11,
    **OC,
)


def _recipe(base: Recipe, name: str, reported: float | None = None, **changes: Any) -> Recipe:
    """Return a recipe that is called as its configuration is."""
    return replace(base, name=name, source=name, reported=reported, **changes)


ROWS: tuple[Recipe, ...] = (
    _recipe(HBB, "rotated_retinanet_hbb_r50_fpn_1x_dota_oc", 64.55, augment=("flip",), **OC),
    _recipe(OBB, "rotated_retinanet_obb_r50_fpn_1x_dota_oc", **OC),
    _recipe(OBB, "rotated_retinanet_obb_r50_fpn_1x_dota_le90", 68.42, **LE90),
    _recipe(OBB, "rotated_retinanet_obb_r50_fpn_1x_dota_le135", 69.79, **LE135),
    _recipe(R3DET, "r3det_r50_fpn_1x_dota_oc", 69.80),
    _recipe(R3DET, "r3det_tiny_r50_fpn_1x_dota_oc", 70.18, head_convs=2),
    _recipe(R3DET, "r3det_refine_r50_fpn_1x_dota_oc", refine_stages=2),
)
