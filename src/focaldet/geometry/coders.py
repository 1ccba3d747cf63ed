"""Boxes to deltas and back: what the box tower is taught to say, and what its answers mean."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from focaldet.geometry.hbox import check_hboxes, in_full_precision

MAX_LOG_SCALE = abs(math.log(16 / 1000))
"""Largest |dw|, |dh| that is believed (R-CNN's limit): a box is at most 62.5 times its anchor's size."""


def encode_hbox(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Say where boxes lie, seen from anchors; `decode_hbox` undoes it.

        dx = (x - x_a) / w_a    dy = (y - y_a) / h_a    dw = log(w / w_a)    dh = log(h / h_a)

    with centres (x, y) and sizes (w, h), in the order of operations of the published programs
    (Girshick et al. 2014, arXiv:1311.2524, appendix C).

    Args:
        boxes: (..., 4) hboxes with area, in any frame.
        anchors: (..., 4) hboxes with area, in that frame.

    Returns:
        (..., 4) deltas dx, dy, dw, dh without unit; at least float32. A box without area gives an infinite dw or dh.
    """
    check_hboxes(boxes, "boxes")
    check_hboxes(anchors, "anchors")
    boxes, anchors = in_full_precision(boxes), in_full_precision(anchors)
    centre, size = (boxes[..., :2] + boxes[..., 2:]) * 0.5, boxes[..., 2:] - boxes[..., :2]
    anchor_centre, anchor_size = (anchors[..., :2] + anchors[..., 2:]) * 0.5, anchors[..., 2:] - anchors[..., :2]
    return torch.cat([(centre - anchor_centre) / anchor_size, (size / anchor_size).log()], dim=-1)


def decode_hbox(
    deltas: Tensor, anchors: Tensor, max_log_scale: float = MAX_LOG_SCALE, min_log_scale: float | None = None
) -> Tensor:
    """Turn the deltas that a head predicts into hboxes; undoes `encode_hbox`, up to the clamp.

    Args:
        deltas: (..., 4) dx, dy, dw, dh without unit.
        anchors: (..., 4) hboxes, in any frame.
        max_log_scale: dw and dh are clamped to this from above; dx and dy are free.
        min_log_scale: and to this from below; None: to minus `max_log_scale`.

    Returns:
        (..., 4) hboxes in that frame, not clipped; at least float32.
    """
    check_hboxes(deltas, "deltas")
    check_hboxes(anchors, "anchors")
    deltas, anchors = in_full_precision(deltas), in_full_precision(anchors)
    anchor_centre, anchor_size = (anchors[..., :2] + anchors[..., 2:]) * 0.5, anchors[..., 2:] - anchors[..., :2]
    least = -max_log_scale if min_log_scale is None else min_log_scale
    log_scale = deltas[..., 2:].clamp(least, max_log_scale)  # exp of an untrained output overflows
    centre, half = anchor_centre + anchor_size * deltas[..., :2], anchor_size * log_scale.exp() * 0.5
    return torch.cat([centre - half, centre + half], dim=-1)
