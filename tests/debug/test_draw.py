"""Pictures for looking into a run: what matters on them has its colour, and the truth keeps its place."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from focaldet.debug.draw import (
    FALSE_ALARM,
    HIT,
    IGNORED_OBJECT,
    MISSED,
    REACHED,
    UNREACHED,
    draw_anchors,
    draw_beside,
    draw_matches,
    draw_sample,
    draw_truth,
    input_to_picture,
)
from focaldet.results.detections import Detections
from focaldet.results.drawing import Colour, colour_of
from focaldet.structures import AnchorGrid, Sample, Truth

CLASSES = ("ant", "bee")
BOXES = torch.tensor([[20.0, 40, 60, 80], [100, 40, 140, 80], [20, 120, 60, 160]])
TRUTH = Truth(BOXES, torch.tensor([0, 1, 0]), torch.tensor([False, False, True]))
FOUND = Detections(
    BOXES[[0, 2]] + torch.tensor([[0.0], [60.0]]), torch.tensor([0.9, 0.8]), torch.tensor([0, 0]), CLASSES
)


@pytest.fixture
def picture() -> npt.NDArray[np.uint8]:
    return np.full((200, 240, 3), 20, np.uint8)


def has(image: Image.Image, colour: Colour) -> bool:
    return bool((np.asarray(image) == colour).all(-1).any())


def test_truth_by_class_and_ignored_in_grey(picture: npt.NDArray[np.uint8]) -> None:
    drawn = draw_truth(picture, TRUTH, CLASSES)
    assert all(has(drawn, colour) for colour in (colour_of(0), colour_of(1), IGNORED_OBJECT))
    assert tuple(np.asarray(drawn)[80, 40]) == colour_of(0)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_samples_of_any_channels(channels: int) -> None:
    corners = np.array([[[5, 5], [20, 5], [20, 15], [5, 15]]], np.float32)
    flags = np.zeros(1, bool)
    image = np.zeros((30, 40, channels), np.uint8)
    sample = Sample(image, corners, np.array([1]), flags, flags, id=1, index=0, name="a.jpg", original=(30, 40))
    assert has(draw_sample(sample, CLASSES), colour_of(1))


def test_hits_false_alarms_and_misses_have_their_colours(picture: npt.NDArray[np.uint8]) -> None:
    drawn = draw_matches(picture, FOUND, TRUTH)
    assert all(has(drawn, colour) for colour in (HIT, FALSE_ALARM, MISSED))
    only_hit = draw_matches(picture, FOUND.filter(0.85), Truth(BOXES[:1], torch.tensor([0])))
    assert not has(only_hit, FALSE_ALARM)
    assert not has(only_hit, MISSED)
    assert has(draw_matches(picture, FOUND, TRUTH, score=0.95), MISSED)


def test_two_panels(picture: npt.NDArray[np.uint8]) -> None:
    sheet = draw_beside(picture, FOUND, TRUTH)
    assert sheet.height == 200
    assert sheet.width > 480
    assert has(sheet.crop((0, 0, 240, 200)), colour_of(1))
    assert not has(sheet.crop((244, 0, sheet.width, 200)), colour_of(1))


def test_anchors_by_level_and_the_truth_that_has_none(picture: npt.NDArray[np.uint8]) -> None:
    shapes = tuple(torch.tensor([[-side, -side, side, side]]) for side in (16.0, 32.0))
    grid = AnchorGrid(shapes, (32, 64), ((7, 8), (4, 4)))
    positives, owners = torch.tensor([35, 57]), torch.tensor([0, 0])
    drawn = draw_anchors(picture, grid, BOXES[:2], positives, owners)
    assert drawn.height > 200  # the legend below
    assert all(has(drawn, colour) for colour in (REACHED, UNREACHED, colour_of(0), colour_of(1)))
    assert tuple(np.asarray(drawn)[128, 96]) == colour_of(0)  # the place of anchor 35 = 4 * 8 + 3 of stride 32
    alone = draw_anchors(picture, grid, BOXES[:0], positives[:0], owners[:0])
    assert not has(alone, UNREACHED)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_input_becomes_the_picture_again(order: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)
    mean, std = np.array([103.53, 116.28, 123.675]), np.array([57.0, 58, 59])
    array = picture[..., ::-1] if order == "bgr" else picture
    image = torch.from_numpy(((array - mean) / std).transpose(2, 0, 1)).float()
    assert (input_to_picture(image, tuple(mean), tuple(std), order) == picture).all()
    assert input_to_picture(image[:1], (103.53,), (57.0,)).shape == (6, 5)
