"""Hits, false alarms and misses of one picture, as COCO counts them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.matching import Matches, match
from focaldet.results.coco import to_coco_results
from focaldet.results.detections import Detections
from focaldet.structures import BACKGROUND, IGNORED, Truth

CLASSES = ("ant", "bee")
HERE = [0.0, 0, 10, 10]
BESIDE = [1.0, 0, 11, 10]  # IoU 9/11 with HERE
HALF = [0.0, 0, 10, 5]  # IoU exactly 0.5
AWAY = [50.0, 50, 60, 60]


def judge(
    found: list[tuple[list[float], float, int]],
    truth: list[tuple[list[float], int]],
    ignored: list[bool] | None = None,
    **options: float,
) -> Matches:
    detections = Detections(
        torch.tensor([box for box, _, _ in found]).view(-1, 4),
        torch.tensor([score for _, score, _ in found]),
        torch.tensor([label for _, _, label in found], dtype=torch.int64),
        CLASSES,
    )
    boxes = torch.tensor([box for box, _ in truth]).view(-1, 4)
    labels = torch.tensor([label for _, label in truth], dtype=torch.int64)
    return match(detections, Truth(boxes, labels, None if ignored is None else torch.tensor(ignored)), **options)


def test_the_better_score_takes_the_object() -> None:
    matches = judge([(BESIDE, 0.9, 0), (HERE, 0.8, 0), (AWAY, 0.7, 0)], [(HERE, 0), (AWAY, 1)])
    assert matches.owners.tolist() == [0, BACKGROUND, BACKGROUND]
    assert matches.hits.tolist() == [0]
    assert matches.false_alarms.tolist() == [1, 2]
    assert matches.missed.tolist() == [1]
    assert matches.ious.tolist() == [pytest.approx(9 / 11), 0, 0]


def test_an_overlap_exactly_at_the_threshold_counts() -> None:
    assert judge([(HALF, 0.9, 0)], [(HERE, 0)]).owners.tolist() == [0]
    assert judge([(HALF, 0.9, 0)], [(HERE, 0)], iou=0.51).owners.tolist() == [BACKGROUND]


def test_takes_the_best_overlap_and_of_equal_ones_the_later() -> None:
    assert judge([(HERE, 0.9, 0)], [(BESIDE, 0), (HERE, 0)]).owners.tolist() == [1]
    assert judge([(HERE, 0.9, 0)], [(HERE, 0), (HERE, 0)]).owners.tolist() == [1]


def test_ignored_objects_take_any_number_and_are_never_missed() -> None:
    inside = [2.0, 2, 4, 4]
    matches = judge([(inside, 0.9, 0), (HERE, 0.8, 0), (inside, 0.7, 1)], [(HERE, 0)], [True])
    assert matches.owners.tolist() == [IGNORED, IGNORED, BACKGROUND]
    assert matches.missed.tolist() == []


def test_an_object_goes_before_an_ignored_one() -> None:
    assert judge([(HERE, 0.9, 0)], [(BESIDE, 0), (HERE, 0)], [False, True]).owners.tolist() == [0]


def test_low_scores_take_no_part() -> None:
    matches = judge([(HERE, 0.5, 0)], [(HERE, 0)], score=0.5)
    assert matches.owners.tolist() == [IGNORED]
    assert matches.missed.tolist() == [0]


def test_nothing_at_all() -> None:
    assert judge([], []).missed.tolist() == []
    assert judge([], [(HERE, 0)]).missed.tolist() == [0]
    assert judge([(HERE, 0.5, 0)], []).false_alarms.tolist() == [0]


def test_polygons_count_by_their_hull() -> None:
    found = Detections(torch.tensor([HERE]), torch.tensor([0.9]), torch.tensor([0]), CLASSES)
    turned = torch.tensor([[[5.0, 0], [10, 5], [5, 10], [0, 5]]])
    assert match(found, Truth(turned, torch.tensor([0]))).owners.tolist() == [0]
    with pytest.raises(FocaldetError, match="1 labels need as many boxes"):
        match(found, Truth(torch.zeros(2, 4), torch.tensor([0])))


def test_rotated_boxes_are_compared_as_they_are_turned() -> None:
    """Beside polygons as annotated, rotated or upright boxes; an ignored object counts by its IoU."""
    boxes = torch.tensor([[30.0, 20, 20, 10, torch.pi / 2], [30, 20, 20, 10, 0.0], [30, 20, 4, 4, 0.0]])
    found = Detections(boxes, torch.tensor([0.9, 0.8, 0.7]), torch.tensor([0, 0, 0]), CLASSES)
    standing = torch.tensor([25.0, 10, 35, 30])
    for objects in (
        standing[None],
        boxes[:1],
        torch.stack([standing[[0, 1]], standing[[2, 1]], standing[[2, 3]], standing[[0, 3]]])[None],
    ):
        truth = Truth(objects, torch.tensor([0]))
        matches = match(found, truth)
        assert matches.owners.tolist() == [0, BACKGROUND, BACKGROUND]
        assert matches.ious[0] == pytest.approx(1)
        ignored = match(found, Truth(objects, torch.tensor([0]), torch.tensor([True])))
        assert ignored.owners.tolist() == [IGNORED, BACKGROUND, BACKGROUND]
        assert match(found, Truth(objects, torch.tensor([1]))).missed.tolist() == [0]
    with pytest.raises(FocaldetError, match=r"2 labels need as many boxes \(G, 5\) or polygons"):
        match(found, Truth(boxes[:1], torch.tensor([0, 0])))


corners = st.tuples(st.integers(0, 6), st.integers(0, 6), st.integers(1, 6), st.integers(1, 6))


@given(
    objects=st.lists(st.tuples(corners, st.integers(0, 1), st.booleans()), max_size=6),
    seen=st.lists(st.tuples(corners, st.integers(1, 9), st.integers(0, 1)), max_size=8),
)
def test_counts_as_the_coco_evaluator_does(
    objects: list[tuple[tuple[int, ...], int, bool]], seen: list[tuple[tuple[int, ...], int, int]]
) -> None:
    """The share of objects found at IoU 0.5 is the evaluator's recall."""
    boxes = torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _, _ in objects]).float().view(-1, 4)
    labels, crowd = (
        torch.tensor([item[1] for item in objects]).long(),
        torch.tensor([item[2] for item in objects]).bool(),
    )
    found = Detections(
        torch.tensor([[x, y, x + w, y + h] for (x, y, w, h), _, _ in seen]).float().view(-1, 4),
        torch.tensor([item[1] / 10 for item in seen]),
        torch.tensor([item[2] for item in seen]).long(),
        CLASSES,
    )
    truth = {
        "images": [{"id": 1}],
        "categories": [{"id": 0, "name": "ant"}, {"id": 1, "name": "bee"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": label, "bbox": list(box), "iscrowd": int(skip)}
            for number, (box, label, skip) in enumerate(objects)
        ],
    }
    recall = coco_scores(truth, to_coco_results(found, 1, [0, 1]), ious=[0.5]).curves.recall[0, :, 0, -1]
    matches = match(found, Truth(boxes, labels, crowd))
    for label in range(2):
        wanted = int(((labels == label) & ~crowd).sum())
        hits = int((found.labels[matches.hits] == label).sum())
        assert recall[label] == (pytest.approx(hits / wanted) if wanted else -1)
        assert hits + int((labels[matches.missed] == label).sum()) == wanted
