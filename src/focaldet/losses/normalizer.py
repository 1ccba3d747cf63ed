"""What the losses of a batch are divided by: its positives, those of each picture, or an average over batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from focaldet.structures import StageOutput, StageTargets

Normalizer = Literal["batch", "picture", "moving"]

BEGINNING = 100.0
"""Where the moving average starts."""
MOMENTUM = 0.9
"""How much of it each batch leaves."""


class MovingAverage:
    """The positives of a batch, averaged over the batches before it (detectron2).

    detectron2 has an average a GPU. A step of several groups of pictures on one device has one a group, each of which
    its own group moves: so a run with eight groups on one device is that of eight devices.

    Args:
        groups: calls that belong to one step.
    """

    def __init__(self, groups: int = 1) -> None:
        self.values = [torch.tensor(BEGINNING, dtype=torch.float64) for _ in range(groups)]
        self.calls = 0

    def update(self, positives: Tensor) -> Tensor:
        """Move the next group's average by its number of positives, and return it (float64).

        >>> MovingAverage().update(torch.tensor(20))
        tensor(92., dtype=torch.float64)
        """
        slot = self.calls % len(self.values)
        self.calls += 1
        before = self.values[slot].to(positives.device)
        self.values[slot] = before * MOMENTUM + positives.double() * (1 - MOMENTUM)
        return self.values[slot]

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return what an exact resume needs."""
        return {"values": torch.stack([value.cpu() for value in self.values]), "calls": self.calls}

    def load_state_dict(self, state: dict[str, Tensor | int]) -> None:
        """Go on from a `state_dict`."""
        values, calls = state["values"], state["calls"]
        assert isinstance(values, Tensor) and isinstance(calls, int)
        self.values, self.calls = list(values.unbind()), calls


def stage_of(stage: StageOutput, index: int) -> StageOutput:
    """Return what a stage says of one picture of the batch."""
    here = slice(index, index + 1)
    return StageOutput(
        logits=[level[here] for level in stage.logits],
        deltas=[level[here] for level in stage.deltas],
        anchors=[level[here] if len(level) > 1 else level for level in stage.anchors],
    )


def targets_of(targets: StageTargets, index: int) -> StageTargets:
    """Return what a stage should have said of one picture of the batch."""
    first = index * targets.num_anchors
    own = targets.positives // targets.num_anchors == index
    ignored = targets.ignored[targets.ignored // targets.num_anchors == index]
    return replace(
        targets,
        positives=targets.positives[own] - first,
        labels=targets.labels[own],
        deltas=targets.deltas[own],
        truths=targets.truths[own],
        ignored=ignored - first,
        valid=None if targets.valid is None else targets.valid[index : index + 1],
        num_positives=targets.num_positives[index : index + 1],
        masks=None,
    )
