"""Losses of the boxes of positive anchors, summed over boxes and coordinates; never in half precision."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.hbox import in_full_precision
from focaldet.geometry.iou import hbox_giou_aligned


def l1_loss(deltas: Tensor, targets: Tensor) -> Tensor:
    """Sum |deltas - targets| over (P, D); 0 and still differentiable without positives."""
    return (in_full_precision(deltas) - targets).abs().sum()


def smooth_l1_loss(deltas: Tensor, targets: Tensor, beta: float) -> Tensor:
    """Sum over (P, D) what is d^2 / (2 beta) up to `beta` and d - beta / 2 beyond, d = |deltas - targets|.

    Girshick 2015, arXiv:1504.08083, section 2.3, with a movable bend; L1 where beta is 0.

    >>> import torch
    >>> smooth_l1_loss(torch.tensor([[0.5, 3.0]]), torch.zeros(1, 2), beta=1.0)
    tensor(2.6250)
    """
    return F.smooth_l1_loss(in_full_precision(deltas), targets, reduction="sum", beta=beta)


def giou_loss(deltas: Tensor, targets: Tensor, anchors: Tensor) -> Tensor:
    """Sum 1 - GIoU over the boxes that deltas (P, 4) and targets (P, 4) mean, seen from anchors (P, 4) in any frame.

    Rezatofighi et al. 2019, arXiv:1902.09630.
    """
    return (1 - hbox_giou_aligned(decode_hbox(deltas, anchors), decode_hbox(targets, anchors))).sum()
