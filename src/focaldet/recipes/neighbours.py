"""The RetinaNets of torchvision and detectron2, with all that they do otherwise (`spec/horizontal.md` section 14)."""

from __future__ import annotations

from dataclasses import replace

from focaldet.recipes.recipe import Recipe

TORCHVISION = Recipe(
    name="retinanet_r50_torchvision",
    paper="arXiv:1708.02002",
    source="retinanet_resnet50_fpn, COCO_V1",
    reported=36.4,
    gpus=8,
    backbone="resnet50",
    backbone_norm="frozen",
    norm_eps=0.0,
    neck_init="kaiming",
    p6_from="p5",
    p7_relu=True,
    anchors="whole",
    log_scale_clamp="above",
    beyond="background",
    claim="ties-zero",
    normalizer="picture",
    epochs=26,
    drops=(16, 22),
    warmup_steps=1000,
    images_per_epoch=117_266,
    resize="torch",
    finish="clip-nms-scale",
    max_detections=300,
)
TORCHVISION_V2 = replace(
    TORCHVISION,
    name="retinanet_r50_torchvision-v2",
    source="retinanet_resnet50_fpn_v2, COCO_V1",
    reported=41.5,
    frozen="weights-of-stem+layer1",
    backbone_norm="trained",  # there over the 16 pictures of a step, here over the `normalize_over` of a group
    norm_eps=None,
    p6_from="c5",
    head_norm="group-no-bias",
    box_loss="giou",
    optimizer="adamw",
    lr=1e-4,
    weight_decay=0.05,
    decay_all=False,
    sizes=tuple((1333, shortest) for shortest in range(480, 801, 32)),
)
DETECTRON2 = Recipe(
    name="retinanet_r50_detectron2",
    paper="arXiv:1708.02002",
    source="COCO-Detection/retinanet_R_50_FPN_1x",
    reported=37.4,
    gpus=8,
    channel_order="bgr",
    mean=(103.53, 116.28, 123.675),
    std=(1.0, 1.0, 1.0),
    backbone="resnet50",
    style="caffe",
    backbone_norm="frozen",
    neck_init="kaiming",
    p7_relu=True,
    log_scale_clamp="above",
    beyond="background",
    claim="ties-zero",
    normalizer="moving",
    epochs=9,
    drops=(6, 8),
    images_per_epoch=160_000,  # 10,000 steps: it counts 90,000, with drops after 60,000 and 80,000
    pictures=117_266,
    warmup_steps=1000,
    sizes=tuple((1333, shortest) for shortest in range(640, 801, 32)),
    resize="pillow",
    finish="nms-scale-clip",
)

ROWS: tuple[Recipe, ...] = (TORCHVISION, TORCHVISION_V2, DETECTRON2)
