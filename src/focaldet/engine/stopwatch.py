"""Where a training step's time goes: `focaldet train --profile`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

PARTS = ("data", "assignment", "forward", "backward", "optimizer", "other")
"""Waiting for pictures; telling anchors what they should say; network and losses; gradients; the update; the rest."""
WARM_UP = 2
"""Steps that are not counted: they also take memory and pack weights."""


class Stopwatch:
    """Adds up seconds a part; does nothing, and never makes a GPU wait, unless it is on.

    Args:
        device: whose work is waited for at the end of each part.
        on: whether to measure.
    """

    def __init__(self, device: torch.device, *, on: bool) -> None:
        self.device, self.on = device, on
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.in_workers = 0.0
        self.steps = 0
        self._total = 0.0
        self._began: float | None = None

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is inside to a part."""
        if not self.on:
            yield
            return
        started = self._now()
        try:
            yield
        finally:
            self.seconds[name] += self._now() - started

    def assigned(self, seconds: float, *, in_worker: bool) -> None:
        """Count what assignment took where the batch was put together; in a worker nobody waited for it as such."""
        if in_worker:
            self.in_workers += seconds
        else:
            self.seconds["data"] -= seconds
            self.seconds["assignment"] += seconds

    def lap(self) -> None:
        """End a step."""
        if not self.on:
            return
        now, began = self._now(), self._began
        self._began = now
        self.steps += 1
        if self.steps <= WARM_UP or began is None:
            self.seconds, self.in_workers, self._total = dict.fromkeys(PARTS, 0.0), 0.0, 0.0
            return
        self._total += now - began

    def pause(self) -> None:
        """Leave out what comes until the next step begins, such as a validation."""
        self._began = None

    def shares(self) -> dict[str, float]:
        """Return each part's share of the time, 0 to 1; empty where too few steps were measured."""
        if not self.on or self.steps <= WARM_UP or not self._total:
            return {}
        known = {name: seconds / self._total for name, seconds in self.seconds.items() if name != "other"}
        return {**known, "other": max(0.0, 1 - sum(known.values()))}

    def table(self) -> str:
        """Return a line a part: seconds a step, and their share."""
        shares, steps = self.shares(), self.steps - WARM_UP
        if not shares:
            return f"profile: nothing to show, the first {WARM_UP} steps are not counted"
        each = self._total / steps
        lines = [f"profile: {each:.4g} s a step, mean of {steps}"]
        lines += [f"  {name:12} {share * each:9.4f} s  {100 * share:5.1f} %" for name, share in shares.items()]
        if self.in_workers:
            lines.append(f"  (beside all this {self.in_workers / steps:.4f} s of assignment a step, in the workers)")
        return "\n".join(lines)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
