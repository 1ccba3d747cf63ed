"""RetinaNet on COCO: the table of ten rows (`spec/horizontal.md` section 1), and what else is published (section 12)."""

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
R18 = replace(BASE, backbone="resnet18")
TWICE: dict[str, Any] = {"epochs": 24, "drops": (16, 22)}
LISTED: dict[str, Any] = {"sizes": tuple((1333, shortest) for shortest in range(640, 801, 32))}
# there the data is repeated three times in each of 12 epochs, with drops after 9 and 11
THRICE: dict[str, Any] = {
    "epochs": 36,
    "drops": (27, 33),
    "sizes": ((1333, 640), (1333, 800)),
    "sizes_drawn": "between",
}
CAFFE_THRICE: dict[str, Any] = {"epochs": 36, "drops": (28, 34), **LISTED}
# epochs of 10,000 steps; the published sampler never ends, ours begins a new order in each
STEPS_90K: dict[str, Any] = {"epochs": 9, "drops": (6, 8), "images_per_epoch": 160_000, "pictures": 117_266}
# as the published run was; the configuration has come to scale as far as goes, and not to clip
AMP: dict[str, Any] = {"precision": "fp16", "loss_scale": 512.0, "clip": 35.0}

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
    replace(R18,   name="retinanet_r18_1x_coco",         reported=31.7, source="retinanet_r18_fpn_1x_coco"),
    replace(R18,   name="retinanet_r18_1x-1gpu_coco",    reported=31.7, source="retinanet_r18_fpn_1xb8-1x_coco", gpus=1, batch=8, normalize_over=8),
    replace(R50,   name="retinanet_r50_1x_coco_amp",     reported=36.4, source="retinanet_r50_fpn_amp-1x_coco", **AMP),
    replace(R50,   name="retinanet_r50_3x_coco_ms",      reported=39.5, source="retinanet_r50_fpn_ms-640-800-3x_coco", **THRICE),
    replace(CAFFE, name="retinanet_r101-caffe_3x_coco_ms", reported=40.7, source="retinanet_r101-caffe_fpn_ms-3x_coco", backbone="resnet101", **CAFFE_THRICE),
    replace(R101,  name="retinanet_r101_3x_coco_ms",     reported=41.0, source="retinanet_r101_fpn_ms-640-800-3x_coco", **THRICE),
    replace(X64,   name="retinanet_x101-64x4d_3x_coco_ms", reported=41.6, source="retinanet_x101-64x4d_fpn_ms-640-800-3x_coco", **THRICE),
    replace(CAFFE, name="retinanet_r50-caffe_1x_coco_ms", source="retinanet_r50-caffe_fpn_ms-1x_coco", **LISTED),
    replace(CAFFE, name="retinanet_r50-caffe_2x_coco_ms", source="retinanet_r50-caffe_fpn_ms-2x_coco", **TWICE, **LISTED),
    replace(CAFFE, name="retinanet_r50-caffe_3x_coco_ms", source="retinanet_r50-caffe_fpn_ms-3x_coco", **CAFFE_THRICE),
    replace(R50,   name="retinanet_r50_90k_coco",        source="retinanet_r50_fpn_90k_coco", **STEPS_90K),
)
# fmt: on
