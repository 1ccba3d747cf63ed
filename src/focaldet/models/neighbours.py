"""Weights of torchvision's and detectron2's RetinaNet: their names, and what their arrays have in another order.

The same layers, so the same numbers; but detectron2 counts the anchors of a place by size first and ratio second where
we have the ratio first, and torchvision has a channel for every number that ever was a COCO category, background
included (`shared/spec/horizontal.md` sections 13 and 14).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from focaldet.errors import FocaldetError

Keys = tuple[tuple[str, str], ...]
"""(our prefix, their prefix) by pairs; of several with one of ours, the first is written and all are read."""

MOST_CONVS = 8
"""Convolutions of a tower whose numbers are written out."""


def _torchvision_tower(ours: str, theirs: str) -> Keys:
    """Return the names of a tower: its group norms and convolutions, and as they were before release 0.13."""
    return (
        (f"{ours}.{{i}}.norm.", f"{theirs}.{{i}}.1."),
        (f"{ours}.{{i}}.", f"{theirs}.{{i}}.0."),
        *((f"{ours}.{number}.", f"{theirs}.{2 * number}.") for number in range(MOST_CONVS)),
    )


TORCHVISION_KEYS: Keys = (
    ("backbone.body.", "backbone.body."),
    ("neck.output.3.", "backbone.fpn.extra_blocks.p6."),
    ("neck.output.4.", "backbone.fpn.extra_blocks.p7."),
    ("neck.output.{i}.", "backbone.fpn.layer_blocks.{i}.0."),
    ("neck.lateral.{i}.", "backbone.fpn.inner_blocks.{i}.0."),
    ("neck.output.{i}.", "backbone.fpn.layer_blocks.{i}."),  # before release 0.13
    ("neck.lateral.{i}.", "backbone.fpn.inner_blocks.{i}."),
    *_torchvision_tower("head.class_tower", "head.classification_head.conv"),
    *_torchvision_tower("head.box_tower", "head.regression_head.conv"),
    ("head.logits.", "head.classification_head.cls_logits."),
    ("head.deltas.", "head.regression_head.bbox_reg."),
)


def _detectron2_stage(number: int) -> Keys:
    """Return the names of C2 to C5: their blocks' convolutions, each with its norm, and the shortcut."""
    ours, theirs = f"backbone.body.layer{number - 1}.{{i}}", f"backbone.bottom_up.res{number}.{{i}}"
    convs = [
        pair
        for conv in (1, 2, 3)
        for pair in (
            (f"{ours}.bn{conv}.", f"{theirs}.conv{conv}.norm."),
            (f"{ours}.conv{conv}.", f"{theirs}.conv{conv}."),
        )
    ]
    return (
        *convs,
        (f"{ours}.downsample.1.", f"{theirs}.shortcut.norm."),
        (f"{ours}.downsample.0.", f"{theirs}.shortcut."),
    )


DETECTRON2_KEYS: Keys = (
    ("backbone.body.bn1.", "backbone.bottom_up.stem.conv1.norm."),
    ("backbone.body.conv1.", "backbone.bottom_up.stem.conv1."),
    *(pair for number in (2, 3, 4, 5) for pair in _detectron2_stage(number)),
    *((f"neck.lateral.{level - 3}.", f"backbone.fpn_lateral{level}.") for level in (3, 4, 5)),
    *((f"neck.output.{level - 3}.", f"backbone.fpn_output{level}.") for level in (3, 4, 5)),
    ("neck.output.3.", "backbone.top_block.p6."),
    ("neck.output.4.", "backbone.top_block.p7."),
    *((f"head.class_tower.{number}.", f"head.cls_subnet.{2 * number}.") for number in range(MOST_CONVS)),
    *((f"head.box_tower.{number}.", f"head.bbox_subnet.{2 * number}.") for number in range(MOST_CONVS)),
    ("head.logits.", "head.cls_score."),
    ("head.deltas.", "head.bbox_pred."),
)
DETECTRON2_SETTINGS = re.compile(r"pixel_(mean|std)|anchor_generator\.cell_anchors\..+")
"""What older files hold besides; it follows from the configuration."""

NUM_SIZES = 3
"""Sizes of anchors a place, the octave steps of all published networks; there may be any number of ratios."""
COCO_NUMBERS = sorted({*range(1, 91)} - {12, 26, 29, 30, 45, 66, 68, 69, 71, 83})
"""COCO's category numbers, in the order of its 80 classes."""
COCO_CHANNELS = 91
SILENT = -100.0
"""Bias of a class that nothing is ever taken for: a score of 4e-44, which no loss feels."""

CLASS_OUTPUTS = {"head.logits.weight": 0.0, "head.logits.bias": SILENT}
"""Our names of what has a channel for each anchor and class, and what a class gets that is not there."""
BOX_OUTPUTS = ("head.deltas.weight", "head.deltas.bias")


# --- detectron2: sizes first ---
def ratio_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the output channels, under our names, from detectron2's order of anchors into ours."""
    return _reordered(state, lambda anchors: (NUM_SIZES, anchors // NUM_SIZES))


def size_first(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring the output channels, under our names, from our order of anchors into detectron2's."""
    return _reordered(state, lambda anchors: (anchors // NUM_SIZES, NUM_SIZES))


def _reordered(state: Mapping[str, Tensor], loops: Callable[[int], tuple[int, int]]) -> dict[str, Tensor]:
    """Exchange the (outer, inner) loop over the anchors of a place in all output channels."""
    result = dict(state)
    for key in {*CLASS_OUTPUTS, *BOX_OUTPUTS} & state.keys():
        anchors = _num_anchors(state)
        if anchors % NUM_SIZES:
            raise FocaldetError(
                f"{anchors} anchors a place are not {NUM_SIZES} sizes in several ratios, so that their order in "
                "detectron2 is not known; take a network with the anchors of the published ones"
            )
        outer, inner = loops(anchors)
        by_anchor = _by_anchor(state, key)
        grouped = by_anchor.reshape(outer, inner, *by_anchor.shape[1:])
        result[key] = grouped.transpose(0, 1).flatten(0, 2)
    return result


def _num_anchors(state: Mapping[str, Tensor]) -> int:
    """Return the anchors a place of upright boxes."""
    deltas = next((state[key] for key in BOX_OUTPUTS if key in state), None)
    if deltas is None:
        raise FocaldetError("the weights lack the outputs for boxes, which tell how many anchors a place has")
    return len(deltas) // 4


def _by_anchor(state: Mapping[str, Tensor], key: str) -> Tensor:
    """View output channels (anchors * K, ...) as (anchors, K, ...)."""
    values, anchors = state[key], _num_anchors(state)
    if not anchors or len(values) % anchors:
        raise FocaldetError(f"{key} has {len(values)} channels, which {anchors} anchors a place cannot share out")
    return values.reshape(anchors, -1, *values.shape[1:])


# --- torchvision: more channels than classes ---
def drop_unused_classes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave the channels of classes: COCO's 80 of 91 by their number, else all but the first, the background's."""
    result = dict(state)
    for key in CLASS_OUTPUTS.keys() & state.keys():
        channels = _by_anchor(state, key)
        count = channels.shape[1]
        result[key] = channels[:, COCO_NUMBERS if count == COCO_CHANNELS else range(1, count)].flatten(0, 1)
    return result


def add_unused_classes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `drop_unused_classes`: 80 classes become COCO's 91 channels; the new channels never answer."""
    result = dict(state)
    for key in CLASS_OUTPUTS.keys() & state.keys():
        channels = _by_anchor(state, key)
        anchors, count = channels.shape[:2]
        is_coco = count == len(COCO_NUMBERS)
        shape = (anchors, COCO_CHANNELS if is_coco else count + 1, *channels.shape[2:])
        wide = channels.new_full(shape, CLASS_OUTPUTS[key])
        wide[:, COCO_NUMBERS if is_coco else range(1, count + 1)] = channels
        result[key] = wide.flatten(0, 1)
    return result


# --- Caffe2's backbones ---
CAFFE2_BRANCHES = {
    "branch1": ("downsample.0", "downsample.1"),
    "branch2a": ("conv1", "bn1"),
    "branch2b": ("conv2", "bn2"),
    "branch2c": ("conv3", "bn3"),
}
"""Convolution and norm of the parts of a block."""
CAFFE2_LEAVES = {"w": (0, "weight"), "bn_s": (1, "weight"), "bn_b": (1, "bias")}


def is_caffe2(names: Iterable[str]) -> bool:
    """Tell whether weights are those of a backbone of Caffe2, such as detectron2's `R-50.pkl`.

    >>> is_caffe2(["conv1_w", "res_conv1_bn_s", "fc1000_w"])
    True
    """
    return "res_conv1_bn_s" in set(names)


def caffe2_to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a Caffe2 ResNet's weights to timm's, with the statistics of its norms, which they have folded: 0 and 1.

    What has no place in a backbone, such as the classifier, is left out.
    """
    result = {timm: value for name, value in state.items() if (timm := caffe2_name(name))}
    for name in [name for name in result if name.endswith(".bias")]:
        module = name.removesuffix("bias")
        result[f"{module}running_mean"] = torch.zeros_like(result[name])
        result[f"{module}running_var"] = torch.ones_like(result[name])
    return result


def caffe2_name(name: str) -> str | None:
    """Return timm's name of a weight of a Caffe2 ResNet; None if a backbone has none.

    >>> caffe2_name("res2_0_branch2a_bn_s"), caffe2_name("res_conv1_bn_b"), caffe2_name("fc1000_w")
    ('layer1.0.bn1.weight', 'bn1.bias', None)
    """
    match = re.fullmatch(r"(?:res_)?conv1_(\w+)|res([2-5])_(\d+)_(branch1|branch2[abc])_(\w+)", name)
    if match is None:
        return None
    stem, stage, block, branch, rest = match.groups()
    leaf = CAFFE2_LEAVES.get(stem or rest)
    if leaf is None:
        return None
    place, entry = leaf
    if stem:
        return f"{('conv1', 'bn1')[place]}.{entry}"
    return f"layer{int(stage) - 1}.{block}.{CAFFE2_BRANCHES[branch][place]}.{entry}"
