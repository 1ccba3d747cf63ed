"""Which truth box every anchor stands for, found anchor by anchor only where boxes are; never a matrix of all pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.check import check_numbers, check_rboxes
from focaldet.structures import BACKGROUND, IGNORED, AnchorGrid, Size
from focaldet.targets.lattices import Lattices, as_rotated
from focaldet.targets.overlap import Integers, Maxima, Measure, Numbers, Pixels
from focaldet.targets.search import GridSearch, ListSearch, Search, owners_of

Claim = Literal["none", "ties", "ties-overwrite", "ties-zero"]


@dataclass(frozen=True)
class AssignRule:
    """Who belongs to whom (`shared/spec/horizontal.md` section 7; Ren et al. 2015, arXiv:1506.01497, section 3.1.2).

    Attributes:
        positive: an anchor whose best IoU is at least this stands for the truth box of that IoU.
        negative: below this best IoU it is background; between the two it is ignored.
        claim: which anchors a truth box claims besides. "none": no others. "ties": all that tie for its best IoU, if
            that is above 0; each then stands for the truth box that it overlaps most itself. "ties-overwrite": the
            same anchors stand for the claiming box, even those with a better owner; later truth boxes win (quirk).
            "ties-zero": as "ties", but a best IoU of 0 counts too: a truth box that meets no anchor claims all; those
            that meet no truth box then stand for the first (quirk of torchvision and detectron2).
        ignored_iof: an anchor of which at least this share lies on one ignored box takes no part, unless it is
            positive. None: ignored boxes have no effect.
        negative_inclusive: an anchor whose best IoU is `negative` itself is background too, unless it is positive.
        pixels: what a side of an hbox measures. "continuous": the difference of its ends. "plus_one": one pixel more,
            in float64, as in the original rotated program (`shared/spec/rotated.md` section 2.5).
    """

    positive: float
    negative: float
    claim: Claim = "ties"
    ignored_iof: float | None = None
    negative_inclusive: bool = False
    pixels: Pixels = "continuous"

    def __post_init__(self) -> None:
        if not 0 < self.negative <= self.positive <= 1:
            raise FocaldetError(f"0 < negative={self.negative} <= positive={self.positive} <= 1 must hold")
        if self.ignored_iof is not None and not 0 < self.ignored_iof <= 1:
            raise FocaldetError(f"ignored_iof={self.ignored_iof} must lie above 0 and not above 1")


@dataclass(frozen=True)
class Assignment:
    """What `assign` found; an anchor that is named nowhere is background.

    Attributes:
        positives: (P,) int64 numbers of positive anchors, rising, levels joined.
        truths: (P,) int64 truth box of each.
        ious: (P,) float32 IoU with that truth box.
        ignored: (I,) int64 numbers of ignored anchors, rising.
        num_anchors: A.
    """

    positives: Tensor
    truths: Tensor
    ious: Tensor
    ignored: Tensor
    num_anchors: int

    def owners(self) -> Tensor:
        """Return (A,) int64: the truth box of every anchor, or BACKGROUND or IGNORED."""
        owners = torch.full((self.num_anchors,), BACKGROUND)
        owners[self.positives] = self.truths
        owners[self.ignored] = IGNORED
        return owners


def assign(
    grid: AnchorGrid,
    truths: Tensor,
    rule: AssignRule,
    *,
    valid: tuple[Size, ...] | None = None,
    ignored_boxes: Tensor | None = None,
) -> Assignment:
    """Give every anchor of a grid one truth box, the background, or no part in the loss.

    Equal in every anchor to the dense matrix of all pairs, ties included: an anchor that overlaps two truth boxes
    equally goes to the earlier one. Time and memory grow with the anchors that overlap a truth box enough.

    Hboxes are compared with hboxes as `rule.pixels` says, in float32 or float64. If the truth or the grid is rotated,
    the other is taken as rboxes too (of an hbox, theta is 0), and IoU is exact: float64, rounded to float32.

    Args:
        grid: the anchors, in the frame `input`.
        truths: (G, 4) hboxes or (G, 5) rboxes in that frame. Without truth (G = 0) every anchor is background.
        rule: what decides.
        valid: (rows, columns) of places that take part on each level; anchors beyond are neither compared nor claimed
            and stay background here. None means all.
        ignored_boxes: (I, 4) or (I, 5) boxes around what is neither to be found nor background.

    Raises:
        FocaldetError: boxes of another shape, or with numbers that are not finite; `rule.pixels` for rboxes.
    """
    if grid.steps is not None:
        return _assign_listed(grid, truths, rule, valid, ignored_boxes)
    measure = _measure(rule, rotated=grid.rotated or _is_rotated(truths, ignored_boxes))
    grid = as_rotated(grid) if measure.rotated else grid
    search = GridSearch(Lattices.of(grid, valid), measure)
    boxes = _boxes(truths, "truths", measure)

    def at(numbers: Integers) -> Numbers:
        return grid.at(torch.from_numpy(numbers)).numpy().astype(measure.box_type)

    ignored = _boxes(ignored_boxes, "ignored_boxes", measure) if ignored_boxes is not None else None
    return _decide(search, at, boxes, ignored, rule, sum(grid.counts))


def _assign_listed(
    grid: AnchorGrid, truths: Tensor, rule: AssignRule, valid: tuple[Size, ...] | None, ignored_boxes: Tensor | None
) -> Assignment:
    """Assign the anchors of a grid whose places are not equally far apart on both axes, by writing them all out."""
    part = []
    for (rows, columns), (height, width), shapes in zip(valid or grid.sizes, grid.sizes, grid.shapes, strict=True):
        inside = torch.zeros(height, width, len(shapes), dtype=torch.bool)
        inside[:rows, :columns] = True
        part.append(inside.flatten())
    return assign_boxes(torch.cat(grid.levels()), truths, rule, valid=torch.cat(part), ignored_boxes=ignored_boxes)


def assign_boxes(
    anchors: Tensor,
    truths: Tensor,
    rule: AssignRule,
    *,
    valid: Tensor | None = None,
    ignored_boxes: Tensor | None = None,
) -> Assignment:
    """Give every one of a list of anchors one truth box, the background, or no part in the loss; as `assign`.

    For anchors that stand on no grid: the boxes of the stage before, in refinement. Computed on the CPU, wherever
    the boxes are; never an anchors x truth matrix.

    Args:
        anchors: (A, 4) hboxes or (A, 5) rboxes, in any frame.
        truths: (G, 4) hboxes or (G, 5) rboxes in that frame.
        rule: what decides.
        valid: (A,) bool, anchors that take part; the others stay background here. None means all.
        ignored_boxes: (I, 4) or (I, 5) boxes around what is neither to be found nor background.

    Returns:
        The assignment, on the device of the anchors.

    Raises:
        FocaldetError: boxes of another shape, or with numbers that are not finite; `rule.pixels` for rboxes.
    """
    measure = _measure(rule, rotated=_is_rotated(anchors, truths, ignored_boxes))
    listed, boxes = _boxes(anchors, "anchors", measure), _boxes(truths, "truths", measure)
    part = np.flatnonzero(valid.cpu().numpy()) if valid is not None else np.arange(len(listed))
    search = ListSearch(listed[part], measure)
    ignored = _boxes(ignored_boxes, "ignored_boxes", measure) if ignored_boxes is not None else None

    found = _decide(search, lambda numbers: listed[part[numbers]], boxes, ignored, rule, len(listed))
    places = torch.from_numpy(part)
    return Assignment(
        positives=places[found.positives].to(anchors.device),
        truths=found.truths.to(anchors.device),
        ious=found.ious.to(anchors.device),
        ignored=places[found.ignored].to(anchors.device),
        num_anchors=len(listed),
    )


def _is_rotated(*boxes: Tensor | None) -> bool:
    return any(some is not None and some.ndim == 2 and some.shape[1] == 5 for some in boxes)


def _measure(rule: AssignRule, *, rotated: bool) -> Measure:
    if rotated and rule.pixels != "continuous":
        raise FocaldetError(f'pixels="{rule.pixels}" is a convention of hboxes; give "continuous" to assign rboxes')
    return Measure(rotated, rule.pixels)


def _boxes(boxes: Tensor, name: str, measure: Measure) -> Numbers:
    """Return boxes in the form and type of the measure, checked."""
    if boxes.ndim == 2 and boxes.shape[1] == 5:
        check_rboxes(boxes, name)
    else:
        check_numbers(boxes, name, 4, "hboxes (x1, y1, x2, y2), or rboxes of shape (N, 5),")
    numbers: Numbers = boxes.detach().cpu().numpy().astype(measure.box_type)
    if not measure.rotated or boxes.shape[1] == 5:
        return np.ascontiguousarray(numbers)
    low, high = numbers[:, :2], numbers[:, 2:]
    return np.concatenate([(low + high) / 2, np.maximum(high - low, 0), np.zeros((len(low), 1))], axis=1)


AnchorsAt = Callable[[Integers], Numbers]
"""Writes out the anchors with some numbers."""


def _decide(
    search: Search, at: AnchorsAt, boxes: Numbers, ignored: Numbers | None, rule: AssignRule, num_anchors: int
) -> Assignment:
    """Apply the rule to the best overlaps of both sides."""
    number = search.measure.iou_type  # thresholds are compared in the type of the IoU
    found = search.maxima(boxes, rule.negative, climb=rule.claim != "none")
    owners = np.where(found.ious >= number(rule.positive), found.truths, IGNORED)
    if rule.negative_inclusive:
        owners[(owners < 0) & (found.ious <= number(rule.negative))] = BACKGROUND
    state = _Owned(found.anchors, owners, found.truths, found.ious)
    if rule.claim == "ties-overwrite":
        state = _overwritten(state, found)
    elif rule.claim == "ties-zero" and len(np.unique(found.tie_truths)) < len(boxes):
        state = _all_claimed(state, search.numbers(), at, boxes, search.measure)
    elif rule.claim != "none":
        state = _claimed(state, found, at, boxes, search.measure)
    positive = state.owners >= 0
    positives, left_out = state.anchors[positive], state.anchors[state.owners == IGNORED]
    if rule.ignored_iof is not None and ignored is not None:
        covered = search.maxima(ignored, rule.ignored_iof, over_anchor=True).anchors
        left_out = np.union1d(left_out, np.setdiff1d(covered, positives))
    return Assignment(
        positives=torch.from_numpy(positives),
        truths=torch.from_numpy(state.owners[positive]),
        ious=torch.from_numpy(state.ious[positive].astype(np.float32)),
        ignored=torch.from_numpy(left_out),
        num_anchors=num_anchors,
    )


@dataclass(frozen=True)
class _Owned:
    """Anchors (M,) that are not simply background, by rising number.

    Attributes:
        anchors: their numbers.
        owners: the truth box they stand for, or IGNORED or BACKGROUND.
        truths: the truth box that each overlaps most, and
        ious: that IoU; after an overwriting claim the IoU with the owner.
    """

    anchors: Integers
    owners: Integers
    truths: Integers
    ious: Numbers


def _overwritten(state: _Owned, found: Maxima) -> _Owned:
    """Let every truth box take the anchors that tie for its best IoU, in their order."""
    state = _with(state, np.unique(found.tie_anchors))
    slots = np.searchsorted(state.anchors, found.tie_anchors)
    state.owners[slots], state.ious[slots] = found.tie_truths, found.tie_ious  # of equal slots the last written stays
    return state


def _claimed(state: _Owned, found: Maxima, at: AnchorsAt, boxes: Numbers, measure: Measure) -> _Owned:
    """Let the anchors that tie for the best IoU of a truth box stand for the one that each overlaps most."""
    state = _with(state, np.unique(found.tie_anchors))
    slots = np.searchsorted(state.anchors, found.tie_anchors)
    np.maximum.at(state.ious, slots, found.tie_ious)
    fresh = np.flatnonzero(state.truths < 0)
    owners = owners_of(at(state.anchors[fresh]), boxes, measure, state.ious[fresh])
    state.truths[fresh], state.ious[fresh] = owners
    slots = slots[state.owners[slots] < 0]
    state.owners[slots] = state.truths[slots]
    return state


def _all_claimed(state: _Owned, everyone: Integers, at: AnchorsAt, boxes: Numbers, measure: Measure) -> _Owned:
    """Let every anchor that takes part stand for the truth box that it overlaps most, the first if it meets none."""
    state = _with(state, everyone)
    owners, ious = owners_of(at(everyone), boxes, measure, np.zeros(len(everyone), state.ious.dtype))
    met, slots = ious >= measure.least, np.searchsorted(state.anchors, everyone)
    state.owners[slots], state.ious[slots] = np.where(met, owners, 0), np.where(met, ious, 0)
    return state


def _with(state: _Owned, claimed: Integers) -> _Owned:
    """Return the state with those of the claimed anchors (rising) that were not in it, as background."""
    at = np.searchsorted(state.anchors, claimed)
    new = np.append(state.anchors, -1)[at] != claimed
    at, fresh = at[new], claimed[new]
    return _Owned(
        anchors=np.insert(state.anchors, at, fresh),
        owners=np.insert(state.owners, at, BACKGROUND),
        truths=np.insert(state.truths, at, BACKGROUND),
        ious=np.insert(state.ious, at, 0),
    )
