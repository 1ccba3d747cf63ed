"""Our own recipes, for small machines and own data."""

from __future__ import annotations

from dataclasses import replace

from focaldet.recipes.recipe import Recipe

RETINANET_SMALL = Recipe(
    name="retinanet-small",
    backbone="mobilenetv2_100",
    frozen="stem+layer1",
    backbone_norm="affine",
    levels=(3, 4, 5, 6),
    neck_channels=64,
    neck_norm="group",
    head_channels=64,
    head_convs=2,
    head_norm="group",
    anchor_scales=(3.0, 3.0 * 2.0 ** (1 / 2)),
    head_init="kaiming",
    crowd="ignored",
    box_loss="giou",
    batch=4,
    normalize_over=4,
    optimizer="adamw",
    lr=2e-3,
    lr_per=4,
    backbone_lr=0.1,
    weight_decay=0.01,
    decay_all=False,
    clip=10.0,
    schedule="cosine",
    epochs=20,
    warmup_steps=50,
    empty_pictures=True,
    augment=("flip", "affine", "color"),
    sizes=((480, 360),),
    test_size=(480, 360),
)

RETINANET_H_SMALL = replace(
    RETINANET_SMALL,
    name="retinanet-h-small",
    kind="rbox",
    angle="le90",
    angle_code="direction",
    assign="hull",
    levels=(2, 3, 4, 5),
    anchor_scales=(3.0, 3.0 * 2.0 ** (1 / 2)),
    box_loss="smooth_l1",
    sizes=((640, 512),),
    test_size=(640, 512),
    augment=("flip", "vflip", "affine", "color"),
    per_level=5000,
    nms=0.1,
    tile=640,
    overlap=160,
    max_detections=2000,
)

R3DET_SMALL = replace(
    RETINANET_H_SMALL,
    name="r3det-small",
    proj_xy=True,
    refine_stages=1,
    refine_convs="shared",
    refine_output="p+f+sample",
)

OURS: tuple[Recipe, ...] = (RETINANET_SMALL, RETINANET_H_SMALL, R3DET_SMALL)
