"""Losses of the boxes of positive anchors, summed over boxes and coordinates; never in half precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from focaldet.geometry.hbox import in_full_precision
from focaldet.geometry.iou import hbox_ciou_aligned, hbox_diou_aligned, hbox_giou_aligned
from focaldet.geometry.rotated_coders import atan_form

IoUForm = Literal["log", "exp"]
OverlapForm = Literal["giou", "diou", "ciou"]

OVERLAPS: dict[OverlapForm, Callable[[Tensor, Tensor], Tensor]] = {
    "giou": hbox_giou_aligned,
    "diou": hbox_diou_aligned,
    "ciou": hbox_ciou_aligned,
}

EPSILON = 1e-5
"""Added by the original program to the smooth L1 that IoU-smooth L1 divides by."""


def l1_loss(deltas: Tensor, targets: Tensor) -> Tensor:
    """Sum |deltas - targets| over (P, D); 0 and still differentiable without positives."""
    return (in_full_precision(deltas) - targets).abs().sum()


def smooth_l1_loss(deltas: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Sum over (P, D) what is d^2 / (2 beta) up to `beta` and d - beta / 2 beyond, d = |deltas - targets|.

    Girshick 2015, arXiv:1504.08083, section 2.3, with a movable bend; L1 where beta is 0. Programs that write the bend
    as sigma mean beta = 1 / sigma^2.

    >>> import torch
    >>> smooth_l1_loss(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2), beta=1.0)
    tensor(2.6250)
    """
    return F.smooth_l1_loss(in_full_precision(deltas), targets, reduction="sum", beta=beta)


def smooth_l1_one_sided_loss(deltas: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Sum smooth L1 of the signed d = deltas - targets: an answer that is too small costs the square, however small.

    A quirk of the original rotated programs from November 2019 to July 2020, which had lost the absolute value
    (`shared/spec/rotated.md` section 2.6).

    >>> smooth_l1_one_sided_loss(torch.tensor([[-3.0, 3.0]]), torch.zeros(1, 2), beta=1.0)
    tensor(7.)
    """
    difference = in_full_precision(deltas) - targets
    return torch.where(difference < beta, difference.square() / (2 * beta), difference - beta / 2).sum()


def smooth_l1_atan_loss(deltas: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Sum smooth L1 over (P, 5) with the difference of the angles put through the arc tangent (`atan_form`)."""
    difference = atan_form(in_full_precision(deltas) - targets)
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="sum", beta=beta)


def iou_smooth_l1_loss(
    deltas: Tensor, targets: Tensor, beta: float, ious: Tensor, form: IoUForm = "log", floor: float = 0.0
) -> Tensor:
    """Sum over boxes a loss of the IoU that has the direction of smooth L1's gradient.

        loss = sum of L f / (L + 1e-5),    f = -log(IoU)    or    f = exp(1 - IoU) - 1

    L is a box's smooth L1 over its D deltas. All but the first L is taken as a constant, so that no gradient of the IoU
    is needed (Yang et al. 2019, arXiv:1811.07126, section 3.5; `shared/spec/rotated.md` section 2.6).

    Args:
        deltas: (P, D), as predicted.
        targets: (P, D).
        beta: where smooth L1 turns from square to straight.
        ious: (P,) overlaps of the boxes that `deltas` and `targets` mean.
        form: which f.
        floor: smallest IoU of the form "log". With 0, a box that misses its truth makes the loss infinite.

    >>> off = torch.tensor([[0.3, 0.0, 0.0, 0.0, 0.0]])
    >>> iou_smooth_l1_loss(off, torch.zeros(1, 5), 1 / 9, ious=torch.tensor([0.5]))
    tensor(0.6931)
    """
    each = F.smooth_l1_loss(in_full_precision(deltas), targets, reduction="none", beta=beta).sum(-1)
    ious = ious.detach()
    wanted = -ious.clamp(min=floor).log() if form == "log" else (1 - ious).expm1()
    return (each * (wanted / (each.detach() + EPSILON)).to(each.dtype)).sum()


def overlap_loss(boxes: Tensor, truths: Tensor, form: OverlapForm) -> Tensor:
    """Sum 1 - GIoU, 1 - DIoU or 1 - CIoU over hboxes (P, 4) and those that they should be, (P, 4), in any frame.

    Rezatofighi et al. 2019, arXiv:1902.09630; Zheng et al. 2020, arXiv:1911.08287.

    >>> import torch
    >>> overlap_loss(torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 6.0, 4.0]]), "giou")
    tensor(0.6667)
    """
    return (1 - OVERLAPS[form](boxes, truths)).sum()
