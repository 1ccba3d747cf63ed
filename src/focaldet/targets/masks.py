"""What the semantic branch of R3Det++ should have said: the truth boxes painted on the grid of every level.

Yang et al. 2020, arXiv:2004.13316, section 3.2; painted as the original program does (`shared/spec/rotated.md` 5.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.structures import IGNORED, Size, Truth
from focaldet.targets.encode import sorted_out

MaskKind = Literal["classes", "binary"]

FARTHEST = 2**30
"""Pixels of a map; a corner that lies farther counts as lying so far."""


def build_masks(
    truths: Sequence[Truth],
    sizes: Sequence[Size],
    picture: Size,
    *,
    kind: MaskKind = "classes",
    leave_out: bool = False,
    valid: Tensor | None = None,
) -> list[Tensor]:
    """Paint the truth of a batch, from the largest box to the smallest, so that small ones stay visible.

    Args:
        truths: one per picture; boxes (G, 5) rboxes in the frame `input`.
        sizes: (height, width) of each level's map.
        picture: (height, width) of the input.
        kind: whether every class has its own number, or all objects are 1.
        leave_out: pixels of ignored objects take no part; else these objects are not painted.
        valid: (B, places) bool, places that belong to the picture itself, levels joined; the others take no part.

    Returns:
        A level, (B, H, W) int64 on the CPU: 0 background, 1 + label (binary: 1) an object, IGNORED no part.

    >>> truth = Truth(torch.tensor([[16.0, 16.0, 24.0, 8.0, 0.0]]), torch.tensor([4]))
    >>> build_masks([truth], [(4, 4)], (32, 32))[0]
    tensor([[[0, 0, 0, 0],
             [5, 5, 5, 5],
             [5, 5, 5, 5],
             [0, 0, 0, 0]]])
    """
    masks = [torch.zeros(len(truths), *size, dtype=torch.int64) for size in sizes]
    for number, truth in enumerate(truths):
        boxes, values = _in_painting_order(truth, kind, leave_out)
        corners = rbox_to_polygon(boxes).double().reshape(-1, 4, 2)
        for mask in masks:
            _paint(mask[number], corners, values, picture)
    if valid is not None:
        first = 0
        for mask in masks:
            inside = valid[:, first : first + mask[0].numel()].cpu()
            mask[~inside.reshape(mask.shape)] = IGNORED
            first += mask[0].numel()
    return masks


def _in_painting_order(truth: Truth, kind: MaskKind, leave_out: bool) -> tuple[Tensor, Tensor]:
    """Return boxes (N, 5) float32 by falling area, and what each is painted with."""
    boxes, labels, apart = sorted_out(truth)
    values = (labels + 1 if kind == "classes" else torch.ones_like(labels)).masked_fill(apart, IGNORED)
    if not leave_out:
        boxes, values = boxes[~apart], values[~apart]
    order = boxes[:, 2:4].prod(dim=1).argsort(descending=True, stable=True)
    return boxes[order], values[order]


def _paint(mask: Tensor, corners: Tensor, values: Tensor, picture: Size) -> None:
    """Paint corners (N, 4, 2), in the frame `input`, into one map (H, W), truncated to whole pixels of it."""
    from focaldet.targets.painting import paint  # compiled when it is first needed

    scaled = corners * corners.new_tensor([mask.shape[1], mask.shape[0]])
    scaled = scaled / scaled.new_tensor([picture[1], picture[0]])
    whole = scaled.trunc().clamp(-FARTHEST, FARTHEST).long()
    paint(mask.numpy(), np.ascontiguousarray(whole.numpy()), values.numpy())
