"""Crowds of rotated boxes as a detector leaves them before NMS, so that every contender is timed on the same ones.

An object's centre falls anywhere in a square that has room for `DENSITY` objects in 1024 x 1024 pixels, so that ten
times the objects cover ten times the area. Its long side is 8 to 400 pixels, small ones more often (evenly in the
logarithm), the other is up to eight times shorter, and its direction is free. A detector answers each object with
several boxes around it: shifted by a tenth of its sides, resized by a tenth, turned by some degrees, nine in ten with
its own label. The better box has, on average, the better score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

DENSITY = 100 / 1024**2
"""Objects a square pixel: a busy picture of a harbour or a car park."""
SIDES = (8.0, 400.0)
MAX_ASPECT = 8.0
JITTER = 0.1
"""Standard deviation of a box's errors: of its centre, in sides; of its sides, in their logarithm; of theta, in rad."""
CONFUSED = 0.1
"""Share of the boxes whose label is any."""


class Scene(NamedTuple):
    """Boxes before NMS: (N, 5) float32 rboxes in pixels, (N,) float32 scores that all differ, (N,) int64 labels."""

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def crowd(num_boxes: int, boxes_per_object: int, num_classes: int = 15, seed: int = 0) -> Scene:
    """Return `num_boxes` boxes around num_boxes / boxes_per_object objects, in no order."""
    rng = np.random.default_rng(seed)
    num_objects = max(num_boxes // boxes_per_object, 1)
    objects = objects_anywhere(num_objects, rng)
    owner = rng.permutation(np.arange(num_boxes) % num_objects)
    errors = rng.normal(size=(num_boxes, 5))
    boxes = objects[owner]
    boxes[:, :2] += JITTER * errors[:, :2] * boxes[:, 2:4].min(axis=1, keepdims=True)
    boxes[:, 2:4] *= np.exp(JITTER * errors[:, 2:4])
    boxes[:, 4] += JITTER * errors[:, 4]
    labels = rng.integers(0, num_classes, num_objects)[owner]
    confused = rng.random(num_boxes) < CONFUSED
    labels[confused] = rng.integers(0, num_classes, int(confused.sum()))
    quality = -np.linalg.norm(errors, axis=1) + rng.normal(size=num_boxes)
    scores = np.empty(num_boxes)
    scores[quality.argsort()] = np.linspace(0.05, 0.999, num_boxes)
    return Scene(boxes.astype(np.float32), scores.astype(np.float32), labels)


def objects_anywhere(num_objects: int, rng: np.random.Generator) -> np.ndarray:
    """Return (num_objects, 5) float64 rboxes, as many a square pixel as `DENSITY` says."""
    centres = rng.uniform(0.0, math.sqrt(num_objects / DENSITY), (num_objects, 2))
    long = np.exp(rng.uniform(*np.log(SIDES), num_objects))
    short = np.maximum(long / np.exp(rng.uniform(0.0, math.log(MAX_ASPECT), num_objects)), SIDES[0])
    theta = rng.uniform(-math.pi / 2, math.pi / 2, num_objects)
    return np.column_stack([centres, long, short, theta])
