"""All that a report shows, as plain records: `collect` fills them, `page` turns them into HTML."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from focaldet.report.curves import Line

Kind = Literal["hit", "false", "missed", "truth", "ignored"]


@dataclass(frozen=True)
class Mark:
    """One box, upright or rotated, on a picture.

    Attributes:
        corners: (x, y) of the four, in order, in pixels of the picture in its file.
        label: 0 to C-1.
        kind: what the box is; a `missed` box is a truth box that shows when the threshold is above `score`.
        score: of a detection its own, of a truth box that of the detection which found it (0 where none did).
    """

    corners: tuple[tuple[float, float], ...]
    label: int
    kind: Kind
    score: float = 0.0


@dataclass(frozen=True)
class Picture:
    """A picture with what was there and what was seen.

    Attributes:
        name: its file.
        jpeg: the picture, made smaller.
        size: (height, width) in its file, the frame of the boxes.
        truth: boxes as annotated.
        seen: detections, and the truth boxes that may be missed.
    """

    name: str
    jpeg: bytes
    size: tuple[int, int]
    truth: tuple[Mark, ...]
    seen: tuple[Mark, ...]


@dataclass(frozen=True)
class Operating:
    """What one threshold on the scores gives, at IoU 0.5.

    Attributes:
        score: the threshold.
        precision: share of the detections above it that hit a truth box.
        recall: share of the truth boxes that they hit.
    """

    score: float
    precision: float
    recall: float


@dataclass(frozen=True)
class Figure:
    """One number of a score table, with the rule it follows; `value` is None where nothing could be measured."""

    name: str
    value: float | None
    rule: str


@dataclass(frozen=True)
class ClassRow:
    """AP of one class; None where the class has no object."""

    name: str
    objects: int
    ap: float | None
    ap50: float | None
    ap75: float | None


@dataclass(frozen=True)
class Histogram:
    """Scores of the detections at IoU 0.5: N + 1 edges, N counts of hits and of false alarms."""

    edges: tuple[float, ...]
    hits: tuple[int, ...]
    false: tuple[int, ...]


@dataclass(frozen=True)
class Confusion:
    """Which class was taken for which at the operating threshold.

    Attributes:
        names: the C classes.
        counts: (C + 1) x (C + 1); rows what was there (last: background), columns what was said (last: nothing).
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Validation:
    """What the detector reached on pictures that it was not trained on.

    Attributes:
        rule: of the figures, in a line.
        figures: the twelve COCO figures.
        classes: a row a class.
        precision_recall: a curve a class at IoU 0.5.
        operating: the threshold with the best F1.
        histogram: scores of hits and false alarms.
        confusion: None where there are too many classes to show.
        labels: names of the labels 0 to C-1 on the pictures.
        pictures: heading -> pictures under it.
    """

    rule: str
    figures: tuple[Figure, ...]
    classes: tuple[ClassRow, ...]
    precision_recall: tuple[Line, ...]
    operating: Operating
    histogram: Histogram
    confusion: Confusion | None
    labels: tuple[str, ...]
    pictures: dict[str, tuple[Picture, ...]]


@dataclass(frozen=True)
class ReportData:
    """What the page shows, in its order.

    Attributes:
        title, lead: heading and the sentence under it.
        headline: the figures on top, (value, name, note).
        history: figure's name -> (epoch, value) where it was measured; names as in `metrics.csv`.
        validation: None where there were no pictures to validate on.
        facts: what, where, when and how long.
        recipe: every field.
        usage: heading -> code to copy.
    """

    title: str
    lead: str
    headline: tuple[tuple[str, str, str], ...]
    history: dict[str, tuple[tuple[float, float], ...]]
    validation: Validation | None
    facts: dict[str, str]
    recipe: dict[str, str]
    usage: dict[str, str]
