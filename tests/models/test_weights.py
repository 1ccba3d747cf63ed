from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.models.anchors import COCO_ANCHORS, AnchorShapes
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import (
    adapt_channels,
    from_ours,
    load_backbone,
    load_fitting,
    load_strict,
    recognize_dialect,
    to_ours,
)


def upright(*strides: int) -> AnchorShapes:
    return replace(COCO_ANCHORS, strides=strides)


SMALL = {
    "backbone": "resnet18",
    "neck_channels": 8,
    "head_channels": 8,
    "head_convs": 1,
    "anchors": upright(8, 16, 32, 64),
}


def small(num_classes: int, seed: int = 0, **changes: object) -> RetinaNet:
    torch.manual_seed(seed)
    return build_retinanet(**(SMALL | {"num_classes": num_classes} | changes))  # type: ignore[arg-type]


def class_channels(model: RetinaNet, label: int, num_classes: int) -> torch.Tensor:
    return model.head.logits.weight.detach().reshape(9, num_classes, -1)[:, label]


@pytest.mark.parametrize("dialect", ["focaldet", "mmdetection"])
def test_a_dialect_is_recognized_and_renaming_comes_back(dialect: str) -> None:
    state = small(2).state_dict()
    renamed = from_ours(state, dialect)
    assert recognize_dialect(renamed) == dialect
    assert list(to_ours(renamed, dialect)) == list(state)


@pytest.mark.parametrize("keys", [[], ["fc.weight"], ["backbone.conv1.weight", "rpn_head.conv.weight"]])
def test_other_networks_are_refused(keys: list[str]) -> None:
    with pytest.raises(FocaldetError, match=r"no weights of a RetinaNet"):
        recognize_dialect(keys)


def test_weights_of_the_same_classes_are_all_loaded() -> None:
    source, target = small(3, seed=1), small(3)
    state = from_ours(source.state_dict(), "mmdetection")
    report = load_fitting(target, state, ("a", "b", "c"), ("a", "b", "c"))
    assert len(report.loaded) == len(state)
    assert not (report.joined or report.fresh or report.left_over)
    assert all(torch.equal(value, source.state_dict()[key]) for key, value in target.state_dict().items())


def test_classes_are_joined_by_name_and_new_ones_keep_the_prior() -> None:
    source, target = small(3, seed=1), small(2)
    fresh = class_channels(target, 0, 2).clone()
    source.head.logits.bias.data.fill_(7.0)
    report = load_fitting(target, source.state_dict(), ("ship", "car"), ("person", "car", "dog"))
    assert report.joined == ("car",)
    assert report.fresh == ("class ship",)
    assert report.left_over == ("class person", "class dog")
    torch.testing.assert_close(class_channels(target, 1, 2), class_channels(source, 1, 3), rtol=0, atol=0)
    torch.testing.assert_close(class_channels(target, 0, 2), fresh, rtol=0, atol=0)
    bias = target.head.logits.bias.detach().reshape(9, 2)
    assert bias[:, 1].eq(7).all()
    assert torch.sigmoid(bias[:, 0]).sub(0.01).abs().max() < 1e-6
    assert report.lines()[1:] == [
        "weights joined by class name: car",
        "weights that start anew: class ship",
        "weights left over in the file: class person, class dog",
    ]


def test_a_head_of_another_width_starts_anew() -> None:
    report = load_fitting(small(2), small(2, seed=1, head_channels=16).state_dict(), ("a", "b"), ("b", "c"))
    assert "head.logits.weight" in report.fresh and "head.logits.bias" in report.fresh
    assert "head.class_tower.0.weight" in report.fresh and "head.class_tower.0.weight" in report.left_over
    assert "neck.lateral.0.weight" in report.loaded
    assert not report.joined


def test_strict_loading_takes_all_or_refuses_with_both_lists() -> None:
    source, target = small(2, seed=1), small(2)
    load_strict(target, from_ours(source.state_dict(), "mmdetection"), ("a", "b"))
    torch.testing.assert_close(target.head.logits.weight, source.head.logits.weight, rtol=0, atol=0)
    with pytest.raises(FocaldetError, match=r"know 2 classes \(b, a\), the model has 2 \(a, b\)"):
        load_strict(target, source.state_dict(), ("a", "b"), ("b", "a"))
    with pytest.raises(
        FocaldetError, match=r"in 2 of \d+ entries: head.logits.bias 27 instead of 18; head.logits.weight"
    ):
        load_strict(target, small(3).state_dict(), ("a", "b"))
    state = source.state_dict()
    del state["neck.output.0.bias"]
    with pytest.raises(FocaldetError, match=r"neck.output.0.bias absent instead of 8"):
        load_strict(target, state, ("a", "b"))


def test_a_refused_state_changes_nothing() -> None:
    target = small(2)
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(FocaldetError):
        load_strict(target, small(3, seed=1).state_dict(), ("a", "b"))
    assert all(torch.equal(value, before[key]) for key, value in target.state_dict().items())


def test_backbone_weights_leave_the_classifier_over() -> None:
    source, target = small(2, seed=1), small(2)
    state = {key: value.half() for key, value in source.backbone.body.state_dict().items()}
    report = load_backbone(target, state | {"fc.weight": torch.zeros(3)})
    assert report.left_over == ("fc.weight",)
    loaded = target.backbone.body.state_dict()["layer4.1.conv2.weight"]
    assert loaded.dtype == torch.float32
    torch.testing.assert_close(loaded, state["layer4.1.conv2.weight"].float(), rtol=0, atol=0)


def test_flattened_names_of_timm_are_understood() -> None:
    target = small(2, backbone="convnext_femto", anchors=upright(8, 16, 32))
    state = {key.replace("_", ".", 1): value + 1 for key, value in target.backbone.body.state_dict().items()}
    assert "stages.0.blocks.0.conv_dw.weight" in state
    assert not load_backbone(target, state).left_over


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(FocaldetError, match=r"these are no weights of resnet18: \d+ of \d+ entries are absent"):
        load_backbone(small(2), {"conv1.weight": torch.zeros(64, 3, 7, 7)})


@pytest.mark.parametrize(("channels", "expected"), [(1, [6.0]), (2, [1.5, 3.0]), (4, [0.75, 1.5, 2.25, 0.75])])
def test_the_first_convolution_fits_pictures_of_other_channels(channels: int, expected: list[float]) -> None:
    weight = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    adapted = adapt_channels(weight, torch.Size([1, channels, 1, 1]))
    assert adapted.flatten().tolist() == expected


def test_a_network_of_four_channels_takes_weights_of_three() -> None:
    target = small(2, in_channels=4)
    load_backbone(target, small(2, seed=1).backbone.body.state_dict())
    with torch.inference_mode():
        assert target.eval()(torch.zeros(1, 4, 64, 64))[0].logits[0].shape == (1, 8 * 8 * 9, 2)
