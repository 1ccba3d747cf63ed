"""What Scores promise to those who print, store or plot them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from focaldet.errors import FocaldetError
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.scores import Scores


@pytest.fixture(scope="module")
def scores() -> Scores:
    def box(number: int, kind: int) -> dict[str, Any]:
        return {"id": number, "image_id": 1, "category_id": kind, "bbox": [number * 50, 0, 40, 40]}

    truth = {
        "images": [{"id": 1}],
        "annotations": [box(0, 1), box(1, 1), box(2, 2)],
        "categories": [{"id": 1, "name": "ant"}, {"id": 2, "name": "bee"}, {"id": 3, "name": "cow"}],
    }
    results = [
        {"image_id": 1, "category_id": 1, "bbox": [0, 0, 40, 40], "score": 0.8},
        {"image_id": 1, "category_id": 2, "bbox": [100, 0, 40, 40], "score": 0.7},
    ]
    return coco_scores(truth, results)


def test_reads_like_a_dictionary(scores: Scores) -> None:
    assert scores["AP"] == pytest.approx((51 / 101 + 1) / 2)  # one of two ants: recall levels 0 to 0.50 of 101
    assert scores["AP_large"] is None
    with pytest.raises(FocaldetError, match=r"'ap50' is no figure \(did you mean"):
        scores["ap50"]


def test_dictionary_is_json_without_nan(scores: Scores) -> None:
    content = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert content["rule"] == "COCO, 101 points, IoU 0.50:0.95, at most 100 detections"
    assert content["classes"]["cow"]["AP"] is None
    assert content["classes"]["ant"]["objects"] == 2
    assert list(content)[:4] == ["rule", "AP", "AP50", "AP75"]


def test_table(scores: Scores) -> None:
    assert scores.table(("AP", "AP50")).splitlines() == [
        "COCO, 101 points, IoU 0.50:0.95, at most 100 detections",
        "class     AP   AP50  objects",
        "----------------------------",
        "all     75.2   75.2        3",
        "bee    100.0  100.0        1",
        "ant     50.5   50.5        2",
        "cow        -      -        0",
    ]


def test_curves_say_what_was_measured(scores: Scores) -> None:
    precision, at_score = scores.curves.at(0.75)["ant"]
    assert precision[:51].tolist() == [1] * 51
    assert precision[51:].max() == 0
    assert at_score[0] == 0.8
    with pytest.raises(FocaldetError, match=r"IoU 0\.4 was not measured; there are 0\.50, 0\.55"):
        scores.curves.at(0.4)
    with pytest.raises(FocaldetError, match="a limit of 7 detections was not measured"):
        scores.curves.at(0.5, limit=7)
