"""What the anchors of a refine stage should have said: the boxes of the stage before, one a place, on no grid."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.structures import StageTargets, Truth
from focaldet.targets.assign import AssignRule, assign_boxes
from focaldet.targets.encode import Convert, Encode, PictureTargets, enclosing_rboxes, join_pictures, sorted_out


def build_refine_targets(
    anchors: Sequence[Tensor],
    truths: Sequence[Truth],
    rule: AssignRule,
    valid: Tensor | None = None,
    *,
    to_rbox: Convert,
    encode: Encode,
) -> StageTargets:
    """Assign and encode the truth of a batch for one refine stage, by exact rotated IoU.

    Truth boxes are compared and taught as rboxes; the hulls of the first stage play no part. Computed on the CPU,
    wherever the anchors are, without a matrix of all pairs and without gradients.

    Args:
        anchors: one (B, places, 5) a level, finite, in the form of the coder: boxes that the stage before decoded.
        truths: one per picture, in the frame `input`.
        rule: what decides. Ignored objects own no anchor, and keep some out of the loss if `rule.ignored_iof` says so.
        valid: (B, A) bool, anchors whose place belongs to the picture itself; the others take no part. None: all do.
        to_rbox: makes rboxes of anchors.
        encode: says where rboxes lie, seen from anchors.

    Returns:
        The targets, on the CPU; an anchor's number is that of its place, levels joined.

    Raises:
        FocaldetError: boxes of another shape or not finite, or not one truth a picture.
    """
    flat = torch.cat(list(anchors), dim=1).detach().cpu()
    if len(flat) != len(truths):
        raise FocaldetError(f"{len(truths)} truths come with the boxes of {len(flat)} pictures; give one each")
    shown = [None] * len(flat) if valid is None else list(valid.cpu())
    parts = [
        _one_picture(boxes, truth, rule, inside, to_rbox, encode)
        for boxes, truth, inside in zip(flat, truths, shown, strict=True)
    ]
    return join_pictures(parts, flat.shape[1], None if valid is None else valid.cpu())


def _one_picture(
    anchors: Tensor, truth: Truth, rule: AssignRule, valid: Tensor | None, to_rbox: Convert, encode: Encode
) -> PictureTargets:
    annotated, labels, apart = sorted_out(truth)
    boxes, wanted = enclosing_rboxes(annotated), (~apart).nonzero()[:, 0]
    found = assign_boxes(to_rbox(anchors), boxes[wanted], rule, valid=valid, ignored_boxes=boxes[apart])
    owners = wanted[found.truths]
    return found.positives, labels[owners], encode(boxes[owners], anchors[found.positives]), owners, found.ignored
