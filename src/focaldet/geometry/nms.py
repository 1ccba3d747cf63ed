"""Greedy non-maximum suppression of hboxes, class by class."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torchvision.ops import nms

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import check_hboxes, in_full_precision

MAX_OFFSET_BOXES = 10_000
"""The published offset trick handles more boxes than this class by class after all."""


def nms_hbox(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float,
    labels_apart: Literal["separate", "offset"] = "separate",
) -> Tensor:
    """Keep the best boxes of every class: walk by falling score, drop what overlaps a kept box of its class too much.

    Args:
        boxes: (N, 4) hboxes in any frame.
        scores: (N,).
        labels: (N,) int64; boxes of different labels never suppress one another.
        iou_threshold: an IoU above it suppresses, one equal to it does not; 0 / 0 suppresses nothing.
        labels_apart: how classes are kept apart. "separate" runs each by itself, which is exact. "offset" is the
            published quirk: all boxes shifted by label * (largest coordinate + 1) in float32, then one NMS; the shift
            costs digits, so that pairs within about 1e-4 of the threshold can go the other way.

    Returns:
        (K,) int64 indices of the kept boxes by falling score; equal scores in their given order.
    """
    check_hboxes(boxes, "boxes")
    if not len(boxes) == len(scores) == len(labels):
        raise FocaldetError(
            f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels; give one of each a box"
        )
    boxes, scores = in_full_precision(boxes), in_full_precision(scores)
    if len(boxes) == 0:
        return torch.zeros(0, dtype=torch.int64, device=boxes.device)
    if labels_apart == "offset" and len(boxes) < MAX_OFFSET_BOXES:
        kept = nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, iou_threshold)
    else:
        order = torch.argsort(labels, stable=True)
        counts = torch.unique_consecutive(labels[order], return_counts=True)[1].tolist()
        kept = torch.cat(
            [group[nms(boxes[group], scores[group], iou_threshold)] for group in torch.split(order, counts)]
        )
    kept = kept.sort().values  # so that the stable sort leaves equal scores in their given order
    by_score: Tensor = kept[torch.argsort(scores[kept], descending=True, stable=True)]
    return by_score
