"""Greedy non-maximum suppression, class by class: of hboxes by torchvision, of rboxes by the exact IoU.

Rotated NMS has three back ends with one answer. numba on a CPU and Triton on CUDA walk by falling score; the torch text
finds the same boxes on any device and in exported graphs, as a fixpoint: with S[i, j] = 1 where box i comes before box
j and would suppress it, start from `keep` = all and repeat

    keep = (keep @ S) == 0

A box's answer depends on those before it only, so each round settles at least one box more, and the round that changes
nothing has the greedy answer.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch._higher_order_ops.while_loop import while_loop

from focaldet.errors import FocaldetError
from focaldet.geometry.check import check_numbers, check_rboxes, numbers_are_known, takes_numpy
from focaldet.geometry.hbox import check_hboxes, in_full_precision
from focaldet.geometry.kernels.choose import numba_fits, triton_fits
from focaldet.geometry.rotated_iou import WITHOUT_FLOAT64, rotated_iou_torch

Equal = Literal["keep", "suppress"]

MAX_OFFSET_BOXES = 10_000
"""The published offset trick handles more boxes than this class by class after all."""
PORTION = 1024
"""Rotated boxes that the torch text decides on at once; it never compares more pairs than the square of that."""


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
    from torchvision.ops import nms  # takes a second, which rboxes need not wait for

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


@takes_numpy
def rotated_nms(boxes: Tensor, scores: Tensor, iou_threshold: float, equal: Equal = "keep") -> Tensor:
    """Keep the best rboxes: walk by falling score, drop what overlaps a kept box too much, by the exact IoU.

    Args:
        boxes: (N, 5) rboxes in any frame.
        scores: (N,).
        iou_threshold: in [0, 1]; an IoU above it suppresses.
        equal: whether an IoU equal to the threshold keeps or suppresses; an IoU of 0 suppresses nothing. The original
            programs' CPU code suppresses, mmrotate and detectron2 keep.

    Returns:
        (K,) int64 indices of the kept boxes by falling score; equal scores in their given order.

    Raises:
        FocaldetError: shapes, types or devices that do not go together, numbers that are not finite, negative sides, a
            threshold outside [0, 1].

    >>> boxes = torch.tensor([[0.0, 0, 8, 4, 0], [0, 0, 4, 8, torch.pi / 2], [0, 0, 8, 4, torch.pi / 2]])
    >>> rotated_nms(boxes, torch.tensor([0.7, 0.8, 0.9]), 0.5)
    tensor([2, 1])
    """
    return _rotated_nms(boxes, scores, {}, iou_threshold, equal)


@takes_numpy
def batched_rotated_nms(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float,
    images: Tensor | None = None,
    equal: Equal = "keep",
) -> Tensor:
    """Keep the best rboxes of every label, in every image: `rotated_nms` where only boxes of one label and image meet.

    Labels and images are compared, and no box is shifted for them, so that the answer is that of each by itself.

    Args:
        boxes: (N, 5) rboxes, each in its image's frame.
        scores: (N,).
        labels: (N,) int64, any numbers.
        iou_threshold: as in `rotated_nms`.
        images: (N,) int64, any numbers; the image of each box where there are several.
        equal: as in `rotated_nms`.

    Returns:
        (K,) int64 indices of the kept boxes by falling score, over all labels and images.

    >>> twice = torch.tensor([[9.0, 9, 8, 4, 0.3]] * 3)
    >>> batched_rotated_nms(twice, torch.tensor([0.7, 0.8, 0.9]), torch.tensor([0, 0, 1]), 0.5)
    tensor([2, 1])
    """
    apart = {"labels": labels} if images is None else {"labels": labels, "images": images}
    return _rotated_nms(boxes, scores, apart, iou_threshold, equal)


def rotated_nms_torch(
    boxes: Tensor, scores: Tensor, apart: tuple[Tensor, ...], iou_threshold: float, equal_suppresses: bool = False
) -> Tensor:
    """Return what `rotated_nms` does, by torch alone: on any device, in exported graphs.

    Decides on a portion of the boxes at a time, so that memory stays bounded; a graph that is being traced takes all
    as one portion, for it knows no loops of unknown length.

    Args:
        boxes: (N, 5) rboxes.
        scores: (N,).
        apart: tensors (N,); only boxes that are equal in each of them meet.
        iou_threshold: in [0, 1].
        equal_suppresses: whether an IoU equal to the threshold suppresses.
    """
    order = scores.argsort(descending=True, stable=True)
    boxes = (boxes.float() if boxes.device.type in WITHOUT_FLOAT64 else boxes.double())[order]
    apart = tuple(numbers[order] for numbers in apart)

    def suppresses(first: Tensor, second: Tensor) -> Tensor:
        iou = rotated_iou_torch(boxes[first], boxes[second])
        over = (iou >= iou_threshold) & (iou > 0) if equal_suppresses else iou > iou_threshold
        for numbers in apart:
            over = over & (numbers[first, None] == numbers[second])
        return over

    places = torch.arange(boxes.shape[0], device=boxes.device)
    if not numbers_are_known(boxes):
        return order[_fixpoint(suppresses(places, places), torch.ones_like(places, dtype=torch.bool))]
    kept = places[:0]
    for portion in torch.split(places, PORTION):
        free = torch.ones_like(portion, dtype=torch.bool)
        for before in torch.split(kept, PORTION):
            free &= ~suppresses(before, portion).any(dim=0)
        kept = torch.cat([kept, portion[_fixpoint(suppresses(portion, portion), free)]])
    return order[kept]


def _fixpoint(suppresses: Tensor, free: Tensor) -> Tensor:
    """Return which boxes (N,) greedy NMS keeps, of those that are `free` (N,) to be kept.

    `suppresses` (N, N) says whether a box, by its row, would suppress another, by its column; boxes by falling score.
    """
    later = suppresses.triu(diagonal=1).float()  # float32 counts exactly, up to 2^24

    def settle(keep: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        return free & (keep.float() @ later == 0), keep.clone()  # a loop in a graph must not hand on what it was given

    def moves(keep: Tensor, before: Tensor) -> Tensor:
        return (keep != before).any()

    keep, before = free.clone(), ~free
    if not numbers_are_known(free):
        answer: Tensor = while_loop(moves, settle, (keep, before))[0]  # type: ignore[no-untyped-call]
        return answer
    while moves(keep, before):
        keep, before = settle(keep, before)
    return keep


def _rotated_nms(boxes: Tensor, scores: Tensor, apart: dict[str, Tensor], iou_threshold: float, equal: Equal) -> Tensor:
    """Check the arguments and let the back end answer that fits them; `apart` holds labels and images by their name."""
    _check_rotated(boxes, scores, apart, iou_threshold, equal)
    boxes, scores, numbers = boxes.detach(), scores.detach(), tuple(apart.values())
    equal_suppresses = equal == "suppress" and iou_threshold > 0
    nothing_goes = iou_threshold == 1 and not equal_suppresses
    if nothing_goes or (numbers_are_known(boxes) and len(boxes) == 0):
        return scores.argsort(descending=True, stable=True)
    if numba_fits(boxes, scores):
        return _by_numba(boxes, scores, numbers, iou_threshold, equal_suppresses)
    if triton_fits(boxes):
        from focaldet.geometry.kernels import triton

        return triton.nms(boxes, scores, _one_number(numbers, boxes), iou_threshold, equal_suppresses)
    return rotated_nms_torch(boxes, scores, numbers, iou_threshold, equal_suppresses)


def _by_numba(
    boxes: Tensor, scores: Tensor, apart: tuple[Tensor, ...], iou_threshold: float, equal_suppresses: bool
) -> Tensor:
    from focaldet.geometry.kernels import nms as kernel

    order = scores.argsort(descending=True, stable=True).numpy()
    group = _one_number(apart, boxes).numpy()
    kept = kernel.nms(in_full_precision(boxes).numpy(), order, group, iou_threshold, equal_suppresses)
    return torch.from_numpy(kept)


def _one_number(apart: tuple[Tensor, ...], boxes: Tensor) -> Tensor:
    """Return one number a box (N,) that is equal where all of `apart` are; by counting, so that none is too large."""
    group, *others = apart or (torch.zeros(len(boxes), dtype=torch.int64, device=boxes.device),)
    for numbers in others:
        values, index = torch.unique(numbers, return_inverse=True)
        group = torch.unique(group, return_inverse=True)[1] * len(values) + index
    return group


def _check_rotated(boxes: Tensor, scores: Tensor, apart: dict[str, Tensor], iou_threshold: float, equal: Equal) -> None:
    check_rboxes(boxes, "boxes")
    for name, numbers in {"scores": scores, **apart}.items():
        if not isinstance(numbers, Tensor):
            raise FocaldetError(
                f"{name} is a {type(numbers).__name__}; give one number a box as a tensor or numpy array"
            )
        if numbers.shape != boxes.shape[:1]:
            raise FocaldetError(
                f"{name} has shape {tuple(numbers.shape)} for {len(boxes)} boxes; give one number a box"
            )
        if numbers.device != boxes.device:
            raise FocaldetError(f"boxes is on {boxes.device} and {name} on {numbers.device}; bring them to one device")
        if name != "scores" and numbers.dtype != torch.int64:
            raise FocaldetError(f"{name} holds {numbers.dtype}; give whole numbers as int64, by .long()")
    check_numbers(scores[:, None], "scores", 1, "scores")
    if not 0 <= iou_threshold <= 1:
        raise FocaldetError(f"iou_threshold is {iou_threshold}; give a number from 0 to 1")
    if equal not in ("keep", "suppress"):
        raise FocaldetError(f"equal is {equal!r}; give 'keep' or 'suppress'")
