"""What the stages of a detector said, held against what they should have said: sums, normalizers and weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.angles import wide_type
from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.iou import hbox_iou_aligned
from focaldet.geometry.rotated_iou import rotated_iou_aligned
from focaldet.losses.box import (
    OVERLAPS,
    IoUForm,
    iou_smooth_l1_loss,
    l1_loss,
    overlap_loss,
    smooth_l1_atan_loss,
    smooth_l1_loss,
    smooth_l1_one_sided_loss,
)
from focaldet.losses.focal import focal_loss
from focaldet.losses.mask import mask_loss
from focaldet.losses.normalizer import MovingAverage, Normalizer, stage_of, targets_of
from focaldet.structures import StageOutput, StageTargets

BoxLoss = Literal[
    "l1",
    "smooth_l1",
    "smooth_l1_one_sided",
    "smooth_l1_atan",
    "iou_smooth_l1",
    "iou_smooth_l1_exp",
    "giou",
    "diou",
    "ciou",
]
Decode = Callable[[Tensor, Tensor], Tensor]
"""(deltas, anchors) -> boxes: hboxes (P, 4), or public rboxes (P, 5)."""

SMOOTH: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "smooth_l1": smooth_l1_loss,
    "smooth_l1_one_sided": smooth_l1_one_sided_loss,
    "smooth_l1_atan": smooth_l1_atan_loss,
}
IOU_FORMS: dict[str, IoUForm] = {"iou_smooth_l1": "log", "iou_smooth_l1_exp": "exp"}

EPSILON = torch.finfo(torch.float32).eps
"""Added to every normalizer by the published programs."""
FARTHEST = 1e9
"""Pixels; a predicted box that goes farther, or to infinity, counts as one that goes so far: it meets no truth."""


@dataclass(frozen=True)
class Criterion:
    """The losses of RetinaNet and of whatever refines it (Lin et al. 2017, arXiv:1708.02002, section 4.1).

    The losses of classes and boxes are sums over the batch divided by a normalizer: those of each stage, by its own.
    All stages count alike.

    Attributes:
        alpha: focal loss's weight of the class that is there.
        gamma: focal loss's fading of easy elements.
        box_loss: on the deltas of positives, on the boxes they mean ("giou", "diou", "ciou", upright ones), or on both:
            the size from the IoU of the boxes and the direction from the deltas ("iou_smooth_l1", "iou_smooth_l1_exp").
        box_beta: where smooth L1 turns from square to straight.
        box_weight: factor on the box loss.
        iou_floor: smallest IoU that "iou_smooth_l1" believes; with 0, a box that misses its truth makes the loss
            infinite, as in the original program.
        decode: what the deltas of the stages mean, where the box loss looks at boxes.
        normalizer: "batch" is the positives of the batch, where a picture without any counts as one; "picture" those of
            each picture by itself, at least one, and then the mean over pictures (torchvision); "moving" an average
            over batches of the positives of each, at least one (detectron2).
        average: the numbers that "moving" keeps from batch to batch.
    """

    alpha: float = 0.25
    gamma: float = 2.0
    box_loss: BoxLoss = "l1"
    box_beta: float = 1 / 9
    box_weight: float = 1.0
    iou_floor: float = 1e-6
    decode: Decode = decode_hbox
    normalizer: Normalizer = "batch"
    average: MovingAverage = field(default_factory=MovingAverage, compare=False)

    def __post_init__(self) -> None:
        if not (0 <= self.alpha <= 1 and self.gamma >= 0 and self.box_beta >= 0):
            given = f"alpha={self.alpha}, gamma={self.gamma}, box_beta={self.box_beta}"
            raise FocaldetError(f"{given}: alpha must lie in 0 to 1, gamma and box_beta must not be negative")
        if self.box_loss not in get_args(BoxLoss):
            raise FocaldetError(f"box_loss={self.box_loss!r} is not one of {', '.join(get_args(BoxLoss))}")
        if self.box_loss == "smooth_l1_one_sided" and self.box_beta == 0:
            raise FocaldetError("box_loss='smooth_l1_one_sided' is a square below its bend; box_beta must be above 0")
        if not 0 <= self.iou_floor < 1:
            raise FocaldetError(f"iou_floor={self.iou_floor} must lie in 0 to 1, below 1")

    def __call__(self, stages: Sequence[StageOutput], targets: Sequence[StageTargets]) -> dict[str, Tensor]:
        """Return {"class", "box", "loss"}, scalars with gradients; "loss" is the sum of all others.

        The names of stages after the first begin with "refine1_", "refine2_" and so on. A stage with a semantic branch
        (`extra["mask_logits"]`) adds "mask". Without any truth in the batch the box loss is exactly 0, and still part
        of the graph.

        Args:
            stages: what was said, one a stage.
            targets: what should have been said, one a stage; on the stages' device or, to spare it waiting, on the CPU.
        """
        if len(stages) != len(targets):
            raise FocaldetError(f"{len(stages)} stages come with {len(targets)} targets; give one each")
        losses: dict[str, Tensor] = {}
        for number, (stage, target) in enumerate(zip(stages, targets, strict=True)):
            prefix = f"refine{number}_" if number else ""
            by_class, by_box = self.per_level(stage, target)
            losses[prefix + "class"], losses[prefix + "box"] = by_class.sum(), by_box.sum()
            if "mask_logits" in stage.extra:
                losses["mask"] = mask_loss(stage.extra["mask_logits"], _masks(stage, target))
        return {**losses, "loss": torch.stack(list(losses.values())).sum()}

    def per_level(self, stage: StageOutput, targets: StageTargets) -> tuple[Tensor, Tensor]:
        """Return the class losses (L,) and box losses (L,) of each level of one stage, normalized and weighted."""
        pictures = len(stage.logits[0])
        if self.normalizer != "picture" or pictures == 1:
            return self._per_level(stage, targets)
        _check(stage, targets)
        parts = [self._per_level(stage_of(stage, index), targets_of(targets, index)) for index in range(pictures)]
        by_class, by_box = (torch.stack(column).mean(0) for column in zip(*parts, strict=True))
        return by_class, by_box

    def _per_level(self, stage: StageOutput, targets: StageTargets) -> tuple[Tensor, Tensor]:
        device = stage.logits[0].device
        normalizer = self._normalizer(targets.num_positives).to(device, torch.float32)
        by_class, by_box = [], []
        for level, rows in enumerate(rows_by_level(stage, targets)):
            here = targets.labels[rows.members].to(device), targets.deltas[rows.members].to(device)
            shown, excluded = rows.positives.to(device), rows.excluded.to(device)
            logits = stage.logits[level]
            by_class.append(focal_loss(logits, shown, here[0], excluded, normalizer, self.alpha, self.gamma))
            by_box.append(self._box_loss(stage, level, shown, here[1]) / normalizer * self.box_weight)
        return torch.stack(by_class), torch.stack(by_box)

    def _normalizer(self, num_positives: Tensor) -> Tensor:
        if self.normalizer == "moving":
            return self.average.update(num_positives.sum().clamp(min=1))
        return num_positives.clamp(min=1).sum().double() + EPSILON

    def _box_loss(self, stage: StageOutput, level: int, rows: Tensor, targets: Tensor) -> Tensor:
        deltas = stage.deltas[level].flatten(0, 1)[rows]
        if self.box_loss == "l1":
            return l1_loss(deltas, targets)
        if self.box_loss in SMOOTH:
            return SMOOTH[self.box_loss](deltas, targets, self.box_beta)
        anchors = stage.anchors[level].expand(len(stage.deltas[level]), -1, -1)
        count = anchors.shape[1]
        anchors = anchors[rows // count, rows % count]
        if self.box_loss in OVERLAPS:
            return overlap_loss(self.decode(deltas, anchors), self.decode(targets, anchors), self.box_loss)
        ious, form = self._ious(deltas, targets, anchors), IOU_FORMS[self.box_loss]
        return iou_smooth_l1_loss(deltas, targets, self.box_beta, ious, form, self.iou_floor)

    @torch.no_grad()
    def _ious(self, deltas: Tensor, targets: Tensor, anchors: Tensor) -> Tensor:
        """Return (P,) how much of the boxes meant by `deltas` and by `targets` overlaps; as exact as can be."""
        wide = wide_type(anchors)
        said, truth = (self.decode(numbers.to(wide), anchors.to(wide)) for numbers in (deltas, targets))
        said = said.nan_to_num(nan=0.0).clamp(-FARTHEST, FARTHEST)  # a NaN is told by the deltas' own loss
        return (rotated_iou_aligned if said.shape[-1] == 5 else hbox_iou_aligned)(said, truth)


def _masks(stage: StageOutput, targets: StageTargets) -> list[Tensor]:
    if targets.masks is None:
        raise FocaldetError("a stage has a semantic branch, but its targets have no masks; paint them by build_masks")
    return [mask.to(stage.extra["mask_logits"][0].device) for mask in targets.masks]


@dataclass(frozen=True)
class LevelRows:
    """What concerns one level of a batch, by rows of its joined (B * A_l, ...) maps.

    Attributes:
        members: (P_l,) which of the batch's positives lie on this level.
        positives: (P_l,) their rows, rising.
        excluded: (E_l,) rows that take no part, rising.
    """

    members: Tensor
    positives: Tensor
    excluded: Tensor


def rows_by_level(stage: StageOutput, targets: StageTargets) -> Iterator[LevelRows]:
    """Split flat anchor numbers, which run picture by picture, into rows of each level.

    Raises:
        FocaldetError: the targets are for another number of anchors, pictures or classes than the stage has.
    """
    _check(stage, targets)
    total, first = targets.num_anchors, 0
    for logits in stage.logits:
        count = logits.shape[1]
        members, positives = _rows(targets.positives, total, first, count)
        excluded = _rows(targets.ignored, total, first, count)[1]
        if targets.valid is not None:
            outside = (~targets.valid[:, first : first + count]).flatten().nonzero()[:, 0]
            excluded = torch.cat([excluded, outside]).sort().values
        yield LevelRows(members, positives, excluded)
        first += count


def _rows(flat: Tensor, total: int, first: int, count: int) -> tuple[Tensor, Tensor]:
    """Return which of the flat numbers lie on a level of `count` anchors from `first`, and their rows there."""
    picture, anchor = flat // total, flat % total - first
    members = ((anchor >= 0) & (anchor < count)).nonzero()[:, 0]
    return members, picture[members] * count + anchor[members]


def _check(stage: StageOutput, targets: StageTargets) -> None:
    batch, _, classes = stage.logits[0].shape
    anchors = sum(logits.shape[1] for logits in stage.logits)
    said, asked = (batch, anchors), (len(targets.num_positives), targets.num_anchors)
    if said != asked:
        raise FocaldetError(
            f"the model speaks for {said[0]} pictures of {said[1]} anchors, the targets for {asked[0]} of {asked[1]}; "
            "build the targets for the same batch and anchors"
        )
    if targets.labels.is_cpu and len(targets.labels) and int(targets.labels.max()) >= classes:
        label = int(targets.labels.max())
        raise FocaldetError(f"a truth box has label {label}, but the model has {classes} classes, 0 to {classes - 1}")
