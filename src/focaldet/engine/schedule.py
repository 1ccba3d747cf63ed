"""Learning rate of a step: warm-up, then drops or a cosine (`horizontal.md` section 11, `rotated.md` section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """What the learning rate does over a run.

    Args:
        peak: the rate after warm-up.
        steps_per_epoch: updates an epoch.
        epochs: length of the run.
        drops: epochs after which the rate falls to a tenth (shape "step").
        warmup_steps: updates of linear warm-up from `warmup_from` * peak.
        warmup_until: whether the peak is reached at the last warm-up step or at the one after it.
        shape: "step" or "cosine" (from the peak at step 0 to zero at the end, times the warm-up).
        drop_from: which update of the next epoch is the first to have the fallen rate; "second" is a quirk of the
            original rotated programs, which change the rate when more steps than those of `drops` are done.
    """

    peak: float
    steps_per_epoch: int
    epochs: int
    drops: Sequence[int] = ()
    warmup_steps: int = 0
    warmup_from: float = 0.001
    warmup_until: Literal["last", "next"] = "next"
    shape: Literal["step", "cosine"] = "step"
    drop_from: Literal["first", "second"] = "first"

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return self.steps_per_epoch * self.epochs

    def factor(self, progress: float) -> float:
        """Return the share of the peak that is left at a point of the run, warm-up apart; progress 0 to 1."""
        if self.shape == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        epoch = progress * self.epochs
        # progress is a quotient of whole numbers: an epoch's first update may fall on either side of it by rounding
        slack = -1e-9 if self.drop_from == "first" else 1e-9
        return float(0.1 ** sum(epoch >= drop + slack for drop in self.drops))

    def warmup(self, step: int) -> float:
        """Return the warm-up's factor at a step, 1 after it."""
        if step >= self.warmup_steps:
            return 1.0
        length = self.warmup_steps - (self.warmup_until == "last")
        return self.warmup_from + (1 - self.warmup_from) * min(step / max(length, 1), 1.0)

    def rate(self, step: int, progress: float | None = None) -> float:
        """Return the learning rate in force at update number `step`, counted from 0.

        Args:
            step: updates done before.
            progress: share of the run that is over; None for step / total_steps. A run that must end by the clock
                passes its own.

        >>> published = Schedule(0.01, 7330, 12, (8, 11), 500, 0.001, "last")
        >>> [published.rate(step) for step in (0, 499, 500, 8 * 7330)]
        [1e-05, 0.01, 0.01, 0.001]
        """
        if progress is None:
            progress = step / max(self.total_steps, 1)
        return self.peak * self.warmup(step) * self.factor(progress)
