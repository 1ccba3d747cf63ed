"""Figures of rotated boxes: PASCAL VOC's AP at IoU 0.5 as the DOTA devkit takes it, and COCO's, on polygons.

Every figure's rule is in docs/scores.md. Overlaps are those of the polygons as they stand in the files.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from focaldet.errors import FocaldetError, did_you_mean
from focaldet.geometry.quads import measure_quads, overlapping_pairs
from focaldet.metrics.scores import SIZES, Curves, Floats, Scores, mean_measured
from focaldet.results.dota import is_tile
from focaldet.results.tables import Bools, DetectionTable, Ints, TruthTable, places_in

RULE = (
    "AP50_voc07, AP50_voc12: VOC's AP of 2007 (11 points of recall) and of 2012 (area under the curve), the devkit's "
    "matching, IoU > 0.50; AP, AP50, AP75, AR: COCO, 101 points, COCO's matching, IoU >= 0.50:0.95, 0.50 and 0.75, no "
    "limit on detections; sizes by the area of the rectangle, 32 x 32 and 96 x 96 pixels; difficult objects are ignored"
)
COLUMNS = ("AP50_voc07", "AP50_voc12", "AP50", "AP75", "AP", "AP_small", "AP_medium", "AP_large")
VOC_RULES = ("AP50_voc07", "AP50_voc12")
VOC_IOU = 0.5
IOUS: Floats = np.linspace(0.5, 0.95, 10)
RECALLS: Floats = np.linspace(0.0, 1.0, 101)
BORDERS: Floats = np.array([[0.0, np.inf], [0.0, 32.0**2], [32.0**2, 96.0**2], [96.0**2, np.inf]])
"""Least and largest area of each of SIZES; both count in."""

Outcomes = npt.NDArray[np.int8]


def rotated_scores(truth: TruthTable, found: DetectionTable) -> Scores:
    """Score detections of many pictures, joined with the truth by names of pictures and classes.

    A picture of the truth without detections counts as one where nothing was found. Detections of pictures or classes
    that the truth does not have are left out, and said in the notes. A detection whose polygon crosses itself or has
    no area finds nothing. Equal scores keep the order of `found`.

    Returns:
        Figures AP50_voc07, AP50_voc12, AP, AP50, AP75, AP_small ... AP_large, AR, AR_small ... AR_large. A class
        without an object that is not difficult has None everywhere and is left out of all means.

    Raises:
        FocaldetError: a score is not a number; or there are detections, but none of a picture and class of the truth.
    """
    case, notes = _join(truth, found)
    voc, coco = _match(truth, case)
    curves, by_voc = _curves(truth, case, coco), _voc_figures(truth, case, voc)
    objects = [int(case.wanted[truth.labels == c, 0].sum()) for c in range(len(truth.classes))]
    each = {
        name: {**{rule: by_voc[rule][c] for rule in VOC_RULES}, **_coco_figures(curves, c), "objects": objects[c]}
        for c, name in enumerate(truth.classes)
    }
    means = {rule: _mean_of(by_voc[rule]) for rule in VOC_RULES}
    absent = ", ".join(name for name, count in zip(truth.classes, objects, strict=True) if not count)
    notes += [f"nothing to find of {absent}: left out of all means"] if absent else []
    return Scores(RULE, {**means, **_coco_figures(curves)}, each, curves, COLUMNS, (*truth.notes, *found.notes, *notes))


@dataclass(frozen=True, eq=False)
class _Case:
    """The N detections that can be scored, by class, within one by falling score, and the G truths.

    Attributes:
        polygons: (N, 4, 2).
        segments: (N,) each one's picture and class, as a number.
        scores: (N,).
        edges: (C + 1,) where each class starts.
        truth_segments: (G,).
        wanted: (G, S) the truths that are to be found, for each of SIZES.
    """

    polygons: Floats
    segments: Ints
    scores: Floats
    edges: Ints
    truth_segments: Ints
    wanted: Bools

    def of_class(self, c: int) -> slice:
        """Return the places of a class's detections."""
        return slice(int(self.edges[c]), int(self.edges[c + 1]))


def _join(truth: TruthTable, found: DetectionTable) -> tuple[_Case, list[str]]:
    """Number the detections as the truth is numbered; return them and what is to be said of those left out."""
    if not np.isfinite(found.scores).all():
        raise FocaldetError(f"the score of detection {int((~np.isfinite(found.scores)).argmax())} is not a number")
    owners, labels = found.owners, found.labels
    notes: list[str] = []
    if truth.pictures != found.pictures:
        owners = places_in(found.pictures, truth.pictures)[owners]
        notes += _unknown(found.owners[owners < 0], found.pictures, truth.pictures, "picture", len(found))
    if truth.classes != found.classes:
        labels = places_in(found.classes, truth.classes)[labels]
        notes += _unknown(found.labels[labels < 0], found.classes, truth.classes, "class", len(found))
    order = np.argsort(-found.scores, kind="stable")
    order = order[(owners[order] >= 0) & (labels[order] >= 0)]
    if len(found) and not len(order):
        raise FocaldetError("no detection is of a picture and of a class that the truth has; is it of the same data?")
    order = order[np.argsort(labels[order], kind="stable")]
    owners, labels, num_classes = owners[order], labels[order], len(truth.classes)
    case = _Case(
        polygons=found.polygons[order],
        segments=owners * num_classes + labels,
        scores=found.scores[order],
        edges=np.searchsorted(labels, np.arange(num_classes + 1)),
        truth_segments=truth.owners * num_classes + truth.labels,
        wanted=_in_sizes(measure_quads(truth.polygons).rectangles) & ~truth.difficult[:, None],
    )
    return case, notes


def _unknown(numbers: Ints, names: tuple[str, ...], known: tuple[str, ...], what: str, total: int) -> list[str]:
    """Say how many detections are of unknown pictures or classes and which; refuse if all are."""
    if not len(numbers):
        return []
    many = {"picture": "pictures", "class": "classes"}[what]
    counts = Counter(numbers.tolist()).most_common()
    shown = ", ".join(f"{names[number]} ({count:,})" for number, count in counts[:5])
    shown += f" and {len(counts) - 5} more" if len(counts) > 5 else ""
    if len(numbers) < total:
        return [f"left out: {len(numbers):,} detections of {many} that the truth does not have: {shown}"]
    first = names[counts[0][0]]
    tiles = what == "picture" and is_tile(first)
    hint = "these are tiles of scenes: have them merged" if tiles else f"are they of the same {many}?"
    raise FocaldetError(
        f"no detection is of a {what} that the truth has{did_you_mean(first, known)}: detections are of {shown}; "
        f"the truth has {', '.join(known[:5])}{', ...' if len(known) > 5 else ''}; {hint}"
    )


def _match(truth: TruthTable, case: _Case) -> tuple[Outcomes, Outcomes]:
    """Return what becomes of each detection: by VOC's rule (N,), by COCO's for each size and IoU (S, T, N)."""
    from focaldet.metrics.kernels import FALSE_ALARM, UNCOUNTED, match_coco, match_voc

    i, j, ious = overlapping_pairs(case.polygons, case.segments, truth.polygons, case.truth_segments, floor=VOC_IOU)
    starts = np.searchsorted(i, np.arange(len(case.scores) + 1))
    voc = np.full(len(case.scores), FALSE_ALARM, dtype=np.int8)
    match_voc(starts, j, ious, truth.difficult, VOC_IOU, voc)
    in_sizes = _in_sizes(measure_quads(case.polygons).rectangles).T
    coco = np.repeat(np.where(in_sizes, FALSE_ALARM, UNCOUNTED).astype(np.int8)[:, None], len(IOUS), axis=1)
    match_coco(starts, j, ious, case.wanted, truth.difficult, IOUS, coco)
    return voc, coco


def _in_sizes(areas: Floats) -> Bools:
    """Tell (N, S) which of N areas belongs to which of SIZES."""
    return (areas[:, None] >= BORDERS[:, 0]) & (areas[:, None] <= BORDERS[:, 1])


def precision_at_hits(outcome: Outcomes) -> tuple[Floats, Ints]:
    """Return the precision (K,) at each hit, made to never rise, and the places of the hits (K,).

    Args:
        outcome: (N,) what became of a class's detections, best first.
    """
    from focaldet.metrics.kernels import HIT, UNCOUNTED

    places = np.flatnonzero(outcome == HIT)
    counted = np.cumsum(outcome != UNCOUNTED)[places]
    precision = np.arange(1, len(places) + 1) / counted
    return np.maximum.accumulate(precision[::-1])[::-1], places


def _curves(truth: TruthTable, case: _Case, outcomes: Outcomes) -> Curves:
    shape = (len(IOUS), len(RECALLS), len(truth.classes), len(SIZES), 1)
    precision, scores, recall = np.full(shape, -1.0), np.full(shape, -1.0), np.full((shape[0], *shape[2:]), -1.0)
    for c in range(len(truth.classes)):
        some, objects = case.of_class(c), case.wanted[truth.labels == c].sum(axis=0).tolist()
        for size, t in itertools.product(np.flatnonzero(objects), range(len(IOUS))):
            steps, places = precision_at_hits(outcomes[size, t, some])
            reached = np.searchsorted(np.arange(1, len(steps) + 1) / objects[size], RECALLS)  # beyond the last: 0
            precision[t, :, c, size, 0] = np.append(steps, 0.0)[reached]
            scores[t, :, c, size, 0] = np.append(case.scores[some][places], 0.0)[reached]
            recall[t, c, size, 0] = len(steps) / objects[size]
    return Curves(precision, scores, recall, IOUS, RECALLS, (len(case.scores),), truth.classes)


def _voc_figures(truth: TruthTable, case: _Case, outcomes: Outcomes) -> dict[str, list[float | None]]:
    """Return VOC's two figures of each class."""
    figures: dict[str, list[float | None]] = {rule: [] for rule in VOC_RULES}
    for c in range(len(truth.classes)):
        objects = int(case.wanted[truth.labels == c, 0].sum())
        precision, _ = precision_at_hits(outcomes[case.of_class(c)])
        recall = np.arange(1, len(precision) + 1) / max(objects, 1)
        figures["AP50_voc07"].append(voc_ap(recall, precision, "11") if objects else None)
        figures["AP50_voc12"].append(voc_ap(recall, precision, "area") if objects else None)
    return figures


def voc_ap(recall: Floats, precision: Floats, points: Literal["11", "area"]) -> float:
    """Return PASCAL VOC's average precision.

    Args:
        recall: (K,), rising.
        precision: (K,) at those.
        points: "11", the mean at eleven levels of recall (2007), or "area", under the whole curve (2012).

    >>> round(voc_ap(np.array([0.5, 1.0]), np.array([1.0, 0.5]), "11"), 4)
    0.7727
    >>> voc_ap(np.array([0.5, 1.0]), np.array([1.0, 0.5]), "area")
    0.75
    """
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    if (
        points == "11"
    ):  # the devkit's own levels: its 0.3 is 0.30000000000000004, which a recall of 3 / 10 does not reach
        return float(best[np.searchsorted(recall, np.arange(0.0, 1.1, 0.1))].sum() / 11)
    return float((np.diff(recall, prepend=0.0) * best[:-1]).sum())


def _coco_figures(curves: Curves, of_class: int | None = None) -> dict[str, float | None]:
    """Return COCO's figures, of all classes or of one."""
    chosen = slice(None) if of_class is None else slice(of_class, of_class + 1)
    precision, recall = curves.precision[:, :, chosen, :, 0], curves.recall[:, chosen, :, 0]
    return {
        "AP": mean_measured(precision[..., 0]),
        "AP50": mean_measured(precision[curves.threshold(0.5), ..., 0]),
        "AP75": mean_measured(precision[curves.threshold(0.75), ..., 0]),
        **{f"AP_{name}": mean_measured(precision[..., s]) for s, name in enumerate(SIZES) if s},
        "AR": mean_measured(recall[..., 0]),
        **{f"AR_{name}": mean_measured(recall[..., s]) for s, name in enumerate(SIZES) if s},
    }


def _mean_of(figures: list[float | None]) -> float | None:
    measured = [figure for figure in figures if figure is not None]
    return sum(measured) / len(measured) if measured else None
