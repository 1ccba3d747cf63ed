"""What became of each detection and each object, and the figures that follow from it: all at IoU 0.5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from focaldet.metrics.matching import match
from focaldet.report.data import Confusion, Histogram, Operating
from focaldet.results.detections import Detections
from focaldet.structures import BACKGROUND, IGNORED, Truth

IOU = 0.5
BINS = 20
THRESHOLDS = np.arange(5, 96) / 100
"""Thresholds on the score that are tried, and that the page's slider reaches."""

Scores = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Outcome:
    """One picture: N detections by falling score and G objects, in its pixels.

    Attributes:
        detections: what was seen.
        truth: what was there, labels in the classes of the detections.
        hit: (N,) whether a detection found an object of its class.
        counted: (N,) False on ignored objects, where a detection is neither hit nor false alarm.
        wanted: (G,) False for ignored objects.
        found: (G,) score of the detection that found an object, 0 where none did.
    """

    detections: Detections
    truth: Truth
    hit: Mask
    counted: Mask
    wanted: Mask
    found: Scores

    @property
    def scores(self) -> Scores:
        """(N,) scores of the detections."""
        return self.detections.numpy().scores

    def counts(self, threshold: float) -> tuple[int, int, int]:
        """Return (hits, false alarms, missed) at a threshold on the score.

        A detection's match does not depend on worse ones, so one matching serves every threshold.
        """
        shown = (self.scores >= threshold) & self.counted
        missed = (self.found < threshold) & self.wanted
        return int((shown & self.hit).sum()), int((shown & ~self.hit).sum()), int(missed.sum())

    def f1(self, threshold: float) -> float:
        """Return the F1 at a threshold; 1 where there is nothing to find and nothing was said."""
        hits, false, missed = self.counts(threshold)
        return 2 * hits / (2 * hits + false + missed) if hits + false + missed else 1.0


def judge(detections: Detections, truth: Truth) -> Outcome:
    """Match the detections of one picture with its objects."""
    owners = match(detections, truth, iou=IOU).owners.numpy()
    wanted = np.ones(len(truth.labels), bool) if truth.ignored is None else ~truth.ignored.numpy()
    hit = owners >= 0
    found = np.zeros(len(wanted), np.float32)
    found[owners[hit]] = detections.numpy().scores[hit]
    return Outcome(detections, truth, hit, owners != IGNORED, wanted, found)


def best_threshold(outcomes: Sequence[Outcome]) -> Operating:
    """Return the threshold, in hundredths, with the best F1 over all pictures; 0.5 where nothing can be right."""
    scores, hits = joined(outcomes)
    objects = sum(int(outcome.wanted.sum()) for outcome in outcomes)
    if not hits.any() or not objects:
        return Operating(0.5, 0.0, 0.0)
    shown = np.searchsorted(-scores, -THRESHOLDS.astype(np.float32), side="right")  # detections from each threshold up
    right = np.concatenate([[0], np.cumsum(hits)])[shown]
    best = int(np.argmax(2 * right / (shown + objects)))
    precision = float(right[best] / max(shown[best], 1))
    return Operating(float(THRESHOLDS[best]), precision, float(right[best] / objects))


def score_histogram(outcomes: Sequence[Outcome]) -> Histogram:
    """Count hits and false alarms in twenty bins of the score."""
    scores, hits = joined(outcomes)
    edges = np.linspace(0, 1, BINS + 1)
    right, wrong = (np.histogram(scores[chosen], edges.astype(np.float32))[0] for chosen in (hits, ~hits))
    return Histogram(tuple(edges.round(4).tolist()), tuple(right.tolist()), tuple(wrong.tolist()))


def confusion(outcomes: Sequence[Outcome], threshold: float, names: Sequence[str]) -> Confusion:
    """Pair what was said with what is there, whatever the classes, at a threshold on the score."""
    nothing = len(names)
    counts = np.zeros((nothing + 1, nothing + 1), np.int64)
    for outcome in outcomes:
        said, there, owners = _paired(outcome, threshold)
        hit = owners >= 0
        np.add.at(counts, (there[owners[hit]], said[hit]), 1)
        np.add.at(counts[nothing], said[owners == BACKGROUND], 1)
        missed = np.setdiff1d(np.flatnonzero(outcome.wanted), owners[hit])
        np.add.at(counts[:, nothing], there[missed], 1)
    return Confusion(tuple(names), tuple(tuple(row) for row in counts.tolist()))


def _paired(outcome: Outcome, threshold: float) -> tuple[npt.NDArray[np.int64], ...]:
    """Return labels said (N,), labels there (G,) and the object of each detection (N,), matched as one class."""
    shown = int((outcome.scores >= threshold).sum())
    seen, truth = outcome.detections, outcome.truth
    blind = Detections(seen.boxes[:shown], seen.scores[:shown], torch.zeros(shown, dtype=torch.int64), ("object",))
    owners = match(blind, Truth(truth.boxes, torch.zeros_like(truth.labels), truth.ignored), iou=IOU).owners
    return seen.labels[:shown].numpy(), truth.labels.numpy(), owners.numpy()


def joined(outcomes: Sequence[Outcome]) -> tuple[Scores, Mask]:
    """Return (scores, whether hit) of the counted detections of all pictures, by falling score."""
    scores = np.concatenate([np.zeros(0, np.float32), *(outcome.scores[outcome.counted] for outcome in outcomes)])
    hits = np.concatenate([np.zeros(0, bool), *(outcome.hit[outcome.counted] for outcome in outcomes)])
    order = np.argsort(-scores, kind="stable")
    return scores[order], hits[order]
