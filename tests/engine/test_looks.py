"""Several looks at a picture: sizes, mirrors, and one answer of them all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import focaldet
from focaldet.data.formats import open_dataset
from focaldet.engine.detector import Detector, as_sample
from focaldet.engine.evaluate import evaluate_detector
from focaldet.engine.looks import Mirror, build_looks, joined, with_tta
from focaldet.geometry.nms import batched_rotated_nms
from focaldet.recipes import get_recipe
from focaldet.results.detections import Detections

MIRRORS = [Mirror(), Mirror(horizontal=True), Mirror(vertical=True), Mirror(horizontal=True, vertical=True)]
HALVES = ((96, 64), (48, 32))
"""Sizes to which a picture of 96 x 64 comes without rounding, so that mirroring before and after is the same."""
TURNED: dict[str, Any] = {"classes": ("red", "blue"), "test_size": (96, 64), "score": 0.0, "max_detections": 40}


def noise(height: int = 64, width: int = 96) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def found_of(boxes: list[list[float]], scores: list[float]) -> Detections:
    return Detections(torch.tensor(boxes), torch.tensor(scores), torch.zeros(len(scores), dtype=torch.int64), ("a",))


@pytest.fixture(scope="module")
def upright(unbroken: Any) -> Detector:
    return focaldet.load(unbroken[0].folder, score=0.0)


@pytest.fixture(scope="module")
def turned() -> Detector:
    return focaldet.load("retinanet-h-small", **TURNED)


# --- parts ---
@pytest.mark.parametrize("mirror", MIRRORS)
@given(x=st.floats(1, 39), y=st.floats(1, 19), w=st.floats(1, 30), h=st.floats(1, 30), theta=st.floats(-1.5, 1.5))
def test_what_is_found_in_a_mirror_comes_back(
    mirror: Mirror, x: float, y: float, w: float, h: float, theta: float
) -> None:
    rotated = found_of([[x, y, w, h, theta]], [0.9])
    upright = Detections(rotated.hboxes, rotated.scores, rotated.labels, rotated.classes)
    step = torch.tensor([-1.0 if mirror.horizontal else 1.0, -1.0 if mirror.vertical else 1.0])
    start = torch.tensor([40.0 if mirror.horizontal else 0.0, 20.0 if mirror.vertical else 0.0])
    for found in (rotated, upright):
        there = found.polygons[0] * step + start
        back = mirror.back(found, (20, 40)).polygons[0]
        # corners come in another order; float32 of coordinates below 100
        assert float(torch.cdist(there, back).amin(dim=1).max()) < 1e-4
    centre = mirror.of(as_sample(noise(20, 40), 0)).image[int(start[1] + step[1] * 5), int(start[0] + step[0] * 7)]
    offset = 1 if mirror.vertical else 0, 1 if mirror.horizontal else 0
    assert np.array_equal(centre, noise(20, 40)[5 - offset[0], 7 - offset[1]])


def test_what_a_recipe_looks_at() -> None:
    recipe = get_recipe("retinanet_r50_1x_coco")
    assert [len(part) for part in build_looks(recipe)] == [1, 1]
    often = with_tta(recipe, True)
    # the specification of the COCO rows, section 9
    assert often.test_sizes == ((1333, 800), (666, 400), (2000, 1200))
    assert often.test_flips == ("horizontal",)
    assert [len(part) for part in build_looks(often)] == [3, 2]
    assert with_tta(often, False) == recipe
    many = get_recipe("r3det-pp_r152d_6x_dota_ms")
    assert with_tta(many, True).test_sizes == many.test_sizes
    assert with_tta(many, True).test_flips == ("horizontal", "vertical")
    steps, mirrors = build_looks(many)
    assert [step.sizes for step in steps] == [((1500, side),) for side in (800, 400, 600, 900, 1000, 1100, 1200)]
    assert mirrors == (Mirror(),)


def test_answers_are_joined_best_first() -> None:
    one, other = found_of([[0.0, 0, 9, 9], [5, 5, 9, 9]], [0.9, 0.3]), found_of([[1.0, 1, 9, 9]], [0.5])
    both = joined([one, other])
    assert both.scores.tolist() == pytest.approx([0.9, 0.5, 0.3])
    assert both.boxes[:, 0].tolist() == [0, 1, 5]
    assert joined([one]) is one


# --- detectors ---
@pytest.mark.parametrize("kind", ["upright", "turned"])
def test_a_mirrored_picture_has_mirrored_answers(kind: str, request: pytest.FixtureRequest) -> None:
    detector: Detector = request.getfixturevalue(kind)
    once = detector.recipe.replace(test_sizes=HALVES)
    picture = noise()
    for flips in ((), ("horizontal",)):
        looking = Detector(once.replace(test_flips=flips), detector.model)
        found, mirrored = looking.predict(picture), looking.predict(np.ascontiguousarray(picture[:, ::-1]))
        back = Mirror(horizontal=True).back(mirrored, picture.shape[:2])
        same = len(found) == len(back) and torch.allclose(found.scores, back.scores, atol=1e-6)
        assert same == bool(flips)  # one look sees what it sees
    # boxes of equal place; corners of turned ones may start elsewhere
    assert (found.polygons.mean(dim=1) - back.polygons.mean(dim=1)).abs().max() < 1e-2


def test_answers_of_all_looks_are_suppressed_and_limited(upright: Detector) -> None:
    picture = noise()
    often, once = upright.predict(picture, tta=True), upright.predict(picture)
    assert len(often) == len(once) == 100
    assert float(often.scores.mean()) > float(once.scores.mean())
    assert torch.equal(upright.predict(picture, tta=False).boxes, once.boxes)
    few = upright.predict(picture, tta=True, max_detections=3)
    assert len(few) == 3
    ious = focaldet.geometry.rotated_iou(as_rboxes(often.boxes), as_rboxes(often.boxes))
    apart = often.labels[:, None] != often.labels
    assert bool(((ious <= 0.5 + 1e-4) | apart | torch.eye(len(often), dtype=torch.bool)).all())


def as_rboxes(boxes: torch.Tensor) -> torch.Tensor:
    low, high = boxes[:, :2], boxes[:, 2:]
    return torch.cat([(low + high) / 2, high - low, torch.zeros(len(boxes), 1)], dim=1)


def test_rotated_answers_of_all_looks(turned: Detector) -> None:
    often = turned.predict(noise(), tta=True)
    assert 0 < len(often) <= 40
    kept = batched_rotated_nms(often.boxes, often.scores, often.labels, turned.recipe.nms)
    assert len(kept) == len(often)


def test_a_recipes_own_looks_count_unasked(turned: Detector) -> None:
    often = Detector(turned.recipe.replace(test_sizes=HALVES, test_flips=("vertical",)), turned.model)
    assert (often.looks, turned.looks) == (4, 1)
    assert torch.equal(often.predict(noise(), tta=False).boxes, turned.predict(noise()).boxes)
    assert not torch.equal(often.predict(noise()).boxes, turned.predict(noise()).boxes)


def row(**changes: Any) -> Detector:
    """A row of DOTA's table with tiles of 64 that become 96, of a small network, whose boxes count from score 0."""
    small = {"backbone": "resnet18", "neck_channels": 16, "head_channels": 16, "score": 0.0, "max_per_class": 20}
    tiles = {"tile": 64, "overlap": 16, "test_size": (96, 96)}
    return focaldet.load("retinanet-h_r50d_1x_dota", classes=("ship", "harbor"), **{**small, **tiles, **changes})


def test_small_pictures_are_extended_to_a_tile() -> None:
    detector, picture = row(), noise(40, 50)
    extended = np.zeros((64, 64, 3), np.uint8)
    extended[:40, :50] = picture
    assert torch.equal(detector.predict(picture).boxes, detector.predict(extended).boxes)
    flipped = row(test_flips=("horizontal",))
    assert torch.allclose(flipped.predict(picture).boxes, flipped.predict(extended).boxes, atol=1e-4)


def test_pictures_over_one_tile_are_cut_in_the_original_program() -> None:
    """And a picture of one tile is merged like one of many: harbours that touch are one harbour."""
    whole, cut, lenient = row().predict(noise(64, 64)), row().predict(noise(64, 65)), row(whole=1.5)
    harbours = whole.boxes[whole.labels == 1]
    falling, labels = torch.arange(len(harbours), 0, -1).float(), torch.zeros(len(harbours), dtype=torch.int64)
    assert 0 < len(batched_rotated_nms(harbours, falling, labels, 0.0001)) == len(harbours)
    assert torch.equal(row(whole=1.5).predict(noise(64, 64)).boxes, whole.boxes)
    assert not torch.equal(lenient.predict(noise(64, 65)).boxes[:5], cut.boxes[:5])


def test_scoring_looks_as_often_as_predicting(upright: Detector, data: Path) -> None:
    often = Detector(upright.recipe.replace(test_sizes=HALVES), upright.model)
    dataset = open_dataset(data, "val", kind="hbox")
    evaluation = evaluate_detector(often, dataset)
    assert evaluation.losses == {}
    for index, found in enumerate(evaluation.detections):
        assert torch.equal(found.boxes, often.predict(dataset.path(index)).boxes)
