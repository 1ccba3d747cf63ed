"""Every recipe becomes a network, without memory for its weights."""

from __future__ import annotations

import pytest
import torch

from focaldet.engine.build import build_model
from focaldet.recipes import get_recipe, list_recipes

# (parameters, of them trained) of the published networks: `spec/horizontal.md` section 2
COUNTS = {
    ("resnet18", "pytorch"): (21_410_100, 21_252_596),
    ("resnet50", "caffe"): (37_968_692, 37_693_172),
    ("resnet50", "pytorch"): (37_968_692, 37_743_348),
    ("resnet101", "caffe"): (56_960_820, 56_633_076),
    ("resnet101", "pytorch"): (56_960_820, 56_735_476),
    ("resnext101_32x4d", "pytorch"): (56_589_364, 56_374_004),
    ("resnext101_64x4d", "pytorch"): (95_866_932, 95_464_180),
}

# torchvision's own counts, with 80 of its 91 channels and norms that count: `spec/horizontal.md` section 14
UNUSED = 11 * 9 * (256 * 9 + 1)
NEIGHBOURS = {
    "retinanet_r50_torchvision": 34_014_999 + 53_120 - UNUSED,
    "retinanet_r50_torchvision-v2": 38_198_935 - UNUSED,
    "retinanet_r50_detectron2": 37_915_572 + 53_120,
}

# trained parameters of DOTA's first stages by backbone and anchors a place: `spec/rotated.md` section 1.3
TRAINED = {
    ("resnet50d", 21): 33_002_916,
    ("resnet101d", 21): 51_942_820,
    ("resnet152d", 21): 67_540_388,
    ("resnet152d", 55): 69_107_788,
    ("resnet50d", 90): 36_183_816,
}
# section 4.2: convolutions of five levels before the sampling, and a head of one box a place
ALIGNMENT, REFINE_HEAD = 3_608_320, 4_766_740
# 37,743,348 of COCO's network of nine anchors, less 65 classes, and a fifth number a box
MMROTATE = 37_743_348 - 9 * 65 * (256 * 9 + 1) + 9 * (256 * 9 + 1)


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_is_built_on_the_meta_device(name: str) -> None:
    recipe = get_recipe(name)
    with torch.device("meta"):
        model = build_model(recipe)
    parameters = list(model.parameters())
    assert all(parameter.is_meta for parameter in parameters)
    total = sum(parameter.numel() for parameter in parameters)
    trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    if name in NEIGHBOURS:
        assert total == NEIGHBOURS[name] and 0 < trained < total
    elif "_coco" in name:
        assert (total, trained) == COUNTS[recipe.backbone, recipe.style]
    elif recipe.row:
        stages = recipe.refine_stages * (ALIGNMENT + REFINE_HEAD)
        denoising = sum(p.numel() for name, p in model.named_parameters() if name.startswith("inld."))
        assert trained == TRAINED[recipe.backbone, recipe.num_anchors] + stages + denoising
        assert (denoising > 0) == ("r3det-pp" in recipe.name)
    elif recipe.published:
        stages = recipe.refine_stages * (ALIGNMENT // 5 + REFINE_HEAD)  # one set of convolutions for all levels
        fewer = (4 - recipe.head_convs) * 2 * (1 + recipe.refine_stages) * (256 * 256 * 9 + 256)
        assert trained == MMROTATE + stages - fewer
    else:
        assert 0 < trained <= total < 5_000_000  # ours are for small machines
