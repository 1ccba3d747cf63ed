"""The rotated table of DOTA 1.0: RetinaNet-H, RetinaNet-R, R3Det and what follows it (`spec/rotated.md` section 0.1)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from focaldet.recipes.recipe import Recipe

DOTA_CLASSES = (
    "roundabout", "tennis-court", "swimming-pool", "storage-tank", "soccer-ball-field", "small-vehicle", "ship",
    "plane", "large-vehicle", "helicopter", "harbor", "ground-track-field", "bridge", "basketball-court",
    "baseball-diamond",
)  # fmt: skip
"""In the order of the original program's channels."""
EPOCHS = 20
"""Of 27,000 tiles each, in a schedule of 1x."""

BASE = Recipe(
    name="retinanet_dota",
    paper="arXiv:1908.05612",
    kind="rbox",
    classes=DOTA_CLASSES,
    unit_range=True,
    backbone="resnet50d",
    frozen="stem",
    backbone_norm="frozen",
    norm_eps=1.001e-5,
    neck="fpn-average",
    p6_from="p5",
    p7_relu=True,
    angle="tf90",
    max_log_scale=None,
    negative_inclusive=True,
    claim="none",
    box_loss="smooth_l1",
    box_beta=1 / 9,
    batch=1,
    normalize_over=1,
    lr=5e-4,
    lr_per=1,
    weight_decay=1e-4,
    decay_all=False,
    bias_gradient=2.0,
    clip=10.0,
    clip_per="variable",
    warmup_from=0.1,
    drop_from="second",
    images_per_epoch=27_000,
    min_picture=0,
    min_side=None,
    sizes=((800, 800),),
    test_size=(800, 800),
    resize="tensorflow",
    difficult="trained",
    pad=1,
    per_level=None,
    nms=0.1,
    nms_equal="suppress",
    max_per_class=100,
    max_detections=None,
    tile=600,
    whole=1.0,
    overlap=150,
    merge_nms="single-scale",
    merge_per_class=500,
    merge_corners="whole",
    cut="original",
)
H = replace(BASE, anchors="h21", assign="hull", pixels="plus_one", box_weight=0.2)
R = replace(BASE, anchors="r90-crossed", assign="rbox")
R3 = replace(
    H,
    box_weight=1.0,
    refine_stages=1,
    refine_sampling="original-transposed",
    refine_gradient="attached",
    test_resize="opencv-truncated",
)
STAR = replace(R3, refine_stages=2)
PP = replace(R3, paper="arXiv:2004.13316", inld=(4, 4, 3, 2, 2), merge_per_class=1500)


def _over(gpus: int) -> dict[str, Any]:
    """Return what more GPUs mean: as many tiles an update, at the same learning rate."""
    return {"gpus": gpus, "batch": gpus, "lr_per": gpus}


def _schedule(k: int, warmup_share: float = 0.25) -> dict[str, Any]:
    """Return a schedule of k times 20 epochs; the warm-up counts updates, whatever the number of GPUs."""
    return {"epochs": EPOCHS * k, "drops": (12 * k, 16 * k), "warmup_steps": int(27_000 * k * warmup_share)}


H1, H2, H3, H4, H6 = map(_schedule, (1, 2, 3, 4, 6))
R1, R2 = _schedule(1, 0.125), _schedule(2, 0.125)
ONE_SIDED: dict[str, Any] = {"box_loss": "smooth_l1_one_sided"}
R101: dict[str, Any] = {"backbone": "resnet101d"}
R152: dict[str, Any] = {"backbone": "resnet152d"}
FULL: dict[str, Any] = {"augment": ("original",)}
SCALES = tuple((1500, short) for short in (800, 400, 600, 900, 1000, 1100, 1200))
MS: dict[str, Any] = {
    "sizes": SCALES,
    "test_size": SCALES[0],
    "test_sizes": SCALES,
    "merge_nms": "multi-scale",
    "merge_per_class": 1000,
}

CELLS = "follows the cells of its row, 1x on 1 GPU; the figure was measured with retinanet-h_r152d_2x-8gpu_dota"
MEASURED = "measured row 5's figure; the row's cells say 1x on 1 GPU, which retinanet-h_r152d_1x_dota follows"
PRIVATE = "the figure is the paper's, of code that was not published; this is the nearest public configuration"
INFERRED = "no configuration was published; inferred from neighbouring rows"

# fmt: off
ROWS: tuple[Recipe, ...] = (
    replace(H, row=1,  name="retinanet-h_r50d_1x-8gpu_dota",  reported=53.17, source="cfgs_res50_dota_v3",   **H1, **_over(8)),
    replace(H, row=2,  name="retinanet-h_r50d_1x_dota",       reported=63.18, source="cfgs_res50_dota_v4",   **H1, **ONE_SIDED),
    replace(H, row=3,  name="retinanet-h_r50d_2x_dota",       reported=62.79, source="cfgs_res50_dota_v8",   **H2, **_over(8), box_weight=1.0),
    replace(H, row=4,  name="retinanet-h_r101d_1x_dota",      reported=64.73, source="cfgs_res101_dota_v9",  **H1, **ONE_SIDED, **R101),
    replace(H, row=5,  name="retinanet-h_r152d_1x_dota",      reported=65.79, source="cfgs_res152_dota_v12", **H1, **R152, box_weight=1.0, note=CELLS),
    replace(H, row=5,  name="retinanet-h_r152d_2x-8gpu_dota", reported=65.79, source="cfgs_res152_dota_v12", **H2, **_over(8), **R152, box_weight=1.0, note=MEASURED),
    replace(H, row=6,  name="retinanet-h_r50d_1x_dota_atan",  reported=65.11, source="cfgs_res50_dota_v16",  **H1, box_loss="smooth_l1_atan"),
    replace(H, row=7,  name="retinanet-h_r50d_1x_dota_180",   reported=64.10, source="cfgs_res50_dota_v15",  **H1, **ONE_SIDED, angle="tf180", anchor_squares="rounded", refit="original-180"),
    replace(R, row=8,  name="retinanet-r_r50d_1x_dota",       reported=61.94, source="cfgs_res50_dota_v1",   **R1),
    replace(R, row=9,  name="retinanet-r_r50d_2x_dota",       reported=62.25, source="cfgs_res50_dota_v10",  **R2, **_over(8)),
    replace(R, row=10, name="retinanet-r_r50d_1x_dota_iou",   reported=62.69, source="cfgs_res50_dota_v5",   **R1, box_loss="iou_smooth_l1"),
    replace(R3,   row=11, name="r3det_r50d_2x_dota",          reported=66.31, source="cfgs_res50_dota_r3det_v1",           **H2, **_over(4), **ONE_SIDED),
    replace(STAR, row=12, name="r3det-star_r50d_2x_dota",     reported=67.20, source="cfgs_res50_dota_r3det_v2",           **H2, **_over(8), note=PRIVATE),
    replace(R3,   row=13, name="r3det_r101d_3x_dota",         reported=71.69, source="cfgs_res101_dota_r3det_v11",         **H3, **_over(8), **R101, **FULL, note=PRIVATE),
    replace(R3,   row=14, name="r3det_r152d_4x_dota",         reported=72.81, source="cfgs_res101_dota_r3det_v11",         **H4, **_over(8), **R152, **FULL, note=INFERRED),
    replace(STAR, row=15, name="r3det-star_r152d_4x_dota",    reported=73.74, source="cfgs_res152_dota_r3det_v3",          **H4, **_over(8), **R152, **FULL, note=PRIVATE),
    replace(PP,   row=16, name="r3det-pp_r50d_2x_dota",       reported=68.54, source="cfgs_res50_dota_r3det_plusplus_v2",  **H2, **_over(8), note=PRIVATE),
    replace(PP,   row=17, name="r3det-pp_r152d_4x_dota",      reported=74.41, source="cfgs_res50_dota_r3det_plusplus_v2",  **H4, **_over(8), **R152, **FULL, note=INFERRED),
    replace(PP,   row=18, name="r3det-pp_r152d_6x_dota_ms",   reported=76.56, source="cfgs_res152_dota_r3det_plusplus_v1", **{**H6, **_over(4), **R152, **FULL, **MS}, anchors="h55"),
)
# fmt: on
