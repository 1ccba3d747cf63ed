from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.anchors import COCO_ANCHORS
from focaldet.models.neighbours import COCO_NUMBERS, SILENT, caffe2_to_timm, is_caffe2
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import from_ours, load_backbone, load_fitting, load_strict, recognize_dialect, to_ours

Shapes = dict[str, tuple[int, ...]]


def shapes(state: Any) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


def on_meta(**changes: Any) -> RetinaNet:
    with torch.device("meta"):
        return build_retinanet(**changes)


def theirs_v1() -> torch.nn.Module:
    from torchvision.models.detection import retinanet_resnet50_fpn

    with torch.device("meta"):
        network: torch.nn.Module = retinanet_resnet50_fpn(weights=None, weights_backbone=None)
    return network


def small(num_classes: int = 2) -> RetinaNet:
    return build_retinanet(backbone="resnet18", neck_channels=8, head_channels=8, num_classes=num_classes)


# --- names ---
def test_torchvisions_names_are_ours_and_back() -> None:
    theirs = theirs_v1().state_dict()
    ours = on_meta(p6_from="p5", p7_relu=True).state_dict()
    assert recognize_dialect(theirs) == "torchvision"
    assert shapes(to_ours(theirs, "torchvision")) == shapes(ours)
    assert shapes(from_ours(ours, "torchvision")) == shapes(theirs)


def test_names_of_torchvision_before_0_13_are_read() -> None:
    now = from_ours(small().state_dict(), "torchvision")
    before = {}
    for key, value in now.items():
        parts = key.split(".")
        if parts[1] == "fpn" and "blocks" in parts[2] and parts[2] != "extra_blocks":
            del parts[4]
        elif parts[2] == "conv":
            parts[3:5] = [str(2 * int(parts[3]))]
        before[".".join(parts)] = value
    assert "head.regression_head.conv.6.bias" in before and "backbone.fpn.layer_blocks.0.weight" in before
    assert recognize_dialect(before) == "torchvision"
    assert {key: id(value) for key, value in to_ours(before, "torchvision").items() if "head.logits" not in key} == {
        key: id(value) for key, value in to_ours(now, "torchvision").items() if "head.logits" not in key
    }


@pytest.mark.golden
def test_detectron2s_names_are_ours_and_back(golden: Path) -> None:
    stored = np.load(golden / "detectron2" / "retinanet_r50.npz")
    names = stored["state.keys"].tolist()
    sizes = [[int(side) for side in shape.split("x")] for shape in stored["state.shapes"].tolist()]
    theirs = {name: torch.empty(size, device="meta") for name, size in zip(names, sizes, strict=True)}
    ours = {key: value for key, value in on_meta().state_dict().items() if "num_batches" not in key}
    assert recognize_dialect(names) == "detectron2"
    assert shapes(to_ours(theirs, "detectron2")) == shapes(ours)
    assert sorted(from_ours(on_meta().state_dict(), "detectron2")) == names


def test_settings_in_older_files_of_detectron2_are_no_weights() -> None:
    network = small()
    state = from_ours(network.state_dict(), "detectron2") | {
        "pixel_mean": torch.zeros(3, 1, 1),
        "pixel_std": torch.ones(3, 1, 1),
        "anchor_generator.cell_anchors.0": torch.zeros(9, 4),
    }
    report = load_strict(small(), state, ("a", "b"))
    assert not any("pixel" in key or "anchor" in key for key in report.loaded)


# --- layouts ---
@pytest.mark.golden
def test_the_order_of_anchors_is_the_stored_permutation(golden: Path) -> None:
    permutation = np.load(golden / "detectron2" / "units.npz")["permutation"]
    logits = torch.arange(9 * 3.0)
    theirs = {"head.cls_score.bias": logits, "head.bbox_pred.bias": torch.arange(36.0)}
    ours = to_ours(theirs, "detectron2")
    assert torch.equal(ours["head.logits.bias"], logits.reshape(9, 3)[permutation].flatten())
    back = from_ours(ours, "detectron2")
    assert all(torch.equal(back[key], theirs[key]) for key in theirs)


def test_the_order_of_anchors_with_other_ratios() -> None:
    """Two ratios in three sizes: place 3 * ratio + size of ours is place 2 * size + ratio there."""
    ours = to_ours({"head.bbox_pred.bias": torch.arange(24.0)}, "detectron2")["head.deltas.bias"]
    assert ours.reshape(2, 3, 4)[1, 2].tolist() == list(range(4 * 5, 4 * 6))
    assert ours.reshape(2, 3, 4)[0, 1].tolist() == list(range(4 * 2, 4 * 3))


@pytest.mark.parametrize("boxes", [4 * 4, 4 * 7])
def test_anchors_whose_order_is_unknown_are_refused(boxes: int) -> None:
    with pytest.raises(FocaldetError, match=rf"{boxes // 4} anchors a place are not 3 sizes in several ratios"):
        to_ours({"head.bbox_pred.bias": torch.zeros(boxes)}, "detectron2")


@pytest.mark.parametrize("dialect", ["torchvision", "detectron2"])
def test_outputs_that_do_not_fit_one_another_are_refused(dialect: str) -> None:
    state = from_ours(small().state_dict(), dialect)
    logits = next(key for key in state if "cls" in key and key.endswith("bias") and len(state[key]) > 8)
    with pytest.raises(
        FocaldetError, match=r"head\.logits\.bias has 17 channels, which 9 anchors a place cannot share"
    ):
        to_ours(state | {logits: torch.zeros(17)}, dialect)
    without = {key: value for key, value in state.items() if "bbox_" not in key.rpartition(".")[0][-9:]}
    with pytest.raises(FocaldetError, match=r"the weights lack the outputs for boxes"):
        to_ours(without, dialect)


def by_class(values: Tensor) -> Tensor:
    return values.detach().reshape(9, -1, *values.shape[1:])


def test_91_numbers_become_80_classes_and_back() -> None:
    names = ["head.classification_head.cls_logits.bias", "head.regression_head.bbox_reg.bias"]
    numbers = torch.arange(91.0).repeat(9)
    ours = to_ours({names[0]: numbers, names[1]: torch.zeros(36)}, "torchvision")["head.logits.bias"]
    assert len(COCO_NUMBERS) == 80
    assert by_class(ours)[4].int().tolist() == COCO_NUMBERS
    # person, bicycle; stop sign after fire hydrant without 12; the last, toothbrush
    assert [by_class(ours)[0, label].item() for label in (0, 1, 10, 11, 79)] == [1, 2, 11, 13, 90]
    back = by_class(from_ours({"head.logits.bias": ours, "head.deltas.bias": torch.zeros(36)}, "torchvision")[names[0]])
    assert torch.equal(back[:, COCO_NUMBERS], by_class(ours))
    unused = sorted({*range(91)} - {*COCO_NUMBERS})
    assert unused == [0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83]
    assert (back[:, unused] == SILENT).all()


def test_a_network_of_own_classes_has_a_background_in_torchvision() -> None:
    network = small(num_classes=3)
    state = from_ours(network.state_dict(), "torchvision")
    logits = by_class(state["head.classification_head.cls_logits.weight"])
    assert logits.shape[1] == 4
    assert not logits[:, 0].any()
    load_strict(other := small(num_classes=3), state, ("a", "b", "c"))
    assert torch.equal(other.head.logits.weight, network.head.logits.weight)


@pytest.mark.parametrize("dialect", ["mmdetection", "torchvision", "detectron2"])
def test_a_way_there_and_back_changes_nothing(dialect: str) -> None:
    torch.manual_seed(1)
    state = small().state_dict()
    back = to_ours(from_ours(state, dialect), dialect)
    kept = {key: value for key, value in state.items() if dialect != "detectron2" or "num_batches" not in key}
    assert list(back) == list(kept)
    assert all(torch.equal(back[key], kept[key]) for key in kept)


def test_what_is_missing_left_over_or_of_another_shape_is_listed() -> None:
    state = from_ours(small().state_dict(), "torchvision")
    state["backbone.body.conv1.weight"] = torch.zeros(64, 4, 7, 7)
    state["roi_heads.box.weight"] = torch.zeros(3)
    del state["backbone.fpn.extra_blocks.p7.bias"]
    with pytest.raises(
        FocaldetError,
        match=r"in 3 of \d+ entries: backbone\.body\.conv1\.weight 64x4x7x7 instead of 64x3x7x7; "
        r"neck\.output\.4\.bias absent instead of 8; roi_heads\.box\.weight 3 instead of absent",
    ):
        load_strict(small(), state, ("a", "b"))
    report = load_fitting(small(), state, ("a", "b"))
    assert set(report.left_over) == {"backbone.body.conv1.weight", "roi_heads.box.weight"}
    assert set(report.fresh) == {"backbone.body.conv1.weight", "neck.output.4.bias"}


# --- Caffe2's backbones ---
@pytest.mark.golden
def test_caffe2s_names_become_what_detectron2_makes_of_them(golden: Path) -> None:
    units = np.load(golden / "detectron2" / "units.npz")
    names = units["caffe2.names"].tolist()
    ours = caffe2_to_timm({name: torch.full((1,), float(place)) for place, name in enumerate(names)})
    theirs = from_ours({f"backbone.body.{key}": value for key, value in ours.items()}, "detectron2")
    told = {key: value.item() for key, value in theirs.items() if "running" not in key}
    assert told == {key: float(place) for place, key in enumerate(units["caffe2.keys"].tolist())}
    assert {value.item() for key, value in theirs.items() if "running_var" in key} == {
        float(units["caffe2.running_var"])
    }
    assert {value.item() for key, value in theirs.items() if "running_mean" in key} == {0.0}


def test_a_backbone_of_caffe2_is_loaded() -> None:
    network = build_retinanet(style="caffe", neck_channels=8, head_channels=8, anchors=COCO_ANCHORS)
    wanted = network.backbone.body.state_dict()
    letters = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c"}
    letters |= {"bn1": "branch2a", "bn2": "branch2b", "bn3": "branch2c", "downsample": "branch1"}
    leaves = {"weight": "s", "bias": "b"}
    caffe2 = {"fc1000_w": torch.zeros(1000, 2048), "fc1000_b": torch.zeros(1000)}
    for key, value in wanted.items():
        *place, module, leaf = (
            key.replace("downsample.0", "downsample").replace("downsample.1", "bn_downsample").split(".")
        )
        if leaf not in leaves:
            continue
        branch = letters[module.removeprefix("bn_")] if place else ""
        norm = "bn" in module
        where = f"res{int(place[0][-1]) + 1}_{place[1]}_{branch}" if place else ("res_conv1" if norm else "conv1")
        caffe2[f"{where}_bn_{leaves[leaf]}" if norm else f"{where}_w"] = torch.rand_like(value)
    assert is_caffe2(caffe2)
    report = load_backbone(network, caffe2_to_timm(caffe2))
    assert not report.left_over
    assert torch.equal(network.backbone.body.state_dict()["layer3.5.bn2.bias"], caffe2["res4_5_branch2b_bn_b"])
