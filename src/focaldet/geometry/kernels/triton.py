"""IoU and NMS of rotated boxes on CUDA: tables, tiles and launches of the kernels in `triton_kernels.py`.

Nothing here waits for the device, except that the caller of `nms` must learn how many boxes are kept. Import it only
where Triton is installed. With TRITON_INTERPRET=1, set before Triton is imported, all of it also runs, slowly, on CPU
tensors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
from torch import Tensor

from focaldet.geometry.kernels.triton_kernels import (
    HULL_MARGIN,
    WORD,
    fill_aligned,
    fill_mask,
    fill_pairwise,
    resolve,
    suppress,
)

PAIR_ROWS, PAIR_COLUMNS = 16, 32
"""Boxes of the first and of the second set in one tile of `pairwise_iou`."""
ALIGNED_PAIRS = 128
"""Pairs in one program of `aligned_iou`."""
NMS_ROWS = 8
"""Boxes that one program of NMS compares with the 64 boxes of a word."""
SEGMENT_WORDS = 64
"""Words in a row of the bit mask: NMS resolves up to 64 x 64 boxes at once, and longer inputs in several segments."""

# Sums and products may be fused: the kernels lose no digit by it. The one program that resolves gets more threads.
OPTIONS: dict[str, Any] = {"num_warps": 4, "enable_fp_fusion": True}
RESOLVE_OPTIONS: dict[str, Any] = {"num_warps": 8, "enable_fp_fusion": True}


def pairwise_iou(boxes1: Tensor, boxes2: Tensor, over_first: bool) -> Tensor:
    """Return the IoU of every pair, or the intersection over the area of the first box.

    Args:
        boxes1: (N, 5) rboxes in one frame, of any floating-point type, on a CUDA device.
        boxes2: (M, 5) rboxes of the same type in the same frame, on the same device.
        over_first: divide by the area of the box of `boxes1`, not by the union.

    Returns:
        (N, M) in the type of `boxes1`, in [0, 1], within 2e-6 of the exact answer for boxes up to 10^4:1; exactly 0
        where the upright hulls lie apart, and where 0 is divided by 0.
    """
    answer = boxes1.new_empty(len(boxes1), len(boxes2))
    if answer.numel():
        tables = box_table(boxes1), box_table(boxes2)
        tiles = triton.cdiv(len(boxes1), PAIR_ROWS) * triton.cdiv(len(boxes2), PAIR_COLUMNS)
        with _device_of(answer):
            fill_pairwise[(tiles,)](
                *tables, answer, *answer.shape, OVER_FIRST=over_first, ROWS=PAIR_ROWS, COLUMNS=PAIR_COLUMNS, **OPTIONS
            )
    return answer


def aligned_iou(boxes1: Tensor, boxes2: Tensor, over_first: bool) -> Tensor:
    """Return the (N,) IoUs of the pairs (boxes1[i], boxes2[i]); else as `pairwise_iou`."""
    answer = boxes1.new_empty(len(boxes1))
    if len(answer):
        tables = box_table(boxes1), box_table(boxes2)
        programs = triton.cdiv(len(answer), ALIGNED_PAIRS)
        with _device_of(answer):
            fill_aligned[(programs,)](
                *tables, answer, len(answer), OVER_FIRST=over_first, PAIRS=ALIGNED_PAIRS, **OPTIONS
            )
    return answer


def nms(
    boxes: Tensor,
    scores: Tensor,
    group: Tensor,
    iou_threshold: float,
    equal_suppresses: bool = False,
    segment: int = WORD * SEGMENT_WORDS,
) -> Tensor:
    """Keep the best boxes of every group, greedily.

    Boxes are sorted by group and falling score, and settled segment by segment: a bit mask of who suppresses whom
    inside the segment, one program that walks it, and then the kept boxes suppress later ones of their group. So the
    mask takes 2 MiB whatever N is, and nothing is computed for boxes that are gone or belong to other groups.

    Args:
        boxes: (N, 5) rboxes in one frame, of any floating-point type, on a CUDA device.
        scores: (N,); equal ones keep their order.
        group: (N,) int64; boxes of different groups never meet.
        iou_threshold: in [0, 1]; a larger IoU suppresses.
        equal_suppresses: an equal one, in float32, does too, unless it is 0.
        segment: boxes settled at once: a multiple of 64, at most 4,096.

    Returns:
        (K,) int64 indices of the kept boxes by falling score.
    """
    order = scores.argsort(descending=True, stable=True)
    by_group = group[order].argsort(stable=True)
    layout = order[by_group]
    gone = _walk(box_table(boxes[layout]), group[layout], _limit(iou_threshold, equal_suppresses), segment)
    kept = torch.empty_like(gone, dtype=torch.bool)
    kept[by_group] = gone == 0
    return order[kept]


def box_table(boxes: Tensor) -> Tensor:
    """Return (13, N) float32: what the kernels need of each box, computed in float64 and then rounded.

    Rows, as `triton_kernels.py` numbers them: x and what float32 rounds off it, y alike, half extents of the upright
    hull (rounded outwards), half w, half h, leading part of the cosine and the rest, sine alike, area.
    """
    x, y, w, h, theta = boxes.detach().double().unbind(dim=1)
    cos, sin = theta.cos(), theta.sin()
    hull_x, hull_y = (w * cos.abs() + h * sin.abs()) / 2, (w * sin.abs() + h * cos.abs()) / 2
    hull = hull_x * HULL_MARGIN, hull_y * HULL_MARGIN
    return torch.stack([*_rounded(x), *_rounded(y), *hull, w / 2, h / 2, *_cut(cos), *_cut(sin), w * h]).float()


def _rounded(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Split float64 numbers into what float32 holds and the rest."""
    leading = numbers.float().double()
    return leading, numbers - leading


def _cut(numbers: Tensor) -> tuple[Tensor, Tensor]:
    """Split float64 numbers in [-1, 1] into a multiple of 2^-12, of which products are exact, and the rest."""
    leading = (numbers * 4096).round() / 4096
    return leading, numbers - leading


def _limit(iou_threshold: float, equal_suppresses: bool) -> float:
    """Return the float32 number that an IoU must exceed to suppress."""
    limit = np.float32(iou_threshold)
    return float(max(np.nextafter(limit, np.float32(-1)), np.float32(0)) if equal_suppresses else limit)


def _walk(table: Tensor, group: Tensor, limit: float, segment: int) -> Tensor:
    """Return (N,) int8, 1 where a box is suppressed, for boxes that are sorted by group and then by falling score."""
    count = len(group)
    gone = torch.zeros(count, dtype=torch.int8, device=group.device)
    mask = torch.empty(min(segment, count), SEGMENT_WORDS, dtype=torch.int64, device=group.device)
    with _device_of(group):
        for first in range(0, count, segment):
            last = min(first + segment, count)
            rows, words = triton.cdiv(last - first, NMS_ROWS), triton.cdiv(last - first, WORD)
            boxes: tuple[Any, ...] = (table, group, gone, first, last, count, limit)
            fill_mask[(rows, words)](*boxes, mask, WORDS=SEGMENT_WORDS, ROWS=NMS_ROWS, **OPTIONS)
            resolve[(1,)](mask, gone, first, last, WORDS=SEGMENT_WORDS, **RESOLVE_OPTIONS)
            if last < count:
                suppress[(rows, triton.cdiv(count - last, WORD))](*boxes, ROWS=NMS_ROWS, **OPTIONS)
    return gone


def _device_of(tensor: Tensor) -> Any:
    """Launch on the tensor's device, which need not be the current one."""
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
