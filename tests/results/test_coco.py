"""COCO results: made, written, read, and refused with the number of the entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.results.coco import (
    check_coco_results,
    check_coco_truth,
    read_coco_results,
    to_coco_results,
    write_coco_results,
)
from focaldet.results.detections import Detections

TRUTH: dict[str, Any] = {"images": [{"id": 7}], "annotations": [], "categories": [{"id": 3, "name": "cat"}]}
GOOD: dict[str, Any] = {"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}


def test_labels_become_category_ids_and_corners_sizes(tmp_path: Path) -> None:
    boxes = torch.tensor([[1.25, 2, 11.25, 22], [0.1, 0.2, 0.3, 0.4]])
    found = Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), ("cat", "dog"))
    results = to_coco_results(found, 42, [18, 90])
    assert results[0] == {"image_id": 42, "category_id": 90, "bbox": [1.25, 2.0, 10.0, 20.0], "score": 0.75}
    assert results[1]["bbox"][2] == boxes[1, 2].item() - boxes[1, 0].item()  # in double precision
    write_coco_results(tmp_path / "r.json", results)
    assert read_coco_results(tmp_path / "r.json") == results


def test_category_ids_must_fit() -> None:
    found = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), ("cat", "dog"))
    with pytest.raises(FocaldetError, match="2 classes need as many category ids, but there are 1"):
        to_coco_results(found, 1, [1])


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (5, "entry 1 has no image_id, category_id, bbox, score"),
        ({"image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}, "entry 1 has no score"),
        (GOOD | {"bbox": [1, 2, 3]}, "entry 1 has the bbox"),
        (GOOD | {"bbox": [1, 2, 3, float("nan")]}, "entry 1 has the bbox"),
        (GOOD | {"score": None}, "entry 1 has the score None"),
        (GOOD | {"image_id": 8}, "entry 1 has the image_id 8, which is not among the pictures of the truth"),
        (GOOD | {"category_id": 4}, "entry 1 has the category_id 4, which is not among the categories of the truth"),
        (GOOD | {"category_id": [4]}, "entry 1 has the category_id"),
    ],
)
def test_faults_name_the_file_and_the_entry(entry: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text(json.dumps([GOOD, entry]))
    with pytest.raises(FocaldetError, match=rf"r\.json: {words}".replace("[", r"\[")):
        read_coco_results(tmp_path / "r.json", TRUTH)


def test_annotations_are_no_results() -> None:
    with pytest.raises(FocaldetError, match="these are annotations, not results"):
        check_coco_results(TRUTH, TRUTH)


@pytest.mark.parametrize(
    ("truth", "words"),
    [
        ([], "is not COCO annotations"),
        ({"images": []}, "is not COCO annotations"),
        (
            TRUTH | {"annotations": [{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4]}]},
            "annotation 0 has the image_id 8",
        ),
        (TRUTH | {"annotations": [{"image_id": 7, "category_id": 3}]}, "annotation 0 has no bbox"),
        (TRUTH | {"images": [{"file_name": "a.jpg"}]}, "picture 0 has no id"),
    ],
)
def test_truth_is_checked_too(truth: Any, words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        check_coco_truth(truth)
