"""What a training run has come to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focaldet.metrics.scores import Scores
from focaldet.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """A finished training run.

    Attributes:
        folder: where its files are.
        recipe: what was trained, own data fitted in.
        scores: of the weights that were kept, the best of all validations; None without validation data.
        steps: updates done.
        seconds, cpu_seconds: what it took.
        profile: share of a step's time by part, 0 to 1; empty unless it was measured.
    """

    folder: Path
    recipe: Recipe
    scores: Scores | None
    steps: int
    seconds: float
    cpu_seconds: float
    profile: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return {
            "folder": str(self.folder),
            "recipe": self.recipe.name,
            "steps": self.steps,
            "seconds": round(self.seconds, 1),
            "cpu_seconds": round(self.cpu_seconds, 1),
            **({"profile": {name: round(share, 4) for name, share in self.profile.items()}} if self.profile else {}),
            "scores": None if self.scores is None else self.scores.to_dict(),
        }
