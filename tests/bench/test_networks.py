"""Pictures and truth that networks are measured on: always the same, and within the picture."""

from __future__ import annotations

import pytest
import torch

from focaldet.bench.networks import TILE_OBJECTS, TILE_SIDES, random_picture, random_truth, rotated_truth
from focaldet.geometry import polygon_to_rbox


def test_truth_lies_within_the_picture() -> None:
    truth = random_truth((200, 300), 500)
    x1, y1, x2, y2 = truth.boxes.unbind(1)
    assert bool((x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 300).all() and (y2 <= 200).all())
    assert bool((x2 > x1).all() and (y2 > y1).all())
    assert torch.equal(truth.boxes, random_truth((200, 300), 500).boxes)


@pytest.mark.parametrize("size", [(512, 512), (1024, 1024)])
def test_rotated_truth_are_rectangles_of_the_sides_that_are_told(size: tuple[int, int]) -> None:
    truth = rotated_truth(size)
    boxes = polygon_to_rbox(truth.boxes.double().flatten(1))
    assert len(truth.labels) == TILE_OBJECTS and int(truth.labels.max()) < 15
    assert bool((boxes[:, :2] >= 0).all() and (boxes[:, :2] <= size[0]).all())
    low, high = TILE_SIDES
    tiny = 1e-3  # pixels; corners are float32 of up to 1,200
    assert low - tiny <= float(boxes[:, 2:4].min()) and float(boxes[:, 2:4].max()) <= high + tiny
    assert torch.equal(truth.boxes, rotated_truth(size).boxes)


def test_a_picture_is_always_the_same() -> None:
    assert torch.equal(random_picture((8, 16)), random_picture((8, 16)))
