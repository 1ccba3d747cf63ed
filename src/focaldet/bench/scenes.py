"""Rotated boxes that are made up, always the same for a seed, so that every contender is timed on the same ones.

* `boxes_on_tile`: boxes anywhere on a tile, for IoU and assignment.
* `crowd`: boxes as a detector leaves them before NMS. An object's centre falls anywhere in a square that has room for
  `DENSITY` objects in 1024 x 1024 pixels, so that ten times the objects cover ten times the area. Its long side is 8 to
  400 pixels, small ones more often (evenly in the logarithm), the other is up to eight times shorter, and its direction
  is free. A detector answers each object with several boxes around it: shifted by a tenth of its sides, resized by a
  tenth, turned by some degrees, nine in ten with its own label. The better box has, on average, the better score.
* `contest`: objects and detections of many pictures, to be scored.
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from focaldet.geometry import rbox_to_polygon
from focaldet.results.tables import DetectionTable, TruthTable

TILE = 1024
"""Pixels of a tile's side."""
DENSITY = 100 / TILE**2
"""Objects a square pixel: a busy picture of a harbour or a car park."""
SIDES = (8.0, 400.0)
MAX_ASPECT = 8.0
JITTER = 0.1
"""Standard deviation of a box's errors: of its centre, in sides; of its sides, in their logarithm; of theta, in rad."""
CONFUSED = 0.1
"""Share of the boxes whose label is any."""
NUM_CLASSES = 15
SCENE_SIDE = 4000.0
"""Pixels of a picture's side, where detections are scored."""
DIFFICULT = 0.05
"""Share of the objects that are neither to be found nor false alarms."""

Floats = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Spread = Literal["logarithm", "pixels"]


class Scene(NamedTuple):
    """Boxes before NMS: (N, 5) float32 rboxes in pixels, (N,) float32 scores that all differ, (N,) int64 labels."""

    boxes: Floats
    scores: Floats
    labels: Ints


class Contest(NamedTuple):
    """What is scored: objects and detections as tables of polygons, and the float32 rboxes (N, 5) they are of."""

    truth: TruthTable
    found: DetectionTable
    truth_boxes: Floats
    found_boxes: Floats


def boxes_on_tile(
    count: int, seed: int = 0, spread: Spread = "logarithm", sides: tuple[float, float] = SIDES
) -> Floats:
    """Return (count, 5) float32 rboxes with centres anywhere on a tile.

    Args:
        count: how many.
        seed: another one, other boxes.
        spread: what both sides of a box are evenly spread in.
        sides: the least and the largest, in pixels.
    """
    rng = np.random.default_rng(seed)
    low, high = sides
    even = rng.uniform(size=(count, 2))
    lengths = low * (high / low) ** even if spread == "logarithm" else low + (high - low) * even
    theta = rng.uniform(-math.pi / 2, math.pi / 2, count)
    return np.column_stack([rng.uniform(0.0, TILE, (count, 2)), lengths, theta]).astype(np.float32)


def crowd(num_boxes: int, boxes_per_object: int, num_classes: int = NUM_CLASSES, seed: int = 0) -> Scene:
    """Return `num_boxes` boxes around num_boxes / boxes_per_object objects, in no order."""
    rng = np.random.default_rng(seed)
    num_objects = max(num_boxes // boxes_per_object, 1)
    objects = objects_anywhere(num_objects, math.sqrt(num_objects / DENSITY), rng)
    owner = rng.permutation(np.arange(num_boxes) % num_objects)
    boxes, errors = missed(objects[owner], rng)
    labels = rng.integers(0, num_classes, num_objects)[owner]
    confused = rng.random(num_boxes) < CONFUSED
    labels[confused] = rng.integers(0, num_classes, int(confused.sum()))
    scores = np.empty(num_boxes)
    scores[(rng.normal(size=num_boxes) - errors).argsort()] = np.linspace(0.05, 0.999, num_boxes)
    return Scene(boxes.astype(np.float32), scores.astype(np.float32), labels)


def contest(
    num_pictures: int, num_truths: int, num_found: int, num_classes: int = NUM_CLASSES, seed: int = 0
) -> Contest:
    """Return, of each class, objects and detections in pictures; half of the detections lie around objects.

    Args:
        num_pictures: of `SCENE_SIDE` squared pixels.
        num_truths: objects of each class, in any of the pictures; one in twenty is difficult.
        num_found: detections of each class.
        num_classes: how many there are.
        seed: another one, other boxes.
    """
    rng = np.random.default_rng(seed)
    pictures = tuple(f"P{number:04d}" for number in range(num_pictures))
    classes = tuple(f"class-{number}" for number in range(num_classes))
    objects = objects_anywhere(num_classes * num_truths, SCENE_SIDE, rng)
    owners = rng.integers(0, num_pictures, len(objects))
    labels = np.repeat(np.arange(num_classes), num_truths)

    num_near = num_found // 2
    near = (np.arange(num_near) % num_truths + num_truths * np.arange(num_classes)[:, None]).ravel()
    around, errors = missed(objects[near], rng)
    anywhere = objects_anywhere(num_classes * (num_found - num_near), SCENE_SIDE, rng)
    merit = np.concatenate([rng.normal(size=len(around)) - errors, rng.normal(size=len(anywhere)) - 4.0])
    scores = np.empty(len(merit))
    scores[merit.argsort()] = np.linspace(0.001, 0.999, len(merit))
    others = rng.integers(0, num_pictures, len(anywhere)), np.repeat(np.arange(num_classes), num_found - num_near)

    truth_boxes = objects.astype(np.float32)
    found_boxes = np.concatenate([around, anywhere]).astype(np.float32)
    truth = TruthTable(
        pictures=pictures,
        classes=classes,
        polygons=polygons(truth_boxes),
        owners=owners,
        labels=labels,
        difficult=rng.random(len(objects)) < DIFFICULT,
    )
    found = DetectionTable(
        pictures=pictures,
        classes=classes,
        polygons=polygons(found_boxes),
        owners=np.concatenate([owners[near], others[0]]),
        labels=np.concatenate([labels[near], others[1]]),
        scores=scores,
    )
    return Contest(truth, found, truth_boxes, found_boxes)


def objects_anywhere(
    num_objects: int, side: float, rng: np.random.Generator, sides: tuple[float, float] = SIDES
) -> Floats:
    """Return (num_objects, 5) float64 rboxes with centres anywhere in a square of `side` pixels; `sides` are theirs."""
    centres = side * rng.uniform(size=(num_objects, 2))
    long = np.exp(rng.uniform(math.log(sides[0]), math.log(sides[1]), num_objects))
    short = np.maximum(long / np.exp(rng.uniform(0.0, math.log(MAX_ASPECT), num_objects)), sides[0])
    theta = rng.uniform(-math.pi / 2, math.pi / 2, num_objects)
    return np.column_stack([centres, long, short, theta])


def missed(objects: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return boxes (N, 5) that a detector would give for objects (N, 5), and how far off each is: (N,) deviations."""
    boxes, errors = objects.copy(), rng.normal(size=objects.shape)
    boxes[:, :2] += JITTER * errors[:, :2] * boxes[:, 2:4].min(axis=1, keepdims=True)
    boxes[:, 2:4] *= np.exp(JITTER * errors[:, 2:4])
    boxes[:, 4] += JITTER * errors[:, 4]
    return boxes, np.linalg.norm(errors, axis=1)


def polygons(boxes: Floats) -> npt.NDArray[np.float64]:
    """Return the corners (N, 4, 2) of rboxes (N, 5), in float64."""
    return rbox_to_polygon(torch.from_numpy(boxes.astype(np.float64))).numpy().reshape(-1, 4, 2)
