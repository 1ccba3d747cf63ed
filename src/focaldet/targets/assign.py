"""Which truth box every anchor stands for, found anchor by anchor only where boxes are; never a matrix of all pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.iou import hbox_iou_aligned
from focaldet.structures import BACKGROUND, IGNORED, AnchorGrid, Size
from focaldet.targets.cells import Floats, Integers, Lattices, anchors_at, nearest_iou, pairs, windows

Claim = Literal["none", "ties", "ties-overwrite"]

OWN_BEST_PAIRS = 1 << 20
"""Pairs of claimed anchor and truth box compared in one go."""


@dataclass(frozen=True)
class AssignRule:
    """Who belongs to whom (`shared/spec/horizontal.md` section 7; Ren et al. 2015, arXiv:1506.01497, section 3.1.2).

    Attributes:
        positive: an anchor whose best IoU is at least this stands for the truth box of that IoU.
        negative: below this best IoU it is background; between the two it is ignored.
        claim: which anchors a truth box claims besides. "none": no others. "ties": all that tie for its best IoU, if
            that is above 0; each then stands for the truth box that it overlaps most itself. "ties-overwrite": the
            same anchors stand for the claiming box, even those with a better owner; later truth boxes win (quirk).
        ignored_iof: an anchor of which at least this share lies on one ignored box takes no part, unless it is
            positive. None: ignored boxes have no effect.
    """

    positive: float
    negative: float
    claim: Claim = "ties"
    ignored_iof: float | None = None

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
    """Give every anchor one truth box, the background, or no part in the loss.

    Equal in every anchor to the dense float32 matrix of all pairs, ties included: an anchor that overlaps two truth
    boxes equally goes to the earlier one. Time and memory grow with the anchors that overlap a truth box enough.

    Args:
        grid: the anchors, in the frame `input`.
        truths: (G, 4) hboxes in that frame. Without truth (G = 0) every anchor is background.
        rule: what decides.
        valid: (rows, columns) of places that take part on each level; anchors beyond are neither compared nor claimed
            and stay background here. None means all.
        ignored_boxes: (I, 4) hboxes around what is neither to be found nor background.

    Raises:
        FocaldetError: boxes of another shape, or with numbers that are not finite.
    """
    lattices = Lattices.of(grid, valid)
    boxes = _as_float32(truths, "truths")
    num_anchors = sum(grid.counts)
    owners = np.full(num_anchors, BACKGROUND)
    best = np.zeros(num_anchors, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):  # a box of 1e20 pixels has an infinite area, and IoU 0
        found = _search(boxes, np.full(len(boxes), rule.negative, np.float32), lattices)
        np.maximum.at(best, found.anchor, found.iou)
        owners[found.anchor] = IGNORED
        reached = (found.iou >= np.float32(rule.positive)) & (found.iou == best[found.anchor])
        owners[found.anchor[reached][::-1]] = found.truth[reached][::-1]  # the last written stays: the earliest
        if rule.claim != "none":
            claims = _claims(found, boxes, lattices)
            if rule.claim == "ties":
                claims = _own_best(claims.anchor[owners[claims.anchor] < 0], boxes, grid)
            owners[claims.anchor], best[claims.anchor] = claims.truth, claims.iou
        if rule.ignored_iof is not None and ignored_boxes is not None:
            covered = _covered(_as_float32(ignored_boxes, "ignored_boxes"), rule.ignored_iof, lattices)
            owners[covered[owners[covered] < 0]] = IGNORED
    positives = np.flatnonzero(owners >= 0)
    return Assignment(
        positives=torch.from_numpy(positives),
        truths=torch.from_numpy(owners[positives]),
        ious=torch.from_numpy(best[positives]),
        ignored=torch.from_numpy(np.flatnonzero(owners == IGNORED)),
        num_anchors=num_anchors,
    )


@dataclass(frozen=True)
class _Found:
    """Pairs that overlap: the truth box, the anchor's number, their float32 IoU."""

    truth: Integers
    anchor: Integers
    iou: Floats


def _as_float32(boxes: Tensor, name: str) -> Floats:
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise FocaldetError(f"{name} has shape {tuple(boxes.shape)}; give hboxes (x1, y1, x2, y2) of shape (G, 4)")
    if not bool(boxes.isfinite().all()):
        first = int((~boxes.isfinite().all(dim=1)).nonzero()[0])
        raise FocaldetError(f"{name}[{first}] is {boxes[first].tolist()}; give finite numbers")
    numbers: Floats = boxes.detach().to("cpu", torch.float32).contiguous().numpy()
    return numbers


def _search(boxes: Floats, least: Floats, lattices: Lattices) -> _Found:
    """Return all pairs whose IoU is at least `least` (G,) of their truth box, above 0; in the order of the boxes."""
    size = np.maximum(boxes[:, 2:].astype(np.float64) - boxes[:, :2], 0)
    both = size[:, :1] * size[:, 1:] + lattices.areas()
    iou = least.astype(np.float64)[:, None]
    overlap = iou / (1 + iou) * both * (1 - lattices.tolerance())  # IoU = overlap / (both - overlap), solved
    parts = [_Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    for block in windows(boxes, overlap, lattices).blocks():
        pair = pairs(boxes, block, lattices)
        exact = pair.iou(boxes)
        enough = np.flatnonzero(exact >= least[pair.box])
        parts.append(_Found(pair.box[enough], pair.anchor[enough], exact[enough]))
    return _joined(parts)


def _joined(parts: list[_Found]) -> _Found:
    return _Found(
        np.concatenate([part.truth for part in parts]),
        np.concatenate([part.anchor for part in parts]),
        np.concatenate([part.iou for part in parts]),
    )


def _claims(found: _Found, boxes: Floats, lattices: Lattices) -> _Found:
    """Return, in the order of the truth boxes, every pair that ties for the best IoU of its truth box, if above 0.

    `found` holds the pairs above some IoU, hence all that matter to a truth box that is in one of them.
    """
    best = np.zeros(len(boxes), np.float32)
    np.maximum.at(best, found.truth, found.iou)
    near = np.zeros(len(boxes), np.float32)
    lone = np.flatnonzero(best == 0)
    near[lone] = nearest_iou(boxes[lone], lattices)
    lone = lone[near[lone] > 0]  # a box with IoU 0 everywhere would tie with every anchor it does not touch
    low = _search(boxes[lone], near[lone], lattices)
    found = _joined([found, _Found(lone[low.truth], low.anchor, low.iou)])
    np.maximum.at(best, found.truth, found.iou)
    ties = np.flatnonzero(found.iou == best[found.truth])
    ties = ties[np.argsort(found.truth[ties], kind="stable")]
    return _Found(found.truth[ties], found.anchor[ties], found.iou[ties])


def _own_best(numbers: Integers, boxes: Floats, grid: AnchorGrid) -> _Found:
    """Return for some anchors, each on at least one box, the truth box that it overlaps most, the earlier of equals."""
    numbers = np.unique(numbers)
    anchors, truths = anchors_at(grid, torch.from_numpy(numbers)), torch.from_numpy(boxes)
    parts = [_Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))]
    step = max(1, OWN_BEST_PAIRS // max(1, len(boxes)))
    for start in range(0, len(numbers), step):
        some = anchors[start : start + step]
        meet = (some[:, None, 0] < truths[:, 2]) & (some[:, None, 2] > truths[:, 0])
        meet &= (some[:, None, 1] < truths[:, 3]) & (some[:, None, 3] > truths[:, 1])
        anchor, truth = meet.nonzero().unbind(1)
        iou = hbox_iou_aligned(truths[truth], some[anchor])
        best = torch.zeros(len(some)).scatter_reduce_(0, anchor, iou, "amax")
        owner = np.zeros(len(some), np.int64)
        equal = (iou == best[anchor]).nonzero()[:, 0].flip(0)  # reversed: the earliest is written last, and stays
        owner[anchor[equal].numpy()] = truth[equal].numpy()
        parts.append(_Found(owner, numbers[start : start + step], best.numpy()))
    return _joined(parts)


def _covered(boxes: Floats, share: float, lattices: Lattices) -> Integers:
    """Return the numbers of anchors of which at least a share lies on one of the boxes; some more than once."""
    overlap = np.broadcast_to(share * lattices.areas() * (1 - lattices.tolerance()), (len(boxes), len(lattices.shapes)))
    parts = [np.zeros(0, np.int64)]
    for block in windows(boxes, overlap, lattices).blocks():
        pair = pairs(boxes, block, lattices)
        parts.append(pair.anchor[pair.iof() >= np.float32(share)])
    return np.concatenate(parts)
