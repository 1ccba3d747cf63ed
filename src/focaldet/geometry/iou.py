"""IoU of hboxes, pairwise and aligned, in the order of operations of the published assignment.

Exact ties between anchors decide which of them a truth box claims, and a tie in float32 is a matter of rounding:
so float32 boxes are computed in float32, and the union is floored at `MIN_UNION`, as the published programs do.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import area_hbox, check_hboxes, in_full_precision

MIN_UNION = 1e-6
"""Floor of the denominator, in square pixels: boxes without area have IoU 0, not 0 / 0."""


def hbox_iou(boxes1: Tensor, boxes2: Tensor, over: Literal["union", "first"] = "union") -> Tensor:
    """Return the overlap of every box of one set with every box of another.

    Args:
        boxes1: (N, 4) hboxes.
        boxes2: (M, 4) hboxes in the same frame.
        over: what the area of the intersection is divided by: the area of the union, or of the box of `boxes1`.

    Returns:
        (N, M), 0 where the two do not overlap.

    >>> hbox_iou(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0], [9.0, 9.0, 10.0, 10.0]]))
    tensor([[0.3333, 0.0000]])
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    overlap = _overlap(boxes1[:, None], boxes2[None])
    if over == "first":
        return overlap / area_hbox(boxes1)[:, None].clamp(min=MIN_UNION)
    return overlap / (area_hbox(boxes1)[:, None] + area_hbox(boxes2)[None] - overlap).clamp(min=MIN_UNION)


def hbox_iou_aligned(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the IoU (N,) of each hbox (N, 4) with the one at the same place of the other set; differentiable."""
    boxes1, boxes2 = _checked(boxes1, boxes2)
    _check_aligned(boxes1, boxes2)
    overlap = _overlap(boxes1, boxes2)
    return overlap / (area_hbox(boxes1) + area_hbox(boxes2) - overlap).clamp(min=MIN_UNION)


def hbox_giou_aligned(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the generalized IoU (N,) of aligned hboxes (N, 4): IoU minus the empty share of the enclosing box.

    In (-1, 1], with a gradient also where the boxes are apart (Rezatofighi et al. 2019, arXiv:1902.09630).
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    _check_aligned(boxes1, boxes2)
    overlap = _overlap(boxes1, boxes2)
    union = area_hbox(boxes1) + area_hbox(boxes2) - overlap
    low, high = torch.minimum(boxes1[:, :2], boxes2[:, :2]), torch.maximum(boxes1[:, 2:], boxes2[:, 2:])
    hull = area_hbox(torch.cat([low, high], dim=-1))
    return overlap / union.clamp(min=MIN_UNION) - (hull - union) / hull.clamp(min=MIN_UNION)


def hbox_diou_aligned(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the distance IoU (N,) of aligned hboxes (N, 4): IoU minus how far apart their centres are.

    The square of the distance, over that of the enclosing box's diagonal (Zheng et al. 2020, arXiv:1911.08287).
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    _check_aligned(boxes1, boxes2)
    low, high = torch.minimum(boxes1[:, :2], boxes2[:, :2]), torch.maximum(boxes1[:, 2:], boxes2[:, 2:])
    apart = (boxes1[:, :2] + boxes1[:, 2:] - boxes2[:, :2] - boxes2[:, 2:]) / 2
    share = apart.square().sum(1) / (high - low).square().sum(1).clamp(min=MIN_UNION)
    return hbox_iou_aligned(boxes1, boxes2) - share


def hbox_ciou_aligned(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Return the complete IoU (N,) of aligned hboxes (N, 4): the distance IoU minus how unlike their shapes are.

    Of the weight of that last term no gradient is taken (Zheng et al. 2020, arXiv:1911.08287, section 3.3).
    """
    boxes1, boxes2 = _checked(boxes1, boxes2)
    _check_aligned(boxes1, boxes2)
    angles = [torch.atan((boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])) for boxes in (boxes1, boxes2)]
    unlike = 4 / math.pi**2 * (angles[0] - angles[1]).square()
    with torch.no_grad():
        weight = unlike / (1 - hbox_iou_aligned(boxes1, boxes2) + unlike).clamp(min=MIN_UNION)
    return hbox_diou_aligned(boxes1, boxes2) - weight * unlike


def _overlap(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    low, high = torch.maximum(boxes1[..., :2], boxes2[..., :2]), torch.minimum(boxes1[..., 2:], boxes2[..., 2:])
    sides = (high - low).clamp(min=0)
    return sides[..., 0] * sides[..., 1]


def _checked(boxes1: Tensor, boxes2: Tensor) -> tuple[Tensor, Tensor]:
    check_hboxes(boxes1, "boxes1")
    check_hboxes(boxes2, "boxes2")
    return in_full_precision(boxes1), in_full_precision(boxes2)


def _check_aligned(boxes1: Tensor, boxes2: Tensor) -> None:
    if boxes1.shape != boxes2.shape:
        shapes = f"{tuple(boxes1.shape)} and {tuple(boxes2.shape)}"
        raise FocaldetError(f"aligned boxes have shapes {shapes}; give two sets of the same length")
