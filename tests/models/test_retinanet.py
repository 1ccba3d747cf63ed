from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import golden_rules
import rotated_rules
from focaldet.models.anchors import COCO_ANCHORS
from focaldet.models.backbone import build_backbone
from focaldet.models.inference import prepare_for_inference
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import from_ours

# Ten times the float32/float64 differences that the stored outputs' README measured: 4.3e-5, 1e-5, 1.5e-5 and 2.5e-6.
MAPS_ATOL, PYRAMID_ATOL, LOGITS_ATOL, DELTAS_ATOL = 4.3e-4, 1e-4, 1.5e-4, 2.5e-5

CASES = {"eval_a": "a", "eval_b": "b", "eval_pair": "ac"}
STORED = [
    "r18_pytorch",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in golden_rules.MODELS
        if name not in ("r18_pytorch", "x101_32x4d")
    ),
]

# parameters, trainable, backbone, keys: section 2 of the specification
SIZES = {
    "r18_pytorch": (21_410_100, 21_252_596, 11_176_512, 156),
    "r50_caffe": (37_968_692, 37_693_172, 23_508_032, 354),
    "r50_pytorch": (37_968_692, 37_743_348, 23_508_032, 354),
    "r101_caffe": (56_960_820, 56_633_076, 42_500_160, 660),
    "r101_pytorch": (56_960_820, 56_735_476, 42_500_160, 660),
    "x101_32x4d": (56_589_364, 56_374_004, 42_128_704, 660),
    "x101_64x4d": (95_866_932, 95_464_180, 81_406_272, 660),
}


def count(module: torch.nn.Module, trainable: bool = False) -> int:
    return sum(item.numel() for item in module.parameters() if item.requires_grad or not trainable)


def on_meta(**arguments: Any) -> RetinaNet:
    with torch.device("meta"):
        return build_retinanet(**arguments)


@pytest.mark.parametrize("model", SIZES)
def test_parameters_are_those_of_the_table(model: str) -> None:
    network = on_meta(**golden_rules.MODELS[model])
    found = (count(network), count(network, trainable=True), count(network.backbone), len(network.state_dict()))
    assert found == SIZES[model]


# convolutions' GMAC of one picture at 1280 x 800 and 1344 x 800: section 2 of the specification
GMACS = {
    "r18_pytorch": (188.46, 197.91),
    "r50_caffe": (233.82, 245.53),
    "r50_pytorch": (238.54, 250.49),
    "r101_caffe": (309.58, 325.08),
    "r101_pytorch": (314.30, 330.04),
    "x101_32x4d": (317.74, 333.65),
    "x101_64x4d": (470.60, 494.15),
}


@pytest.mark.parametrize("model", GMACS)
def test_multiply_adds_are_those_of_the_table(model: str) -> None:
    network = on_meta(**golden_rules.MODELS[model]).eval()
    found = []
    for width in (1280, 1344):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(torch.empty(1, 3, 800, width, device="meta"))
        found.append(round(counter.get_total_flops() / 2e9, 2))
    assert tuple(found) == GMACS[model]


@pytest.mark.golden
@pytest.mark.parametrize("model", STORED)
@pytest.mark.parametrize("norm", ["folded", "plain"])
def test_forward_maps_equal_the_stored_ones(golden: Path, model: str, norm: str) -> None:
    stored = golden_rules.stored_model(golden, model)
    changes = {"backbone_norm": "trained"} if norm == "plain" else {}  # in evaluation mode the same function
    network = golden_rules.golden_network(model, **changes)
    images = golden_rules.golden_input(model, "a")
    golden_rules.assert_sampled(stored, "eval_a.input", images, atol=0)
    backbone_arguments = {key: value for key, value in golden_rules.MODELS[model].items() if key == "style"}
    backbone = build_backbone(golden_rules.MODELS[model]["backbone"], levels=(2, 3, 4, 5), **backbone_arguments)
    backbone.load_state_dict(network.backbone.state_dict())
    with torch.inference_mode():
        maps, pyramid = network.features(images)
        c2 = backbone.eval()(images)[0]
    for level, found in enumerate([c2, *maps], start=2):
        golden_rules.assert_sampled(stored, f"eval_a.c{level}", found, MAPS_ATOL)
    for level, found in enumerate(pyramid, start=3):
        golden_rules.assert_sampled(stored, f"eval_a.p{level}", found, PYRAMID_ATOL)


@pytest.mark.golden
@pytest.mark.parametrize("model", STORED)
def test_logits_and_deltas_equal_the_stored_ones(golden: Path, model: str) -> None:
    stored = golden_rules.stored_model(golden, model)
    network = golden_rules.golden_network(model)
    for case, pictures in CASES.items():
        images = golden_rules.golden_input(model, pictures)
        with torch.inference_mode():
            (stage,) = network(images)
        for level in range(5):
            logits, deltas = golden_rules.level_maps(stage, level, images)
            golden_rules.assert_sampled(stored, f"{case}.cls{level + 3}", logits, LOGITS_ATOL)
            golden_rules.assert_sampled(stored, f"{case}.reg{level + 3}", deltas, DELTAS_ATOL)


@pytest.mark.golden
@pytest.mark.parametrize("model", STORED)
def test_state_dict_is_the_published_one(golden: Path, model: str) -> None:
    stored = golden_rules.stored_model(golden, model)
    network = golden_rules.golden_network(model)
    assert [count(network), count(network, trainable=True)] == stored["param.count"].tolist()
    state = from_ours(network.state_dict(), "mmdetection")
    keys = sorted(state)
    assert keys == stored["state.keys"].tolist()
    assert ["x".join(map(str, state[key].shape)) for key in keys] == stored["state.shapes"].tolist()
    sums = [state[key].double().sum().item() for key in keys]
    # the order of summing moves a sum of a million float32 values by their number times 1e-16
    np.testing.assert_allclose(sums, stored["state.sums"], rtol=1e-11, atol=1e-9)


@pytest.mark.golden
def test_pictures_are_the_stored_ones(golden: Path) -> None:
    stored = np.load(golden / "coco" / "units.npz")
    for name in golden_rules.PICTURE_SIZES:
        np.testing.assert_array_equal(golden_rules.picture(name), stored[f"image.{name}"])


# --- mmrotate ---
@pytest.mark.golden
def test_maps_and_answers_are_those_of_mmrotate(golden: Path) -> None:
    differences = json.loads((golden / "rotated" / "info.json").read_text())["models"]
    for model in rotated_rules.ANGLES:
        stored = rotated_rules.stored_network(golden, model)
        # ten times what the README measured between float32 and float64
        atol = {key: 10 * value for key, value in differences[model]["f32_vs_f64_maxabs"].items()}
        images = torch.from_numpy(stored["image"])
        network = rotated_rules.rotated_network(model)
        with torch.inference_mode():
            pyramid = network.features(images)[1]
            answers = network(images)
            if model == "retinanet_hbox_oc":  # the others have the same weights
                answers += prepare_for_inference(network)(images)
        for name, level in (("p3", pyramid[0]), ("p7", pyramid[-1])):
            np.testing.assert_allclose(level[:, :8].numpy(), stored[name], rtol=0, atol=atol[name], err_msg=name)
        for level in range(5):
            for answer in answers:
                for kind, found in zip(("cls", "reg"), golden_rules.level_maps(answer, level, images), strict=True):
                    name = f"{kind}{level}"
                    np.testing.assert_allclose(found.numpy(), stored[name], rtol=0, atol=atol[name], err_msg=name)


@pytest.mark.golden
def test_the_state_dict_is_that_of_mmrotate(golden: Path) -> None:
    described = json.loads((golden / "rotated" / "model_retinanet_rbox_le90_keys.json").read_text())
    state = from_ours(rotated_rules.rotated_network("retinanet_rbox_le90").state_dict(), "mmdetection")
    assert {entry["key"]: entry["shape"] for entry in described} == {key: list(state[key].shape) for key in state}
    for entry in described:
        value = state[entry["key"]].double()
        # the order of summing moves a sum of a million float32 values by their number times 1e-16
        assert value.sum().item() == pytest.approx(entry["sum"], rel=1e-9, abs=1e-9), entry["key"]
        assert value.abs().sum().item() == pytest.approx(entry["abs_sum"], rel=1e-11), entry["key"]


def test_boxes_have_as_many_numbers_as_the_anchors() -> None:
    rotated = replace(COCO_ANCHORS, angle="le90", strides=(8, 16, 32))
    coded = replace(COCO_ANCHORS, coded="le90", strides=(8, 16, 32))
    for anchors, numbers in ((replace(COCO_ANCHORS, strides=(8, 16, 32)), 4), (rotated, 5), (coded, 5)):
        network = build_retinanet(backbone="resnet18", num_classes=2, head_convs=0, neck_channels=8, anchors=anchors)
        with torch.inference_mode():
            (stage,) = network.eval()(torch.zeros(1, 3, 64, 96))
        for deltas, level in zip(stage.deltas, stage.anchors, strict=True):
            assert deltas.shape == level.shape and level.shape[-1] == numbers
