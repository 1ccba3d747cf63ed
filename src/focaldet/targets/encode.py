"""What every anchor of a batch should have said: assignment and coding of all pictures, sparse."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import encode_hbox
from focaldet.geometry.hbox import corners_to_hbox
from focaldet.structures import AnchorGrid, Size, StageTargets, Truth
from focaldet.targets.assign import AssignRule, assign


def build_targets(
    grid: AnchorGrid, truths: Sequence[Truth], rule: AssignRule, padded: Sequence[Size] | None = None
) -> StageTargets:
    """Assign and encode the truth of a batch; on the CPU, fit for a loader's worker.

    Args:
        grid: the anchors of the batch's common input size.
        truths: one per picture, in the frame `input`; polygons are taken by their hull.
        rule: what decides. Ignored objects own no anchor, and keep some out of the loss if `rule.ignored_iof` says so.
        padded: (height, width) of each picture rounded up by itself; anchors at places beyond take no part. None
            means that all places count.

    Raises:
        FocaldetError: boxes of another shape or not finite, or not as many labels and sizes as there should be.
    """
    if padded is not None and len(padded) != len(truths):
        raise FocaldetError(f"{len(truths)} pictures come with {len(padded)} padded sizes; give one each")
    within = [grid.places_within(size) for size in padded] if padded is not None else [grid.sizes] * len(truths)
    parts = [_one_picture(grid, truth, rule, places) for truth, places in zip(truths, within, strict=True)]
    num_anchors = sum(grid.counts)
    positives, labels, deltas, owners, ignored = (_joined(parts, position) for position in range(5))
    pictures = torch.tensor([len(part[0]) for part in parts]), torch.tensor([len(part[4]) for part in parts])
    start = torch.arange(len(parts)) * num_anchors
    return StageTargets(
        positives=positives + start.repeat_interleave(pictures[0]),
        labels=labels,
        deltas=deltas,
        truths=owners,
        ignored=ignored + start.repeat_interleave(pictures[1]),
        valid=None if all(places == grid.sizes for places in within) else valid_places(grid, within),
        num_positives=pictures[0],
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


def _one_picture(grid: AnchorGrid, truth: Truth, rule: AssignRule, places: tuple[Size, ...]) -> tuple[Tensor, ...]:
    """Return positives, their labels, deltas and truth boxes (numbered as in `truth`), and ignored anchors."""
    if len(truth.labels) != len(truth.boxes):
        raise FocaldetError(f"{len(truth.boxes)} truth boxes come with {len(truth.labels)} labels; give one each")
    boxes = (corners_to_hbox(truth.boxes) if truth.boxes.ndim == 3 else truth.boxes).to("cpu", torch.float32)
    apart = torch.zeros(len(boxes), dtype=torch.bool) if truth.ignored is None else truth.ignored.cpu()
    wanted = (~apart).nonzero()[:, 0]
    found = assign(grid, boxes[wanted], rule, valid=places, ignored_boxes=boxes[apart])
    owners = wanted[found.truths]
    deltas = encode_hbox(boxes[owners], grid.at(found.positives))
    return found.positives, truth.labels.cpu()[owners], deltas, owners, found.ignored


def _joined(parts: list[tuple[Tensor, ...]], position: int) -> Tensor:
    return torch.cat([part[position] for part in parts])
