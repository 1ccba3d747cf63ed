"""What every stage of a detector should have said about a batch: the first known with it, the others once it spoke."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from focaldet.structures import Batch, StageOutput, StageTargets
from focaldet.targets.assign import AssignRule
from focaldet.targets.encode import Convert, Encode
from focaldet.targets.masks import MaskKind, build_masks
from focaldet.targets.refine import build_refine_targets

MASK_LOGITS = "mask_logits"
"""Name under which a stage with a semantic branch has its logits."""


@dataclass(frozen=True)
class StageTargetBuilder:
    """Stages and their batch -> the targets of each stage.

    Anchors of the first stage are fixed, and assigned with the batch (in a loader's worker). Those of a refine stage
    are what the stage before it answered: they are assigned here, on the CPU, for which a GPU is waited for once.

    Attributes:
        rules: how the anchors of each refine stage get their truth.
        to_regress: makes rboxes of truth as annotated.
        to_rbox: makes rboxes of boxes in the form of the coder.
        encode: makes deltas of rboxes, seen from anchors.
        masks: what painted masks tell apart.
    """

    rules: tuple[AssignRule, ...]
    to_regress: Convert
    to_rbox: Convert
    encode: Encode
    masks: MaskKind = "classes"

    def __call__(self, stages: Sequence[StageOutput], batch: Batch) -> list[StageTargets]:
        """Return the targets of each stage, on the stages' device; `batch` must bring those of the first."""
        assert batch.targets is not None
        device = stages[0].logits[0].device
        targets = [batch.targets.to(device)]
        if len(stages) == 1:
            return targets
        truths = [replace(truth, boxes=self.to_regress(truth.boxes)) for truth in batch.truths]
        batch = replace(batch, truths=truths)
        for rule, stage in zip(self.rules, stages[1:], strict=True):
            targets.append(self._refined(stage, batch, rule).to(device))
        return targets

    def _refined(self, stage: StageOutput, batch: Batch, rule: AssignRule) -> StageTargets:
        valid = _valid_places(batch.targets, sum(level.shape[1] for level in stage.logits))
        targets = build_refine_targets(
            stage.anchors, batch.truths, rule, valid, to_rbox=self.to_rbox, encode=self.encode
        )
        if MASK_LOGITS not in stage.extra:
            return targets
        sizes = [(level.shape[2], level.shape[3]) for level in stage.extra[MASK_LOGITS]]
        picture = (batch.images.shape[-2], batch.images.shape[-1])
        leave_out = rule.ignored_iof is not None
        masks = build_masks(batch.truths, sizes, picture, kind=self.masks, leave_out=leave_out, valid=valid)
        return replace(targets, masks=masks)


def _valid_places(first: StageTargets | None, places: int) -> Tensor | None:
    """Return (B, places) bool, of the valid anchors of a stage with several a place."""
    if first is None or first.valid is None:
        return None
    return first.valid[:, :: first.num_anchors // places]
