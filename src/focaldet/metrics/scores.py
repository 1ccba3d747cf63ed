"""Scores: the figures of one evaluation, with the rule that they follow, and the curves behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from focaldet.errors import FocaldetError, did_you_mean

Floats = npt.NDArray[np.float64]

SIZES = ("all", "small", "medium", "large")
"""By the area of the object: under 32 x 32 pixels, under 96 x 96, above; the borders count on both sides."""
COCO_COLUMNS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
"""Figures that a table shows where nothing else is asked for."""


@dataclass(frozen=True)
class Curves:
    """What the figures are means of. -1 stands for "nothing to measure", as in COCO's own arrays.

    Letters: T IoU thresholds, R recall levels, C classes, S sizes (all, small, medium, large), M limits on detections.

    Attributes:
        precision: (T, R, C, S, M) interpolated precision.
        scores: (T, R, C, S, M) score at which each recall level is reached; 0 where it never is.
        recall: (T, C, S, M) largest recall.
        ious: (T,) IoU thresholds.
        recalls: (R,) recall levels.
        limits: M limits on detections a picture.
        classes: C names.
    """

    precision: Floats
    scores: Floats
    recall: Floats
    ious: Floats
    recalls: Floats
    limits: tuple[int, ...]
    classes: tuple[str, ...]

    def at(self, iou: float = 0.5, limit: int | None = None) -> dict[str, tuple[Floats, Floats]]:
        """Return the precision-recall curve of each class that has objects, over all sizes.

        Args:
            iou: one of the thresholds.
            limit: one of `limits`; None takes 100, or else the largest.

        Returns:
            By class name: precision (R,) at `recalls`, and score (R,) at which each is reached.
        """
        t, m = self.threshold(iou), self.limit(limit)
        return {
            name: (self.precision[t, :, c, 0, m], self.scores[t, :, c, 0, m])
            for c, name in enumerate(self.classes)
            if self.precision[t, 0, c, 0, m] > -1
        }

    def threshold(self, iou: float) -> int:
        """Return the place of an IoU threshold."""
        found = np.flatnonzero(np.isclose(self.ious, iou))
        if not len(found):
            raise FocaldetError(
                f"IoU {iou} was not measured; there are {', '.join(f'{item:.2f}' for item in self.ious)}"
            )
        return int(found[0])

    def limit(self, limit: int | None) -> int:
        """Return the place of a limit on detections; None: of 100, or else of the largest."""
        if limit is None:
            return self.limits.index(100) if 100 in self.limits else len(self.limits) - 1
        if limit not in self.limits:
            raise FocaldetError(f"a limit of {limit} detections was not measured; there are {self.limits}")
        return self.limits.index(limit)


@dataclass(frozen=True)
class Scores:
    """Figures between 0 and 1, None where there was nothing to measure; read as `scores["AP50"]`.

    Attributes:
        rule: what the figures mean, in a line; parts by "; ".
        figures: by name, in their usual order: AP, AP50, AP75, AP_small, ..., AR_1, AR_10, AR_100, AR_small, ...
        classes: by class name, the same figures of one class and "objects", the number of those to be found.
        curves: what the figures are means of.
        columns: the figures that a table shows.
        notes: what has to be said of the truth and the detections, such as what was left out; a sentence each.
    """

    rule: str
    figures: dict[str, float | None]
    classes: dict[str, dict[str, Any]]
    curves: Curves = field(repr=False)
    columns: tuple[str, ...] = COCO_COLUMNS
    notes: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> float | None:
        if name not in self.figures:
            raise FocaldetError(
                f"{name!r} is no figure{did_you_mean(name, self.figures)}; there are {', '.join(self.figures)}"
            )
        return self.figures[name]

    def to_dict(self) -> dict[str, Any]:
        """Return rule, figures, classes and, where there are any, notes as plain values, fit for json."""
        classes = {name: dict(each) for name, each in self.classes.items()}
        notes = {"notes": list(self.notes)} if self.notes else {}
        return {"rule": self.rule, **self.figures, "classes": classes, **notes}

    def table(self, columns: Sequence[str] | None = None) -> str:
        """Return a table in plain text: notes, the rule, all classes together, then each by falling AP.

        Args:
            columns: figures to show; None takes the usual ones.
        """
        columns = self.columns if columns is None else columns
        rows = sorted(self.classes.items(), key=lambda row: (row[1]["AP"] is None, -(row[1]["AP"] or 0.0)))
        total = sum(each["objects"] for each in self.classes.values())
        lines = [["class", *columns, "objects"]]
        lines.append(["all", *(_percent(self.figures[name]) for name in columns), f"{total:,}"])
        lines += [
            [name, *(_percent(each[column]) for column in columns), f"{each['objects']:,}"] for name, each in rows
        ]
        return "\n".join([*self.notes, *self.rule.split("; "), *_align(lines)])


def mean_measured(values: Floats) -> float | None:
    """Return the mean of what could be measured, that is not -1; None if nothing could."""
    measured = values[values > -1]
    return float(measured.mean()) if measured.size else None


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _align(lines: Sequence[Sequence[str]]) -> list[str]:
    """Set the first column left and the others right, with a rule under the head."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    texts = ["  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]) for line in lines]
    return [texts[0], "-" * len(texts[0]), *texts[1:]]
