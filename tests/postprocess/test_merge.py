"""Merging tiles against the original program's sliding window, and against plain loops."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tf_rules
from focaldet.errors import FocaldetError
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.geometry.rotated_iou import rotated_iou
from focaldet.postprocess.merge import (
    MERGE_THRESHOLDS,
    MergeRule,
    are_covered,
    merge_table,
    merge_tiles,
    merge_upright_tiles,
    suppress,
)
from focaldet.results.detections import Detections
from focaldet.results.tables import DetectionTable

CLASSES = ("ship", "plane")
MERGE = MergeRule(0.1)
SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])
LAST_STATE = MergeRule(MERGE_THRESHOLDS["after-2020"], equal="suppress", max_per_class=5000, corners="compared-whole")


def square_at(x: float, y: float) -> Any:
    return SQUARE + np.array([x, y])


def table(pictures: tuple[str, ...], found: list[tuple[int, Any, float]]) -> DetectionTable:
    """Detections of one class or two: (picture, corners, score)."""
    return DetectionTable(
        pictures=pictures,
        classes=CLASSES,
        polygons=np.array([corners for _, corners, _ in found], dtype=np.float64).reshape(-1, 4, 2),
        owners=np.array([owner for owner, _, _ in found], dtype=np.int64),
        labels=np.zeros(len(found), dtype=np.int64),
        scores=np.array([score for _, _, score in found], dtype=np.float64),
    )


@pytest.mark.golden
def test_thresholds_are_those_of_the_specification() -> None:
    single, many, late = MERGE_THRESHOLDS.values()
    assert set(single) == set(many) == set(late) == set(tf_rules.CLASSES)
    assert {name: (single[name], many[name], late[name]) for name in single if single[name] != late[name]} == {
        "ship": (0.05, 0.05, 0.2)
    }
    assert {name for name in single if single[name] != many[name]} == {
        "storage-tank", "small-vehicle", "large-vehicle"
    }  # fmt: skip
    assert single["bridge"] == single["harbor"] == 0.0001


def tile_of(boxes: list[list[float]], scores: list[float], labels: list[int] | None = None) -> Detections:
    return Detections(
        torch.tensor(boxes).view(-1, 5), torch.tensor(scores), torch.tensor(labels or [0] * len(scores)), CLASSES
    )


def test_an_object_of_two_tiles_counts_once() -> None:
    left, right = tile_of([[500.0, 90, 40, 20, 0.3]], [0.8]), tile_of([[49.0, 90, 40, 20, 0.3]], [0.9])
    merged = merge_tiles([left, right], [(0, 30), (450, 30)], MergeRule(0.1), CLASSES)
    assert merged.boxes.tolist() == [pytest.approx([499.0, 120, 40, 20, 0.3])]
    assert merged.scores.tolist() == pytest.approx([0.9])
    apart = merge_tiles([left, tile_of([[49.0, 90, 40, 20, 0.3]], [0.9], [1])], [(0, 30), (450, 30)], MERGE, CLASSES)
    assert len(apart) == 2  # another class
    assert len(merge_tiles([], [], MERGE, CLASSES)) == 0


def test_each_class_has_its_threshold_and_its_limit() -> None:
    """Pairs of boxes with an IoU of 1/3, one pair a class."""
    pair = [[10.0, 10, 6, 4, 0], [13.0, 10, 6, 4, 0]]
    tile = tile_of(pair * 2, [0.9, 0.8, 0.7, 0.6], [0, 0, 1, 1])
    for nms, other, kept in (
        ({"ship": 0.5}, 0.2, [0, 0, 1]),
        ({"plane": 0.5}, 0.2, [0, 1, 1]),
        (0.5, 0.1, [0, 0, 1, 1]),
    ):
        merged = merge_tiles([tile], [(0, 0)], MergeRule(nms, other), CLASSES)  # type: ignore[arg-type]
        assert merged.labels.tolist() == kept
    assert merge_tiles([tile], [(0, 0)], MergeRule(0.5, max_per_class=1), CLASSES).labels.tolist() == [0, 1]
    equal = MergeRule(1 / 3, equal="suppress")
    assert merge_tiles([tile], [(0, 0)], equal, CLASSES).labels.tolist() == [0, 1]


def upright(*boxes: tuple[float, float, float, float], score: float = 0.5, label: int = 0) -> Detections:
    count = len(boxes)
    return Detections(
        torch.tensor(boxes).view(-1, 4), torch.full((count,), score), torch.full((count,), label), CLASSES
    )


def test_of_an_upright_box_at_the_border_the_larger_part_stays() -> None:
    """Tiles of 100, overlapping by 30, in a scene of 170 x 100: a box from 80 to 120 is whole in the second only."""
    windows, size = [(0, 0, 100, 100), (70, 0, 170, 100)], (100, 170)

    def merged(*found: Detections) -> list[list[float]]:
        return merge_upright_tiles(found, windows, size, MergeRule(0.5), CLASSES).boxes.tolist()

    part, whole = (80.0, 10.0, 100.0, 30.0), (10.0, 10.0, 50.0, 30.0)
    assert merged(upright(part, score=0.9), upright(whole, score=0.2)) == [[80, 10, 120, 30]]
    assert len(merged(upright(part), upright(whole, label=1))) == 2  # another class
    assert len(merged(upright(part), upright())) == 1  # nobody saw more of it
    assert len(merged(upright((80.0, 10.0, 98.0, 30.0)), upright(whole))) == 2  # ends before the border: not cut off
    assert len(merged(upright(part), upright((10.0, 25.0, 50.0, 60.0)))) == 2  # another object, in front of it
    assert len(merged(upright(part, (60.0, 10.0, 100.0, 30.0)), upright())) == 2  # parts are told by other tiles only
    # the lower border is that of the scene: nothing is cut off there, and an IoU of 0.5 suppresses nothing
    low, high = (75.0, 80.0, 95.0, 100.0), (5.0, 60.0, 25.0, 100.0)
    assert len(merged(upright(low), upright(high))) == 2
    assert len(merge_upright_tiles([], [], size, MERGE, CLASSES)) == 0


@given(st.integers(0, 10**6), st.integers(1, 15))
def test_covered_parts_equal_a_plain_loop(seed: int, count: int) -> None:
    source = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, 2, generator=source, dtype=torch.float64).mul(30).sort(dim=1).values
    boxes = corners.reshape(count, 4)
    labels, tiles, cut = (torch.randint(0, limit, (count,), generator=source) for limit in (2, 3, 2))
    tiles = tiles.sort().values
    shown = [boxes[tiles == tile] for tile in range(3)]  # by the smallest window there can be
    windows = torch.stack(
        [torch.cat([some[:, :2].amin(0), some[:, 2:].amax(0)]) if len(some) else torch.zeros(4) for some in shown]
    )
    expected = []
    for k in range(count):
        rivals = [j for j in range(count) if labels[j] == labels[k] and tiles[j] != tiles[k]]
        area = float((boxes[k, 2:] - boxes[k, :2]).prod())
        found = False
        for j in rivals:
            low, high = torch.maximum(boxes[j, :2], boxes[k, :2]), torch.minimum(boxes[j, 2:], boxes[k, 2:])
            shared = float((high - low).clamp(min=0).prod())
            found |= float((boxes[j, 2:] - boxes[j, :2]).prod()) > area and shared >= 0.5 * area
        expected.append(bool(cut[k]) and found)
    assert are_covered(boxes, labels, tiles, windows, cut.bool()).tolist() == expected


def test_whole_corners() -> None:
    """An upright box from 10.9 to 20.9, in a tile at 0.5: whole corners before the tile is moved, or not at all."""
    tile = tile_of([[15.9, 15.9, 10, 10, 0]], [0.9])
    centre = {
        corners: merge_tiles([tile], [(0.5, 0)], MergeRule(corners=corners), CLASSES).boxes[0, :2].tolist()  # type: ignore[arg-type]
        for corners in ("exact", "compared-whole", "whole")
    }
    assert centre["exact"] == centre["compared-whole"] == pytest.approx([16.4, 15.9])
    assert centre["whole"] == pytest.approx([15.5, 15.0])
    # from 0 to 4.9 and from 4 to 9: with whole corners they only touch
    close = tile_of([[2.45, 10, 4.9, 4, 0], [6.5, 10, 5, 4, 0]], [0.9, 0.8])
    assert len(merge_tiles([close], [(0, 0)], MergeRule(0.05), CLASSES)) == 1
    assert len(merge_tiles([close], [(0, 0)], MergeRule(0.05, corners="compared-whole"), CLASSES)) == 2


@given(st.data())
def test_suppressing_equals_a_plain_loop(data: st.DataObject) -> None:
    count = data.draw(st.integers(0, 25))
    seed, limit = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([None, 1, 3]))
    source = torch.Generator().manual_seed(seed)
    boxes = torch.rand(count, 5, generator=source, dtype=torch.float64) * torch.tensor([40.0, 40, 20, 20, 6])
    scores = torch.randint(1, 5, (count,), generator=source) / 5  # ties
    labels, scenes = (torch.randint(0, 2, (count,), generator=source) for _ in range(2))
    rule = MergeRule({"ship": 0.05}, 0.4, max_per_class=limit)
    ious, kept = rotated_iou(boxes, boxes), list[int]()
    for k in sorted(range(count), key=lambda k: -float(scores[k])):
        rivals = [j for j in kept if labels[j] == labels[k] and scenes[j] == scenes[k]]
        if all(ious[j, k] <= rule.threshold(CLASSES[labels[k]]) for j in rivals):
            kept.append(k)
    kind = [(int(labels[k]), int(scenes[k])) for k in kept]
    kept = [k for place, k in enumerate(kept) if limit is None or kind[:place].count(kind[place]) < limit]
    assert suppress(boxes, scores, labels, rule, CLASSES, scenes).tolist() == kept


def test_tiles_of_a_table_come_back_to_their_scene() -> None:
    """An object on the overlap of two tiles counts once; the tile at half scale is twice as large in the scene."""
    found = table(
        ("P1__1__0___0", "P1__1__50___20", "P1__0.5__100___0", "P2"),
        [(0, square_at(55, 25), 0.8), (1, square_at(5, 5), 0.9), (2, SQUARE, 0.7), (3, SQUARE, 0.6)],
    )
    merged = merge_table(found, MERGE)
    assert merged.pictures == ("P1", "P2")
    assert merged.scores.tolist() == [0.9, 0.7, 0.6]
    assert merged.owners.tolist() == [0, 0, 1]
    assert np.array_equal(merged.polygons[0], square_at(55, 25))
    assert np.array_equal(merged.polygons[1], 2 * square_at(100, 0))
    assert merged.notes == ("merged 4 detections of 4 tiles and pictures into 3 of 2 scenes, NMS at IoU > 0.1",)
    assert len(merge_table(found, MergeRule(1.0))) == 4


def test_windows_that_are_named_by_their_side_are_not_scaled() -> None:
    found = table(("P1__2048__100___0", "P1__1024__0___0"), [(0, square_at(3, 0), 0.8), (1, square_at(103, 0), 0.9)])
    merged = merge_table(found, MERGE)
    assert merged.scores.tolist() == [0.9]
    assert np.array_equal(merged.polygons[0], square_at(103, 0))


def test_classes_and_scenes_of_a_table_do_not_suppress_one_another() -> None:
    found = table(("P1__1__0___0", "P2__1__0___0"), [(0, SQUARE, 0.8), (0, SQUARE, 0.9), (1, SQUARE, 0.7)])
    found = replace(found, labels=np.array([0, 1, 0]))
    assert len(merge_table(found, MERGE)) == 3


def test_a_table_and_detections_are_merged_alike() -> None:
    source = torch.Generator().manual_seed(3)
    tiles = []
    for _ in range(3):
        boxes = torch.rand(40, 5, generator=source) * torch.tensor([190.0, 190, 30, 10, 3])
        labels = torch.randint(0, 2, (40,), generator=source)
        tiles.append(Detections(boxes, torch.rand(40, generator=source), labels, CLASSES))
    places = [(0, 0), (100, 0), (0, 100)]
    for corners in ("exact", "compared-whole", "whole"):
        rule = MergeRule({"ship": 0.05, "plane": 0.3}, max_per_class=20, corners=corners)  # type: ignore[arg-type]
        merged = merge_tiles(tiles, places, rule, CLASSES)
        found = DetectionTable(
            pictures=tuple(f"P__200__{x}___{y}" for x, y in places),
            classes=CLASSES,
            polygons=np.concatenate([rbox_to_polygon(tile.boxes.double()).view(-1, 4, 2).numpy() for tile in tiles]),
            owners=np.repeat(np.arange(3), 40),
            labels=np.concatenate([tile.labels.numpy() for tile in tiles]),
            scores=np.concatenate([tile.scores.double().numpy() for tile in tiles]),
        )
        answer = merge_table(found, rule)
        np.testing.assert_array_equal(answer.scores, merged.scores)
        distance = np.abs(answer.polygons[:, :, None] - merged.polygons.numpy()[:, None]).max(axis=3).min(axis=2)
        assert distance.max() < 1e-3  # float32 corners


def test_faults() -> None:
    assert len(merge_table(table((), []), MERGE)) == 0
    with pytest.raises(FocaldetError, match="P1__0__0___0 was scaled by 0"):
        merge_table(table(("P1__0__0___0",), [(0, SQUARE, 0.5)]), MERGE)
    upright = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), CLASSES)
    with pytest.raises(FocaldetError, match="the detections of tile 1 are upright, but rotated ones are merged here"):
        merge_tiles([tile_of([], []), upright], [(0, 0)] * 2, MERGE, CLASSES)
    with pytest.raises(FocaldetError, match="the detections of tile 0 are rotated, but upright ones are merged here"):
        merge_upright_tiles([tile_of([], [])], [(0, 0, 9, 9)], (9, 9), MERGE, CLASSES)
    with pytest.raises(FocaldetError, match="1 tiles have 0 places"):
        merge_tiles([upright], [], MERGE, CLASSES)
    with pytest.raises(FocaldetError, match="the classes of tile 0 are ship, plane, but car are asked for"):
        merge_tiles([tile_of([], [])], [(0, 0)], MERGE, ["car"])
    with pytest.raises(FocaldetError, match=r"merging ship=1\.5 must lie between 0 and 1"):
        MergeRule({"ship": 1.5})
    with pytest.raises(FocaldetError, match="max_per_class=0 must be above 0"):
        MergeRule(max_per_class=0)
