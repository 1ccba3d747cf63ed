"""The RetinaNet table of COCO: ten rows, each a line of what is its own (`spec/horizontal.md` section 1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from focaldet.recipes.recipe import Recipe

BASE = Recipe(
    name="retinanet_coco",
    paper="arXiv:1708.02002",
    gpus=8,
    claim="ties-overwrite",
    nms_labels="offset",
    warmup_until="last",
    images_per_epoch=117_266,
)
CAFFE = replace(
    BASE,
    style="caffe",
    channel_order="bgr",
    mean=(103.53, 116.28, 123.675),
    std=(1.0, 1.0, 1.0),
    backbone_norm="frozen",
)
R50 = replace(BASE, backbone="resnet50")
R101 = replace(BASE, backbone="resnet101")
X32 = replace(BASE, backbone="resnext101_32x4d")
X64 = replace(BASE, backbone="resnext101_64x4d")
TWICE: dict[str, Any] = {"epochs": 24, "drops": (16, 22)}

# fmt: off
ROWS: tuple[Recipe, ...] = (
    replace(CAFFE, row=1,  name="retinanet_r50-caffe_1x_coco",     reported=36.3, source="retinanet_r50-caffe_fpn_1x_coco"),
    replace(R50,   row=2,  name="retinanet_r50_1x_coco",           reported=36.5, source="retinanet_r50_fpn_1x_coco"),
    replace(R50,   row=3,  name="retinanet_r50_2x_coco",           reported=37.4, source="retinanet_r50_fpn_2x_coco", **TWICE),
    replace(CAFFE, row=4,  name="retinanet_r101-caffe_1x_coco",    reported=38.5, source="retinanet_r101-caffe_fpn_1x_coco", backbone="resnet101"),
    replace(R101,  row=5,  name="retinanet_r101_1x_coco",          reported=38.5, source="retinanet_r101_fpn_1x_coco"),
    replace(R101,  row=6,  name="retinanet_r101_2x_coco",          reported=38.9, source="retinanet_r101_fpn_2x_coco", **TWICE),
    replace(X32,   row=7,  name="retinanet_x101-32x4d_1x_coco",    reported=39.9, source="retinanet_x101-32x4d_fpn_1x_coco"),
    replace(X32,   row=8,  name="retinanet_x101-32x4d_2x_coco",    reported=40.1, source="retinanet_x101-32x4d_fpn_2x_coco", **TWICE),
    replace(X64,   row=9,  name="retinanet_x101-64x4d_1x_coco",    reported=41.0, source="retinanet_x101-64x4d_fpn_1x_coco"),
    replace(X64,   row=10, name="retinanet_x101-64x4d_2x_coco",    reported=40.8, source="retinanet_x101-64x4d_fpn_2x_coco", **TWICE),
)
# fmt: on
