"""Detecting in scenes, with a stand-in that sees painted boxes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import focaldet
from focaldet.data.tiles import Cut
from focaldet.engine.scenes import Picture, cut_tile, predict_scene
from focaldet.errors import FocaldetError
from focaldet.postprocess.merge import MergeRule
from focaldet.results.detections import Detections

CLASSES = ("thing",)
CUT, RULE = Cut(64, 24, pad=(0, 0, 0)), MergeRule(0.0)


def painted(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> Picture:
    """A black picture with boxes x, y, w, h, each in a grey of its own."""
    scene = np.zeros((height, width, 3), dtype=np.uint8)
    for grey, (x, y, w, h) in enumerate(boxes, 1):
        scene[y : y + h, x : x + w] = grey
    return scene


def see(pictures: list[Picture]) -> list[Detections]:
    """Find the boxes of `painted`; the larger the part that shows, the higher its score."""
    found = []
    for picture in pictures:
        boxes, scores = [], []
        for grey in np.unique(picture[picture > 0]):
            rows, columns = np.nonzero(picture[:, :, 0] == grey)
            (y1, y2), (x1, x2) = ((part.min(), part.max() + 1) for part in (rows, columns))
            boxes.append([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 0.0])
            scores.append(len(rows) / 10_000)
        labels = torch.zeros(len(boxes), dtype=torch.int64)
        found.append(Detections(torch.tensor(boxes).view(-1, 5), torch.tensor(scores), labels, CLASSES))
    return found


def hulls(found: Detections) -> list[list[float]]:
    return sorted(found.hboxes.tolist())


@given(st.data(), st.integers(10, 200), st.integers(10, 200), st.integers(1, 5), st.booleans())
def test_what_a_tile_can_hold_is_found_once(data: Any, height: int, width: int, batch: int, decoded: bool) -> None:
    """Boxes no larger than the overlap lie whole in some tile; parts of them in others are suppressed."""
    places = st.tuples(st.integers(0, width - 4), st.integers(0, height - 4))
    boxes: list[tuple[int, int, int, int]] = []
    for x, y in data.draw(st.lists(places, max_size=8)):
        box = (x, y, min(24, width - x), min(20, height - y))
        if all(abs(x - other[0]) > 24 or abs(y - other[1]) > 20 for other in boxes):
            boxes.append(box)
    scene: Any = painted(height, width, boxes)
    if decoded:
        scene = Image.fromarray(scene)
    found = predict_scene(see, scene, CUT, RULE, CLASSES, batch=batch)
    assert hulls(found) == sorted([x, y, x + w, y + h] for x, y, w, h in boxes)


def see_upright(pictures: list[Picture], seed: int = 0) -> list[Detections]:
    """Find the same boxes, upright, with scores that say nothing of how much of a box is in sight."""
    source = torch.Generator().manual_seed(seed)
    return [
        Detections(found.hboxes, torch.rand(len(found), generator=source), found.labels, CLASSES)
        for found in see(pictures)
    ]


@given(st.data(), st.integers(10, 250), st.integers(10, 250), st.sampled_from([(1.0,), (0.5, 1.0, 1.5)]))
def test_tiles_find_what_the_whole_scene_shows(data: Any, height: int, width: int, rates: tuple[float, ...]) -> None:
    """For a detector that knows no place, whatever the scores of parts are: boxes of the kind that tiles overlap by."""
    places = st.tuples(st.integers(0, width - 6), st.integers(0, height - 6), st.integers(6, 16), st.integers(6, 16))
    boxes: list[tuple[int, int, int, int]] = []
    for x, y, w, h in data.draw(st.lists(places, max_size=8)):
        if all(abs(x - other[0]) > 16 or abs(y - other[1]) > 16 for other in boxes):
            boxes.append((x, y, min(w, width - x), min(h, height - y)))
    scene, seed = painted(height, width, boxes), data.draw(st.integers(0, 10**6))
    cut = Cut(64, 24, rates=rates, min_picture=0.0, pad=(0, 0, 0))  # at 1.5 they overlap by 16
    (whole,) = see([scene])
    upright = predict_scene(lambda some: see_upright(some, seed), scene, cut, MergeRule(0.5), CLASSES)
    assert sorted(upright.boxes.tolist()) == hulls(whole)
    assert (upright.scores.diff() <= 0).all()
    assert hulls(predict_scene(see, scene, cut, RULE, CLASSES)) == hulls(whole)


def test_an_upright_recipe_looks_at_tiles_when_asked() -> None:
    detector = focaldet.load("retinanet-small", classes=("ship",), test_size=(96, 64), score=0.001)
    scene = np.random.default_rng(0).integers(0, 256, (128, 288, 3), dtype=np.uint8)
    whole, tiled = detector.predict(scene), detector.predict(scene, tile=96, overlap=32)
    assert tiled.boxes.shape[1] == 4 and len(tiled) > len(whole) == detector.recipe.max_detections
    assert float(tiled.boxes[:, 2].max()) > 192 and float(tiled.boxes[:, 3].max()) > 96
    part = detector.predict(scene[:96, :144], tile=96, overlap=32)  # 1.5 tiles are seen as a whole
    assert part.boxes.equal(detector.predict(scene[:96, :144]).boxes)
    always = focaldet.load(detector.recipe.replace(tile=96, overlap=32))
    assert always.predict(scene).boxes.equal(tiled.boxes)


def test_several_rates_see_large_and_small() -> None:
    """The large box fits the tiles of the lower rate only."""
    scene = painted(128, 192, [(5, 5, 8, 8), (66, 30, 80, 70)])
    one, both = (
        predict_scene(see, scene, Cut(64, 24, rates=rates, pad=(0, 0, 0)), RULE, CLASSES, batch=3)
        for rates in ((1.0,), (0.5, 1.0))
    )
    assert hulls(both) == [[5, 5, 13, 13], [66, 30, 146, 100]]
    assert [66, 30, 146, 100] not in hulls(one)


def test_batches_are_of_one_size_and_heard_of() -> None:
    class Heard:
        total, done = 0, 0

        def start(self, total: int | None, what: str) -> None:
            self.total = total or 0

        def advance(self, n: int = 1, **figures: float) -> None:
            self.done += n

        def message(self, text: str) -> None: ...

        def finish(self) -> None: ...

    seen: list[list[tuple[int, ...]]] = []

    def look(pictures: list[Picture]) -> list[Detections]:
        seen.append([picture.shape for picture in pictures])
        return see(pictures)

    heard = Heard()
    cut = Cut(64, 24, rates=(1.0, 0.5), min_picture=0.0, pad=(0, 0, 0))
    predict_scene(look, painted(100, 144, []), cut, RULE, CLASSES, batch=4, listener=heard)
    assert seen == [[(64, 64, 3)] * 4, [(64, 64, 3)] * 2, [(128, 128, 3)] * 2]
    assert heard.total == heard.done == 8


def test_tiles_are_padded_or_end() -> None:
    scene = np.full((10, 12, 3), 7, dtype=np.uint8)
    assert cut_tile(scene, (4, 4, 20, 20), None).shape == (6, 8, 3)
    tile = cut_tile(scene, (4, 4, 20, 20), (1, 2, 3))
    assert (tile[:6, :8] == 7).all() and (tile[6:] == (1, 2, 3)).all() and (tile[:, 8:] == (1, 2, 3)).all()
    assert (cut_tile(scene[:, :, :1], (4, 4, 20, 20), (1, 2, 6))[6:] == 3).all()
    grey = Image.fromarray(scene[:, :, 0])
    assert np.array_equal(
        cut_tile(grey, (4, 4, 20, 20), (1, 2, 6)), cut_tile(scene[:, :, :1], (4, 4, 20, 20), (1, 2, 6))
    )


def test_memory_does_not_grow_with_the_number_of_tiles() -> None:
    peaks = []
    for side in (256, 1024):
        scene = painted(side, side, [(3, 3, 9, 9)])
        tracemalloc.start()
        predict_scene(see, scene, Cut(128, 32, pad=(0, 0, 0)), RULE, CLASSES, batch=2)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 300_000  # 100 tiles and not 9: a place and no boxes each; pixels would be 4.5 MB


def test_faults() -> None:
    scene = painted(64, 64, [])
    with pytest.raises(FocaldetError, match="batch=0 must be above 0"):
        predict_scene(see, scene, CUT, RULE, CLASSES, batch=0)
    with pytest.raises(FocaldetError, match="the classes of tile 0 are thing, but ship are asked for"):
        predict_scene(see, scene, CUT, RULE, ["ship"])
