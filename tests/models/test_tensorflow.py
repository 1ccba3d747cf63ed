from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tf_rules
from focaldet.errors import FocaldetError
from focaldet.models.anchors import original_turned, original_upright
from focaldet.models.inference import prepare_for_inference
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.tensorflow import our_name, read_variables, variables_to_ours
from focaldet.models.weights import load_fitting, load_strict, recognize_dialect
from focaldet.structures import StageOutput
from tf_rules import DELTAS_ATOL, FEATURES_ATOL, LOGITS_ATOL

# cases of one network differ in the loss or in how anchors are coded, not in what the network answers
NETWORKS = [
    pytest.param(("retinanet_h_v4", "retinanet_h180_v15", "retinanet_h_atan_v16"), id="r50-h"),
    pytest.param(("retinanet_r_v1",), id="r50-r"),
    pytest.param(("retinanet_r_iou_v5",), id="r50-r-iou"),
    pytest.param(("retinanet_h_res101_v9",), id="r101-h", marks=pytest.mark.slow),
    pytest.param(("retinanet_h_res152_v12",), id="r152-h", marks=pytest.mark.slow),
]
MAP_NAMES = ("C1", "C2", "C3", "C4", "C5", "P3", "P4", "P5", "P6", "P7")


def maps_of(network: RetinaNet, images: Tensor) -> tuple[dict[str, Tensor], StageOutput]:
    """Return the maps C1 to P7 by name, and what the head says of them."""
    early: dict[str, Tensor] = {}
    hooks = [
        module.register_forward_hook(lambda module, inputs, output, name=name: early.update({name: output.clone()}))
        for name, module in (("C1", network.backbone.body.maxpool), ("C2", network.backbone.body.layer1))
    ]
    with torch.inference_mode():
        backbone, pyramid = network.features(images)
        logits, deltas = network.head(pyramid)
    for hook in hooks:
        hook.remove()
    late = zip(("C3", "C4", "C5", "P3", "P4", "P5", "P6", "P7"), (*backbone, *pyramid), strict=True)
    return early | dict(late), StageOutput(logits, deltas, network.anchors_of(pyramid))


def assert_stage(stored: Any, tag: str, stage: StageOutput) -> None:
    logits, deltas, _ = stage.flat()
    tf_rules.assert_described(stored, f"{tag}.rpn.logit", logits[0].numpy(), LOGITS_ATOL)
    tf_rules.assert_described(stored, f"{tag}.rpn.delta", deltas[0].numpy(), DELTAS_ATOL)


def assert_anchors(stored: Any, tag: str, network: RetinaNet, images: Tensor, coded: list[Tensor]) -> None:
    """Compare the anchors as assigned, and see that those which deltas are relative to are as many."""
    anchors = torch.cat(network.anchors.grid_for((images.shape[-2], images.shape[-1])).levels())
    assert sum(level.shape[1] for level in coded) == len(anchors)
    if anchors.shape[1] == 5:
        assert torch.equal(torch.cat(coded, dim=1)[0], anchors)
        anchors = torch.cat([anchors[:, :4], anchors[:, 4:].rad2deg()], dim=1)
    if f"{tag}.anchors" in stored:  # pixels and degrees as float32, of up to 800
        np.testing.assert_allclose(anchors.numpy(), stored[f"{tag}.anchors"], rtol=0, atol=1e-4)
    else:
        tf_rules.assert_described(stored, f"{tag}.anchors", anchors.numpy(), 1e-4)


@pytest.mark.golden
@pytest.mark.parametrize("cases", NETWORKS)
def test_every_map_and_answer_is_the_original_programs(golden: Path, cases: tuple[str, ...]) -> None:
    network = tf_rules.tf_network(golden, cases[0])
    prepared = prepare_for_inference(network)
    files = [tf_rules.stored_case(golden, case) for case in cases]
    compared = 0
    for tag in ("a", "b", "c"):
        images = tf_rules.tf_input(golden, tag)
        having = [stored for stored in files if f"{tag}.rpn.logit.shape" in stored]
        if having:
            maps, stage = maps_of(network, images)
            with torch.inference_mode():
                (fused,) = prepared(images)
        for stored in having:
            known = [name for name in maps if f"{tag}.{name}.shape" in stored]
            for name in known:
                tf_rules.assert_described(stored, f"{tag}.{name}", tf_rules.as_nhwc(maps[name]), FEATURES_ATOL)
            assert_stage(stored, tag, stage)
            assert_stage(stored, tag, fused)
            assert_anchors(stored, tag, network, images, stage.anchors)
            compared += len(known)
    assert compared == sum(name.endswith(".shape") and name[2:4] in MAP_NAMES for stored in files for name in stored)


# trainable parameters: section 1.3 of the specification
SIZES = {
    "resnet50d, 21": (33_002_916, {}),
    "resnet50d, 54": (
        34_524_216,
        {"anchors": replace(original_turned(), angles=(0,), scales=(1.0,) * 18, ratios=(1.0,) * 3)},
    ),
    "resnet50d, 90": (36_183_816, {"anchors": original_turned()}),
    "resnet101d, 21": (51_942_820, {"backbone": "resnet101d"}),
    "resnet152d, 21": (67_540_388, {"backbone": "resnet152d"}),
    "resnet152d, 55": (69_107_788, {"backbone": "resnet152d", "anchors": original_upright(more=True)}),
}


@pytest.mark.parametrize("size", SIZES)
def test_trainable_parameters_are_those_of_the_specification(size: str) -> None:
    expected, changes = SIZES[size]
    with torch.device("meta"):
        network = build_retinanet(**(tf_rules.BASE | changes))
    assert sum(item.numel() for item in network.parameters() if item.requires_grad) == expected
    assert network.anchors.num_anchors == int(size.split()[1])


@pytest.mark.golden
@pytest.mark.parametrize("case", [*tf_rules.MODELS, *tf_rules.REFINED])
def test_every_variable_has_its_own_place_and_what_learns_is_the_same(golden: Path, case: str) -> None:
    described = json.loads((golden / "tf" / "vars" / f"{case}.json").read_text())
    variables = {name: torch.empty(entry["shape"], device="meta") for name, entry in described["variables"].items()}
    assert recognize_dialect(variables) == "tensorflow"
    with torch.device("meta"):
        network = tf_rules.build_network(case)
    entries = {key: value.shape for key, value in network.state_dict().items() if "num_batches" not in key}
    assert {key: value.shape for key, value in variables_to_ours(variables).items()} == entries
    learning = {key for key, value in network.named_parameters() if value.requires_grad}
    assert {our_name(name) for name in described["trainable_order"]} == learning


SMALL = {
    "resnet50_v1d/C1/conv2/BatchNorm/gamma": (64,),
    "resnet50_v1d/C5/bottleneck_2/conv1/weights": (3, 3, 512, 512),
    "rpn_net/rpn_regression/biases": (105,),
}


def test_names_may_end_as_in_a_graph_and_training_leaves_no_trace() -> None:
    variables = {f"{name}:0": torch.ones(shape) for name, shape in SMALL.items()}
    variables |= {f"{name}/Momentum": torch.ones(shape) for name, shape in SMALL.items()}
    variables |= {
        "global_step": torch.tensor(540_000),
        "rpn_net/rpn_regression/biases/ExponentialMovingAverage": torch.ones(105),
    }
    assert {key: tuple(value.shape) for key, value in variables_to_ours(variables).items()} == {
        "backbone.body.bn1.weight": (64,),
        "backbone.body.layer4.2.conv2.weight": (512, 512, 3, 3),
        "head.deltas.bias": (105,),
    }


def test_a_kernel_is_turned() -> None:
    kernel = torch.arange(3 * 5 * 2 * 4.0).reshape(3, 5, 2, 4)
    (weight,) = variables_to_ours({"build_pyramid/p6_conv/weights": kernel}).values()
    assert weight.shape == (4, 2, 3, 5) and weight.is_contiguous()
    assert weight[3, 1, 2, 4] == kernel[2, 4, 1, 3]


def test_what_is_missing_left_over_or_of_another_shape_is_listed() -> None:
    with torch.device("meta"):
        network = build_retinanet(**tf_rules.BASE)
    shapes = {"rpn_net/rpn_regression/biases": 450, "rpn_net/conv2d_3x3_reg_9/biases": 1, "build_pyramid/other": 1}
    variables = {name: torch.zeros(size) for name, size in shapes.items()}
    with pytest.raises(FocaldetError, match=r"backbone.body.bn1.bias absent instead of 64; .* \d+ in all"):
        load_strict(network, variables, tf_rules.CLASSES)
    report = load_fitting(network, variables, tf_rules.CLASSES)
    assert not report.loaded and "head.deltas.bias" in report.fresh
    assert report.left_over == ("head.deltas.bias", "rpn_net/conv2d_3x3_reg_9/biases", "build_pyramid/other")


def test_variables_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "variables.npz"
    arrays = {name: np.full(shape, 0.5, np.float32) for name, shape in SMALL.items()}
    np.savez(path, **arrays)
    variables = read_variables(path)
    assert list(variables) == list(SMALL)
    assert all(value.dtype == torch.float32 and bool((value == 0.5).all()) for value in variables.values())
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FocaldetError, match=r"variables.npz is no complete .npz of TensorFlow variables"):
        read_variables(path)
    np.savez(path, objects=np.array([{}], dtype=object))
    with pytest.raises(FocaldetError, match=r"variables.npz is no complete .npz"):
        read_variables(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(FocaldetError, match=r"one.npy is no complete .npz"):
        read_variables(tmp_path / "one.npy")
    with pytest.raises(FocaldetError, match=r"there is no file .*none.npz"):
        read_variables(tmp_path / "none.npz")
