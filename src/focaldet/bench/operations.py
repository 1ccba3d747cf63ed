"""Single steps of detection beside torchvision's: the dense matrix, the one-hot targets, the NMS class by class."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection._utils import Matcher
from torchvision.ops import batched_nms, box_iou, sigmoid_focal_loss

from focaldet.bench.clock import Task
from focaldet.bench.networks import COCO, NUM_CLASSES, R3DET, random_truth
from focaldet.bench.rate import CHANNELS
from focaldet.engine.build import build_assign_rule, build_model
from focaldet.geometry.nms import nms_hbox
from focaldet.losses.focal import focal_loss
from focaldet.models.anchors import AnchorShapes
from focaldet.models.inference import prepare_for_inference
from focaldet.recipes import get_recipe
from focaldet.structures import AnchorGrid, Size
from focaldet.targets.assign import assign

NUM_TRUTHS = 300
NUM_CANDIDATES = 5000
"""Boxes before NMS: 1,000 of each of five levels at most."""
POSITIVE_SHARE, IGNORED_SHARE = 1e-3, 2e-3
"""Parts of the anchors that are positive and ignored in a picture with many objects."""


def assign_tasks(size: Size) -> dict[str, Task]:
    """Return the assignment of 300 objects to the anchors of an input of (height, width), and the dense way to it."""
    recipe = get_recipe(COCO.recipe)
    grid, truths = anchors_of(size), random_truth(size, NUM_TRUTHS).boxes
    rule, anchors = build_assign_rule(recipe), torch.cat(grid.levels())
    matcher = Matcher(recipe.positive, recipe.negative, allow_low_quality_matches=True)
    return {
        "focaldet": lambda: assign(grid, truths, rule),
        "torchvision": lambda: matcher(box_iou(truths, anchors)),
    }


def focal_tasks(size: Size) -> dict[str, Task]:
    """Return the focal loss, forward and backward, of the logits of an input of (height, width)."""
    num_anchors = sum(anchors_of(size).counts)
    logits = (torch.randn(num_anchors, NUM_CLASSES) - 4).requires_grad_()
    chosen = torch.randperm(num_anchors)[: int((POSITIVE_SHARE + IGNORED_SHARE) * num_anchors)]
    count = int(POSITIVE_SHARE * num_anchors)
    positives, ignored = chosen[:count].sort().values, chosen[count:].sort().values
    labels = torch.randint(NUM_CLASSES, (count,))

    def dense() -> Tensor:
        targets = torch.zeros_like(logits)
        targets[positives, labels] = 1.0
        valid = torch.ones(num_anchors, dtype=torch.bool)
        valid[ignored] = False
        loss: Tensor = sigmoid_focal_loss(logits[valid], targets[valid], reduction="sum")
        return loss

    return {
        "focaldet": lambda: backward(lambda: focal_loss(logits, positives, labels, ignored), logits),
        "torchvision": lambda: backward(dense, logits),
    }


def nms_tasks(size: Size) -> dict[str, Task]:
    """Return the NMS of 5,000 boxes of 80 classes, several on each object, within (height, width)."""
    objects = random_truth(size, NUM_CANDIDATES // 10)
    boxes = objects.boxes.repeat(10, 1)
    extent = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + 0.05 * extent * torch.randn(len(boxes), 4)
    scores, labels = torch.rand(len(boxes)), objects.labels.repeat(10)
    return {
        "focaldet": lambda: nms_hbox(boxes, scores, labels, 0.5),
        "torchvision": lambda: batched_nms(boxes, scores, labels, 0.5),
    }


def sampling_tasks(size: Size, dtype: torch.dtype) -> dict[str, Task]:
    """Return the convolutions of R3Det's feature refinement of an input of (height, width), and what else it does.

    The box of every place has its centre about a stride away from it.
    """
    torch.manual_seed(0)
    network = build_model(get_recipe(R3DET.recipe))
    convs = prepare_for_inference(network, dtype).get_submodule("refine.0.alignment.convs.0")
    bare: Any = network.get_submodule("refine.0.alignment")
    bare.convs = nn.ModuleList([nn.Identity()])
    grid = network.anchors.grid_for(size).as_coded()
    pyramid = [
        torch.randn(1, CHANNELS, *places).to(dtype=dtype, memory_format=torch.channels_last) for places in grid.sizes
    ]
    boxes = [
        level[None, :: len(shapes)] + stride * torch.randn(math.prod(places), 5) * torch.tensor([1, 1, 0, 0, 0])
        for level, shapes, stride, places in zip(grid.levels(), grid.shapes, grid.strides, grid.sizes, strict=True)
    ]
    return {
        "its convolutions": torch.inference_mode()(lambda: [convs(level) for level in pyramid]),
        "its sampling and sums": torch.inference_mode()(lambda: bare(pyramid, boxes)),
    }


def anchors_of(size: Size) -> AnchorGrid:
    """Return the COCO rows' anchors of an input of (height, width)."""
    recipe = get_recipe(COCO.recipe)
    strides = tuple(2**level for level in recipe.levels)
    return AnchorShapes(recipe.anchor_scales, recipe.anchor_ratios, strides, recipe.anchor_offset).grid_for(size)


def backward(loss: Callable[[], Tensor], logits: Tensor) -> None:
    """Work out a loss and its gradient, and forget both."""
    loss().backward()  # type: ignore[no-untyped-call]
    logits.grad = None
