"""From what the network says to boxes on the picture: threshold, decode, NMS; one picture at a time at the end.

Upright boxes go by section 9 of the specification of the COCO rows (Lin et al. 2017, arXiv:1708.02002, section 4.1,
"Inference"), rotated ones by sections 3.4 and 8.1 of that of the DOTA rows. A picture may be a tile: `merge` brings
what was found in tiles together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.hbox import clip_hbox
from focaldet.geometry.nms import Equal, batched_rotated_nms, nms_hbox
from focaldet.geometry.polygon import polygon_to_rbox, polygon_to_rbox_truncated
from focaldet.geometry.rbox import rbox_to_polygon, scale_rbox
from focaldet.geometry.rotated_coders import RotatedCoder
from focaldet.results.detections import Detections
from focaldet.structures import Size, StageOutput

Finish = Literal["clip-scale-nms", "clip-nms-scale", "nms-scale-clip"]


@dataclass(frozen=True)
class DetectRule:
    """What counts as a detection.

    Attributes:
        score: an (anchor, class) pair needs more than this, strictly.
        per_level: at most so many of a level, the best, go on; None: all that are over `score`.
        per_level_of: what is counted there: "pairs", or "anchors", each with its best class, of which then all pairs
            over `score` go on (mmrotate 0.x).
        nms: of two boxes of a class whose IoU is over this, the worse is dropped.
        nms_labels: how NMS of upright boxes keeps classes apart: "separate" compares labels, "offset" shifts boxes in
            float32 (quirk).
        nms_equal: of rotated boxes, whether an IoU equal to `nms` is over it: "suppress" (the original program's CPU
            code) or "keep".
        max_per_class: at most so many of a class and picture, after NMS; None: all.
        max_detections: at most so many a picture; None: all.
        centres: of rotated boxes: "clamped" moves them into the picture before NMS, as mmrotate does.
        refit: of rotated boxes: "original-180" is a quirk of the original program's 180 range: before NMS it drops
            boxes whose decoded theta has left [-180, 0), truncates the corners of the others to whole pixels of the
            input and takes the least-area rectangle of that.
        stages: whose boxes count: those of the last stage, or of all "refined" stages behind the first, together.
        clamp: on which sides the logarithms of upright boxes' sizes are bounded: "both", or only "above".
        finish: in which order upright boxes are clipped to the picture, scaled to the original one and suppressed:
            "clip-scale-nms" (mmdetection); "clip-nms-scale" (torchvision), which keeps boxes without area;
            "nms-scale-clip" (detectron2), after whose limit boxes wholly outside the picture drop out.
    """

    score: float = 0.05
    per_level: int | None = 1000
    per_level_of: Literal["pairs", "anchors"] = "pairs"
    nms: float = 0.5
    nms_labels: Literal["separate", "offset"] = "separate"
    nms_equal: Equal = "keep"
    max_per_class: int | None = None
    max_detections: int | None = 100
    centres: Literal["free", "clamped"] = "free"
    refit: Literal["none", "original-180"] = "none"
    stages: Literal["last", "refined"] = "last"
    clamp: Literal["both", "above"] = "both"
    finish: Finish = "clip-scale-nms"

    def __post_init__(self) -> None:
        if not 0 <= self.score < 1:
            raise FocaldetError(f"score={self.score} must be at least 0 and below 1")
        if not 0 <= self.nms <= 1:
            raise FocaldetError(f"nms={self.nms} must lie between 0 and 1")
        for name in ("per_level", "max_per_class", "max_detections"):
            limit = getattr(self, name)
            if limit is not None and limit < 1:
                raise FocaldetError(f"{name}={limit} must be above 0, or None for no limit")


@dataclass(frozen=True)
class Pairs:
    """(anchor, class) pairs that may become detections, over a whole batch; P pairs.

    Attributes:
        pictures: (P,) int64 place in the batch.
        anchors: (P,) int64 number of the anchor in its picture, levels joined.
        labels: (P,) int64.
        scores: (P,) float32.
    """

    pictures: Tensor
    anchors: Tensor
    labels: Tensor
    scores: Tensor


@torch.no_grad()
def detect(
    stages: Sequence[StageOutput],
    sizes: Sequence[Size],
    scales: Tensor,
    rule: DetectRule,
    classes: Sequence[str],
    coder: RotatedCoder | None = None,
) -> list[Detections]:
    """Turn what the last stage says, or all refined ones, into the detections of each picture.

    Args:
        stages: what the model returned; which of them speak is the rule's. Logits and deltas of any float type and on
            any device; scores and boxes are worked out in float32.
        sizes: (height, width) of each input before padding; upright boxes are clipped to it.
        scales: (B, 2) (x, y) factors from the original picture to the input; ones leave boxes in the frame `input`.
        rule: thresholds and limits.
        classes: C names.
        coder: what the deltas of rotated boxes mean; None where boxes are upright.

    Returns:
        One a picture, in pixels of the original picture, falling by score; equal scores stay in the order of stage,
        level, anchor, class. A pair whose logit or deltas are not numbers is never among them.

    Raises:
        FocaldetError: if the numbers of stages, pictures, classes or deltas do not fit together.
    """
    speaking = speaking_stages(stages, rule)
    for output in speaking:
        _check(output, sizes, scales, classes, coder)
    names, found = tuple(classes), []
    said = [_candidates(output, sizes, rule, coder) for output in speaking]
    for of_stages, size, scale in zip(zip(*said, strict=True), sizes, scales, strict=True):
        boxes, scores, labels = (torch.cat(column) for column in zip(*of_stages, strict=True))
        if coder is None:
            found.append(finish_picture(boxes, scores, labels, size, scale, rule, names))
        else:
            found.append(finish_rotated(boxes, scores, labels, scale, rule, names, coder))
    return found


def speaking_stages(stages: Sequence[StageOutput], rule: DetectRule) -> Sequence[StageOutput]:
    """Return the stages whose boxes count.

    Raises:
        FocaldetError: those behind the first are asked for, and there are none.
    """
    if rule.stages == "last":
        return stages[-1:]
    if len(stages) < 2:
        raise FocaldetError("stages='refined' asks for refine stages, but the model has none; use stages='last'")
    return stages[1:]


def _candidates(
    output: StageOutput, sizes: Sequence[Size], rule: DetectRule, coder: RotatedCoder | None
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return, for each picture, what a stage's best pairs stand for: boxes (P, D), scores (P,) and labels (P,)."""
    pairs = select_pairs(output.logits, rule, output.valid)
    shares = torch.bincount(pairs.pictures, minlength=len(sizes)).tolist()
    columns = (torch.split(item, shares) for item in (*of_pairs(output, pairs), pairs.scores, pairs.labels))
    found = []
    for deltas, anchors, scores, labels, size in zip(*columns, sizes, strict=True):
        if coder is None:
            boxes = decode_hbox(deltas, anchors, min_log_scale=-math.inf if rule.clamp == "above" else None)
        else:
            boxes = coder.decode(deltas, anchors, size if rule.centres == "clamped" else None)
        found.append((boxes, scores, labels))
    return found


def select_pairs(logits: Sequence[Tensor], rule: DetectRule, valid: Sequence[Tensor] | None = None) -> Pairs:
    """Choose, on each level of each picture, the best pairs over the threshold.

    Nearly all anchors of nearly all pictures show nothing. So only the largest logit of each is compared, with a bound
    that no passing pair can miss, and the sigmoid is taken for the anchors that are left.

    Args:
        logits: (B, A_l, C) a level.
        rule: `score` and `per_level`.
        valid: (1 or B, A_l) bool a level: anchors that count; None if all do.

    Returns:
        The pairs, by picture, then level. Whether a pair passes is decided by its float32 score alone.
    """
    bound = lowest_logit(rule.score)
    chosen: list[list[Pairs]] = []
    start = 0
    for number, level in enumerate(logits):
        hopeful = ~(level.amax(-1).float() <= bound)  # not ">": a NaN beside a good logit must not hide it
        if valid is not None:
            hopeful &= valid[number]
        chosen.append(_best_of_level(level, hopeful, start, rule))
        start += level.shape[1]
    return _join([level[picture] for picture in range(len(logits[0])) for level in chosen])


def lowest_logit(score: float) -> float:
    """Return a logit that every pair whose float32 score exceeds `score` reaches for certain.

    It lies lower than log(p / (1 - p)) by a hundred times what float32 rounds off a sigmoid.

    >>> round(lowest_logit(0.05), 3)
    -2.944
    >>> lowest_logit(0)
    -inf
    """
    if score < 1e-30:  # float32 scores below are denormal, with errors of any size
        return -math.inf
    lowered = score * (1 - 1e-5)
    return math.log(lowered / (1 - lowered))


def _best_of_level(logits: Tensor, hopeful: Tensor, start: int, rule: DetectRule) -> list[Pairs]:
    """Return the pairs of one level for each picture; `start` is the number of the level's first anchor."""
    num_pictures, num_anchors, num_classes = logits.shape
    hoped = hopeful.flatten().nonzero().squeeze(1)
    rows, labels, values = pairs_over(logits.reshape(-1, num_classes)[hoped].float(), lowest_logit(rule.score))
    scores = score_of(values)
    passing = (scores > rule.score).nonzero().squeeze(1)
    rows, labels, scores = hoped[rows[passing]], labels[passing], scores[passing]
    pictures = rows.div(num_anchors, rounding_mode="floor")
    shares = torch.bincount(pictures, minlength=num_pictures).tolist()
    columns = [torch.split(item, shares) for item in (pictures, rows - pictures * num_anchors + start, labels, scores)]
    limited = []
    for share in zip(*columns, strict=True):
        best = _best_pairs(share[1], share[-1], rule)
        limited.append(Pairs(*(item[best] for item in share)))
    return limited


def _best_pairs(anchors: Tensor, scores: Tensor, rule: DetectRule) -> Tensor:
    """Return the places, falling by score, of those of a level's (P,) pairs that go on; anchors rise."""
    limit = len(scores) if rule.per_level is None else rule.per_level
    if rule.per_level_of == "anchors" and limit < len(scores):
        number = torch.cat([anchors[:1] * 0, (anchors.diff() != 0).cumsum(0)])
        highest = scores.new_zeros(int(number[-1]) + 1).scatter_reduce_(0, number, scores, "amax")
        chosen = torch.zeros_like(highest, dtype=torch.bool)
        chosen[best_of(highest, limit)] = True
        left = chosen[number].nonzero().squeeze(1)
        return left[best_of(scores[left], len(left))]
    return best_of(scores, limit)


def score_of(logits: Tensor) -> Tensor:
    """Return the float32 sigmoid of (P,) logits, rounded correctly.

    torch's own differs in the last bit between the vectorized body of a tensor and its last few elements, so the
    detections of a picture would depend on what else is in the batch.
    """
    exact = logits if logits.device.type == "mps" else logits.double()  # that device has no float64
    return exact.sigmoid().float()


def pairs_over(scores: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return (rows, labels, scores), each (P,), of the entries of (R, C) scores that are strictly over a threshold."""
    rows, labels = (scores > threshold).nonzero().unbind(1)
    return rows, labels, scores[rows, labels]


def best_of(scores: Tensor, limit: int) -> Tensor:
    """Return the places of the `limit` best of (P,) scores, falling; equal scores keep their order."""
    if len(scores) <= limit:
        return scores.argsort(descending=True, stable=True)
    least = scores.topk(limit).values[-1]  # topk breaks ties as it likes, so all that tie are sorted again
    hopeful = (scores >= least).nonzero().squeeze(1)
    return hopeful[scores[hopeful].argsort(descending=True, stable=True)[:limit]]


def _join(parts: Sequence[Pairs]) -> Pairs:
    return Pairs(
        pictures=torch.cat([part.pictures for part in parts]),
        anchors=torch.cat([part.anchors for part in parts]),
        labels=torch.cat([part.labels for part in parts]),
        scores=torch.cat([part.scores for part in parts]),
    )


def of_pairs(output: StageOutput, pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Return the (P, D) deltas and anchors of the pairs, in float32."""
    deltas, anchors = torch.cat(output.deltas, dim=1), torch.cat(output.anchors, dim=1)
    own = pairs.pictures if len(anchors) > 1 else torch.zeros_like(pairs.pictures)  # fixed anchors serve all pictures
    return deltas[pairs.pictures, pairs.anchors].float(), anchors[own, pairs.anchors].float()


def finish_picture(
    boxes: Tensor, scores: Tensor, labels: Tensor, size: Size, scale: Tensor, rule: DetectRule, classes: tuple[str, ...]
) -> Detections:
    """Clip, scale back, drop empty boxes, suppress and limit the candidates of one picture, in the rule's order.

    Args:
        boxes: (P, 4) float32 in the frame `input`.
        scores: (P,) float32.
        labels: (P,) int64.
        size: (height, width) of the input before padding.
        scale: (2,) (x, y) factors from the original picture to the input.
        rule: NMS and the limit.
        classes: C names.
    """
    # The reference multiplies by the reciprocal, and does so before NMS: both move boxes in the last bit.
    factors = scale.double().reciprocal().float().to(boxes.device).repeat(2)
    if rule.finish != "nms-scale-clip":
        boxes = clip_hbox(boxes, size)
    if rule.finish == "clip-scale-nms":
        boxes = boxes * factors
    sound = _with_area(boxes) if rule.finish == "clip-scale-nms" else boxes.isfinite().all(dim=1).nonzero().squeeze(1)
    boxes, scores, labels = boxes[sound], scores[sound], labels[sound]
    kept = _limited(nms_hbox(boxes, scores, labels, rule.nms, rule.nms_labels), labels, rule)
    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
    if rule.finish != "clip-scale-nms":
        boxes = boxes * factors
    if rule.finish == "nms-scale-clip":
        original = round(size[0] / float(scale[1])), round(size[1] / float(scale[0]))
        boxes = clip_hbox(boxes, original)
        seen = _with_area(boxes)
        boxes, scores, labels = boxes[seen], scores[seen], labels[seen]
    return Detections(boxes, scores, labels, classes)


def _with_area(boxes: Tensor) -> Tensor:
    """Return the places of those of (N, 4) hboxes that are wide and high; numbers that are none drop out."""
    return ((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).nonzero().squeeze(1)


def merge_looks(found: Detections, rule: DetectRule) -> Detections:
    """Suppress and limit the upright boxes that several looks at one picture found.

    Args:
        found: those of all looks, in pixels of the picture.
        rule: NMS and the limits.
    """
    boxes, scores, labels = found.boxes, found.scores, found.labels
    kept = _limited(nms_hbox(boxes, scores, labels, rule.nms, rule.nms_labels), labels, rule)
    return Detections(boxes[kept], scores[kept], labels[kept], found.classes)


def finish_rotated(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    scale: Tensor,
    rule: DetectRule,
    classes: tuple[str, ...],
    coder: RotatedCoder,
) -> Detections:
    """Suppress and limit the rotated candidates of one picture, scale them back and write them as public rboxes.

    Args:
        boxes: (P, 5) as the coder has decoded them, in the frame `input`.
        scores: (P,) float32.
        labels: (P,) int64.
        scale: (2,) (x, y) factors from the original picture to the input.
        rule: NMS, limits, and what happens to boxes before.
        classes: C names.
        coder: whose form the boxes have.
    """
    real = boxes.isfinite().all(dim=1) & (boxes[:, 2:4] > 0).all(dim=1)
    if rule.refit == "original-180":
        real &= (boxes[:, 4] >= -math.pi) & (boxes[:, 4] < 0)
    real = real.nonzero().squeeze(1)
    boxes, scores, labels = coder.to_rbox(boxes[real]), scores[real], labels[real]
    if rule.refit == "original-180":
        boxes = polygon_to_rbox_truncated(rbox_to_polygon(boxes))
    kept = _limited(batched_rotated_nms(boxes, scores, labels, rule.nms, equal=rule.nms_equal), labels, rule)
    return Detections(unscale_rbox(boxes[kept], scale), scores[kept], labels[kept], classes)


def unscale_rbox(boxes: Tensor, scale: Tensor) -> Tensor:
    """Bring rboxes (N, 5) from the frame `input` to the original picture, by its (x, y) factors (2,).

    Two different factors make parallelograms of rectangles; the answer is then the least-area rectangle around each.

    >>> unscale_rbox(torch.tensor([[8.0, 8.0, 4.0, 2.0, 0.0]]), torch.tensor([2.0, 2.0]))
    tensor([[4., 4., 2., 1., 0.]])
    """
    x, y = scale.double().reciprocal().tolist()
    if x == y:
        return scale_rbox(boxes, x)
    return polygon_to_rbox(rbox_to_polygon(boxes) * boxes.new_tensor([x, y] * 4))


def _limited(kept: Tensor, labels: Tensor, rule: DetectRule) -> Tensor:
    """Return those of the (K,) kept places, which fall by score, that the limits leave: of each class, then of all."""
    if rule.max_per_class is not None:
        kept = kept[rank_in_class(labels[kept]) < rule.max_per_class]
    return kept[: rule.max_detections]


def rank_in_class(labels: Tensor) -> Tensor:
    """Return how many of the same label come before each of (N,) labels.

    >>> rank_in_class(torch.tensor([5, 5, 2, 5]))
    tensor([0, 1, 0, 2])
    """
    grouped, order = labels.sort(stable=True)
    rank = torch.arange(len(labels), device=labels.device) - torch.searchsorted(grouped, grouped)
    return torch.empty_like(rank).scatter_(0, order, rank)


def _check(
    output: StageOutput, sizes: Sequence[Size], scales: Tensor, classes: Sequence[str], coder: RotatedCoder | None
) -> None:
    num_pictures, _, num_classes = output.logits[0].shape
    if len(sizes) != num_pictures or tuple(scales.shape) != (num_pictures, 2):
        raise FocaldetError(
            f"{num_pictures} pictures came out of the model, but there are {len(sizes)} sizes and scales of shape "
            f"{tuple(scales.shape)}; give one size and one (x, y) pair for each picture"
        )
    if len(classes) != num_classes:
        raise FocaldetError(f"the model tells {num_classes} classes apart, but {len(classes)} names are given")
    numbers = output.deltas[0].shape[-1]
    wanted = 4 if coder is None else coder.numbers
    if numbers != wanted:
        given = "no coder of rotated boxes is given, which goes" if coder is None else "the coder given goes"
        raise FocaldetError(f"a box has {numbers} deltas, but {given} with {wanted}")
