"""R3Det, R3Det* and R3Det++ (Yang et al. 2019, arXiv:1908.05612): a RetinaNet, then stages that refine its boxes.

    pyramid -> head -> the best box of each place -> pyramid aligned with it -> head of one anchor a place -> ...

R3Det refines once, R3Det* twice, each time from the pyramid's own maps; R3Det++ weights the maps of the first
refinement. Start with `retinanet.py`, then: `refine.py`, `inld.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import in_full_precision
from focaldet.geometry.rotated_coders import RotatedCoder
from focaldet.models.heads import Head
from focaldet.models.inld import InLD
from focaldet.models.refine import Convs, FeatureRefinement, Output, Points, Sampling
from focaldet.models.retinanet import RetinaNet
from focaldet.structures import StageOutput

Gradient = Literal["detached", "attached"]

MAX_DELTA, MAX_SCALE_DELTA = 1e4, 40.0
"""What the deltas of a box that goes on to the next stage are clamped to, and those of its sides: far beyond any that a
detector means, and little enough that nothing overflows, nor its gradient."""
LEAST_SIDE = 1e-3
"""Sides that go on to the next stage are at least so many pixels."""
FARTHEST = 1e6
"""Sides and coordinates of centres that go on are at most so many pixels."""


class RefineStage(nn.Module):
    """Maps aligned with boxes, and a head that says how each place's one box must move.

    Args:
        alignment: the pyramid's maps and a box a place to refined maps.
        head: those to logits and deltas.
    """

    def __init__(self, alignment: FeatureRefinement, head: Head) -> None:
        super().__init__()
        self.alignment, self.head = alignment, head

    def forward(
        self, pyramid: Sequence[Tensor], boxes: Sequence[Tensor], weights: Sequence[Tensor] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Turn maps (B, channels, H, W) and boxes (B, H * W, 5) into logits (B, H * W, C) and deltas (B, H * W, D).

        Args:
            pyramid: one map a level.
            boxes: of the stage before, in the frame `input`.
            weights: what refined maps are multiplied with, of their shape; None: nothing.
        """
        maps = self.alignment(pyramid, boxes)
        if weights is not None:
            maps = [level * weight for level, weight in zip(maps, weights, strict=True)]
        logits, deltas = self.head(maps)
        return logits, deltas


class R3Det(RetinaNet):
    """A RetinaNet of rotated boxes whose answers are refined, stage by stage.

    Args:
        first: the first stage; its parts become parts of this.
        refine: the stages behind it.
        coder: how deltas and anchors become boxes.
        gradient: whether the sampled places pass gradients back to the boxes of the stage before.
        inld: weights the maps of the first refine stage; None: nothing does.
    """

    def __init__(
        self,
        first: RetinaNet,
        refine: Sequence[RefineStage],
        coder: RotatedCoder,
        gradient: Gradient = "detached",
        inld: InLD | None = None,
    ) -> None:
        super().__init__(first.backbone, first.neck, first.head, first.anchors)
        self.refine, self.inld = nn.ModuleList(refine), inld
        self.coder, self.gradient = coder, gradient

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Say what is where, in the first stage and in each refine stage.

        The anchors of a refine stage are the boxes of the stage before, (B, H * W, 5) a level, in the coder's form,
        detached. Mask logits are `extra["mask_logits"]` of the first refine stage.

        Args:
            images: (B, channels, H, W) float, normalized and padded, channels in the recipe's order.
        """
        pyramid = self.features(images)[1]
        logits, deltas = self.head(pyramid)
        anchors = self.anchors_of(pyramid)
        stages = [StageOutput(logits, deltas, anchors)]
        for number, stage in enumerate(self.refine):
            with nullcontext() if self.gradient == "attached" else torch.no_grad():
                anchors = best_boxes(logits, deltas, anchors, pyramid, self.coder)
            weights, masks = self.inld(pyramid) if self.inld is not None and number == 0 else (None, [])
            logits, deltas = stage(pyramid, anchors, weights)
            extra = {"mask_logits": masks} if masks else {}
            stages.append(StageOutput(logits, deltas, [level.detach() for level in anchors], extra=extra))
        return stages


def build_r3det(
    first: RetinaNet,
    *,
    coder: RotatedCoder,
    refine_stages: int = 1,
    refine_convs: Convs = "per-level",
    refine_points: Points = 1,
    refine_sampling: Sampling = "true",
    refine_output: Output = "f+sample",
    refine_gradient: Gradient = "detached",
    inld: Sequence[int] = (),
    inld_masks: Literal["classes", "binary"] = "classes",
) -> R3Det:
    """Put freshly initialized refine stages behind a RetinaNet; arguments are named as a Recipe's fields.

    Args:
        first: whose anchors are coded as rboxes. Refine heads have the form of its head.
        coder: how deltas and anchors become boxes.
        refine_stages: how many; 2 makes R3Det*.
        refine_convs: convolutions before the sampling, each level's own or shared.
        refine_points: sampled points of a box.
        refine_sampling: how a point is sampled, see `align_features`.
        refine_output: what a refined map is the sum of.
        refine_gradient: whether gradients go from sampled places back to boxes.
        inld: dilated convolutions of each level's trunk, which makes R3Det++; (): none.
        inld_masks: what the masks tell apart.

    Raises:
        FocaldetError: `inld` has another number of levels than the pyramid, or the corners of boxes are sampled, which
            "tf180" writes otherwise than rboxes.
    """
    strides, channels = first.anchors.strides, first.head.in_channels
    if inld and len(inld) != len(strides):
        raise FocaldetError(f"inld={tuple(inld)} has {len(inld)} numbers; give one for each of {len(strides)} levels")
    if refine_points == 5 and coder.form == "tf180":
        raise FocaldetError("refine_points=5 does not go with angle='tf180'; use refine_points=1, or angle='tf90'")
    stages = [
        RefineStage(
            FeatureRefinement(
                channels, strides, refine_convs, refine_points, refine_sampling, refine_output, first.head.init
            ),
            first.head.sibling(num_anchors=1),
        )
        for _ in range(refine_stages)
    ]
    num_masks = 1 + (first.head.num_classes if inld_masks == "classes" else 1)
    return R3Det(first, stages, coder, refine_gradient, InLD(channels, inld, num_masks) if inld else None)


def best_boxes(
    logits: Sequence[Tensor],
    deltas: Sequence[Tensor],
    anchors: Sequence[Tensor],
    pyramid: Sequence[Tensor],
    coder: RotatedCoder,
) -> list[Tensor]:
    """Return the box of each place's best anchor, that of the highest logit of any class, of equal ones the first.

    Only the best are decoded. Their sides lie in [LEAST_SIDE, FARTHEST] and their centres within FARTHEST of 0, so
    that whatever finite deltas a head predicts, the next stage gets finite boxes with area.

    Args:
        logits: (B, H * W * K, C), one tensor a level, the K anchors of a place together.
        deltas: (B, H * W * K, D).
        anchors: (1 or B, H * W * K, 5), in the coder's form.
        pyramid: the levels' maps, (..., H, W).
        coder: how deltas and anchors become boxes.

    Returns:
        (B, H * W, 5) boxes a level, in the coder's form; at least float32.
    """
    counts = [level.shape[-2] * level.shape[-1] for level in pyramid]
    levels = zip(logits, deltas, anchors, counts, strict=True)
    chosen = [_best_of_place(*level) for level in levels]
    best_deltas, best_anchors = (torch.cat(parts, dim=1) for parts in zip(*chosen, strict=True))
    return list(torch.split(decode_within(best_deltas, best_anchors, coder), counts, dim=1))


def _best_of_place(logits: Tensor, deltas: Tensor, anchors: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return deltas (B, count, D) and anchors (B, count, 5) of the best of each place's anchors."""
    anchors = anchors.expand(len(logits), -1, -1)
    if logits.shape[1] == count:
        return deltas, anchors
    batch, kinds = len(logits), logits.shape[1] // count
    best = logits.detach().reshape(batch, count, kinds, -1).amax(dim=-1).argmax(dim=-1)
    index = best[:, :, None, None]
    of_place = [
        rows.reshape(batch, count, kinds, -1).gather(2, index.expand(-1, -1, 1, rows.shape[-1])).squeeze(2)
        for rows in (deltas, anchors)
    ]
    return of_place[0], of_place[1]


def decode_within(deltas: Tensor, anchors: Tensor, coder: RotatedCoder) -> Tensor:
    """Decode deltas (..., D) to boxes (..., 5), clamped to finite ones with area as `best_boxes` says.

    What is no number stays none.
    """
    deltas = in_full_precision(deltas)
    limits = deltas.new_full(deltas.shape[-1:], MAX_DELTA)
    limits[2:4] = MAX_SCALE_DELTA
    boxes = coder.decode(deltas.clamp(-limits, limits), anchors)
    centres, sides, theta = torch.split(boxes, [2, 2, 1], dim=-1)
    return torch.cat([centres.clamp(-FARTHEST, FARTHEST), sides.clamp(LEAST_SIDE, FARTHEST), theta], dim=-1)
