"""What every anchor of a batch should have said: assignment and coding of all pictures, sparse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import encode_hbox
from focaldet.geometry.hbox import corners_to_hbox
from focaldet.geometry.polygon import polygon_to_rbox, polygon_to_rbox_by_sides
from focaldet.geometry.rbox import convert_boxes, rbox_to_hbox
from focaldet.structures import AnchorGrid, Size, StageTargets, Truth
from focaldet.targets.assign import AssignRule, assign


def enclosing_hboxes(boxes: Tensor) -> Tensor:
    """Return the upright hulls (G, 4) of truth as annotated: hboxes, rboxes (G, 5) or polygons (G, 4, 2).

    >>> enclosing_hboxes(torch.tensor([[[2.0, 0.0], [4.0, 1.0], [3.0, 3.0], [1.0, 2.0]]]))
    tensor([[1., 0., 4., 3.]])
    """
    if boxes.ndim == 3:
        return corners_to_hbox(boxes)
    return rbox_to_hbox(boxes) if boxes.ndim == 2 and boxes.shape[1] == 5 else boxes


def enclosing_rboxes(boxes: Tensor) -> Tensor:
    """Return rboxes (G, 5) around truth as annotated: hboxes (G, 4), rboxes, or polygons (G, 4, 2) by the least area.

    >>> enclosing_rboxes(torch.tensor([[0.0, 0.0, 4.0, 2.0]]))
    tensor([[2., 1., 4., 2., 0.]])
    """
    if boxes.ndim == 3:
        return polygon_to_rbox(boxes.flatten(1))
    return convert_boxes(boxes, "hbox", "le90") if boxes.ndim == 2 and boxes.shape[1] == 4 else boxes


def sided_rboxes(boxes: Tensor) -> Tensor:
    """Return rboxes (G, 5) of truth as annotated: hboxes, rboxes, or polygons by `polygon_to_rbox_by_sides` (quirk).

    >>> sided_rboxes(torch.tensor([[[0.0, 0.0], [4.0, 0.0], [5.0, 2.0], [1.0, 2.0]]]))
    tensor([[2.5000, 1.0000, 4.0000, 2.2361, 0.0000]])
    """
    return polygon_to_rbox_by_sides(boxes.flatten(1)) if boxes.ndim == 3 else enclosing_rboxes(boxes)


Convert = Callable[[Tensor], Tensor]
"""Turns truth as annotated, (G, 4) hboxes, (G, 5) rboxes or (G, 4, 2) polygons, into boxes of one kind."""
Encode = Callable[[Tensor, Tensor], Tensor]
"""Turns boxes (P, D) and anchors (P, D) into deltas (P, D)."""


@dataclass(frozen=True)
class Hulls:
    """Truth as annotated -> the upright hulls (G, 4) of its rboxes, which need not be those of its polygons (mmrotate).

    Attributes:
        rboxes: makes the rboxes.
    """

    rboxes: Convert

    def __call__(self, boxes: Tensor) -> Tensor:
        """Return (G, 4) hboxes."""
        return enclosing_hboxes(self.rboxes(boxes))


def build_targets(
    grid: AnchorGrid,
    truths: Sequence[Truth],
    rule: AssignRule,
    padded: Sequence[Size] | None = None,
    *,
    to_assign: Convert = enclosing_hboxes,
    to_regress: Convert = enclosing_hboxes,
    encode: Encode = encode_hbox,
) -> StageTargets:
    """Assign and encode the truth of a batch; on the CPU, fit for a loader's worker.

    What anchors are compared with and what they are taught need not be the same box: RetinaNet-H compares them with the
    hull of the polygon as annotated, and teaches its least-area rectangle.

    Args:
        grid: the anchors of the batch's common input size.
        truths: one per picture, in the frame `input`.
        rule: what decides. Ignored objects own no anchor, and keep some out of the loss if `rule.ignored_iof` says so.
        padded: (height, width) of each picture rounded up by itself; anchors at places beyond take no part. None
            means that all places count.
        to_assign: makes the boxes that the anchors are compared with.
        to_regress: makes the boxes that the deltas lead to.
        encode: says where those lie, seen from the anchors as `grid.as_coded()` has them.

    Raises:
        FocaldetError: boxes of another shape or not finite, or not as many labels and sizes as there should be.
    """
    if padded is not None and len(padded) != len(truths):
        raise FocaldetError(f"{len(truths)} pictures come with {len(padded)} padded sizes; give one each")
    within = [grid.places_within(size) for size in padded] if padded is not None else [grid.sizes] * len(truths)
    convert = (to_assign, to_regress, encode)
    parts = [_one_picture(grid, truth, rule, places, *convert) for truth, places in zip(truths, within, strict=True)]
    whole = all(places == grid.sizes for places in within)
    return join_pictures(parts, sum(grid.counts), None if whole else valid_places(grid, within))


PictureTargets = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""What the anchors of one picture should say, anchors counted from 0: positives, their labels, deltas and truth boxes,
and ignored anchors."""


def join_pictures(parts: Sequence[PictureTargets], num_anchors: int, valid: Tensor | None) -> StageTargets:
    """Put the targets of pictures of `num_anchors` anchors each together; `valid` as in `StageTargets`."""
    positives, labels, deltas, owners, ignored = (torch.cat(column) for column in zip(*parts, strict=True))
    counts = torch.tensor([len(part[0]) for part in parts]), torch.tensor([len(part[4]) for part in parts])
    start = torch.arange(len(parts)) * num_anchors
    return StageTargets(
        positives=positives + start.repeat_interleave(counts[0]),
        labels=labels,
        deltas=deltas,
        truths=owners,
        ignored=ignored + start.repeat_interleave(counts[1]),
        valid=valid,
        num_positives=counts[0],
        num_anchors=num_anchors,
    )


def valid_places(grid: AnchorGrid, within: Sequence[tuple[Size, ...]]) -> Tensor:
    """Return (B, A) bool: whether an anchor's place is among the (rows, columns) of its level that count, a picture."""
    valid = torch.zeros(len(within), sum(grid.counts), dtype=torch.bool)
    start = 0
    for level, ((height, width), count) in enumerate(zip(grid.sizes, grid.counts, strict=True)):
        maps = valid[:, start : start + count].view(len(within), height, width, -1)
        for picture, places in enumerate(within):
            rows, columns = places[level]
            maps[picture, :rows, :columns] = True
        start += count
    return valid


def _one_picture(
    grid: AnchorGrid,
    truth: Truth,
    rule: AssignRule,
    places: tuple[Size, ...],
    to_assign: Convert,
    to_regress: Convert,
    encode: Encode,
) -> PictureTargets:
    annotated, labels, apart = sorted_out(truth)
    wanted = (~apart).nonzero()[:, 0]
    boxes = to_assign(annotated)
    found = assign(grid, boxes[wanted], rule, valid=places, ignored_boxes=boxes[apart])
    owners = wanted[found.truths]
    deltas = encode(to_regress(annotated)[owners], grid.as_coded().at(found.positives))
    return found.positives, labels[owners], deltas, owners, found.ignored


def sorted_out(truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """Return the boxes of a picture's truth in float32, its labels, and (G,) bool which are ignored; on the CPU.

    Raises:
        FocaldetError: not as many labels as boxes.
    """
    if len(truth.labels) != len(truth.boxes):
        raise FocaldetError(f"{len(truth.boxes)} truth boxes come with {len(truth.labels)} labels; give one each")
    boxes = truth.boxes.to("cpu", torch.float32)
    apart = torch.zeros(len(boxes), dtype=torch.bool) if truth.ignored is None else truth.ignored.cpu()
    return boxes, truth.labels.cpu(), apart
