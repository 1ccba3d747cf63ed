"""Detections: promises of order and shape, files, and hand-over to other software."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.results.detections import Detections, read_detections, write_detections

CLASSES = ("cat", "dog", "emu")


@pytest.fixture
def found() -> Detections:
    boxes = torch.tensor([[0.0, 0, 10, 5], [3.5, 4.25, 20, 30], [1, 1, 2, 2]])
    return Detections(boxes, torch.tensor([0.9, 0.5, 0.125]), torch.tensor([2, 0, 0]), CLASSES, "street/a.jpg")


def test_what_is_out_of_order_is_sorted_and_ties_stay() -> None:
    boxes = torch.arange(16.0).view(4, 4)
    sorted_ones = Detections(boxes, torch.tensor([0.1, 0.5, 0.9, 0.5]), torch.tensor([0, 1, 2, 0]), CLASSES)
    assert sorted_ones.scores.tolist() == pytest.approx([0.9, 0.5, 0.5, 0.1])
    assert sorted_ones.labels.tolist() == [2, 1, 0, 0]
    assert sorted_ones.boxes[:, 0].tolist() == [8, 4, 12, 0]


def test_views(found: Detections) -> None:
    assert repr(found) == "Detections(3 in street/a.jpg: 2 cat, 1 emu)"
    assert len(found) == 3
    assert found.names == ["emu", "cat", "cat"]
    assert found.polygons.shape == (3, 4, 2)
    assert found.polygons[0].tolist() == [[0, 0], [10, 0], [10, 5], [0, 5]]
    boxes, scores, labels = found.numpy()
    assert boxes.dtype == scores.dtype == np.float32
    assert labels.dtype == np.int64
    assert found.filter(0.5).scores.tolist() == [pytest.approx(0.9)]  # strict, like the threshold of the detector
    assert found.filter(0.5).image == found.image


def test_none_at_all() -> None:
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), CLASSES)
    assert len(nothing.filter(0.3)) == 0
    assert nothing.polygons.shape == (0, 4, 2)
    assert nothing.entries("a.jpg") == []
    assert repr(nothing) == "Detections(0)"
    assert nothing.draw(np.zeros((20, 30, 3), np.uint8)).size == (30, 20)


@pytest.mark.parametrize(
    ("boxes", "scores", "labels", "words"),
    [
        (torch.zeros(2, 3), [0.1, 0.1], [0, 0], r"boxes of shape \(2, 3\) should be \(N, 4\)"),
        (torch.zeros(2, 4), [0.1], [0, 0], "2 boxes need as many scores and labels"),
        (torch.zeros(2, 4), [0.1, 0.1], [[0], [0]], "2 boxes need as many scores and labels"),
        (torch.zeros(2, 4), [0.1, float("nan")], [0, 0], "score of detection 1 is not a number"),
        (torch.zeros(2, 4), [0.2, 0.1], [0, 3], "labels run from 0 to 3, but with 3 classes"),
        (torch.zeros(2, 4), [0.2, 0.1], [-1, 1], "labels run from -1"),
    ],
)
def test_wrong_arguments(boxes: torch.Tensor, scores: list[float], labels: list[int], words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        Detections(boxes, torch.tensor(scores), torch.tensor(labels), CLASSES)


def test_json_and_back(found: Detections, tmp_path: Path) -> None:
    found.to_json(tmp_path / "new" / "found.json")
    entries = json.loads((tmp_path / "new" / "found.json").read_text())
    assert entries[1] == {
        "image": "street/a.jpg",
        "label": 0,
        "class": "cat",
        "score": 0.5,
        "box": [3.5, 4.25, 20.0, 30.0],
        "polygon": [3.5, 4.25, 20.0, 4.25, 20.0, 30.0, 3.5, 30.0],
    }
    back = read_detections(tmp_path / "new" / "found.json", CLASSES)["street/a.jpg"]
    assert back.boxes.equal(found.boxes)
    assert back.scores.equal(found.scores)
    assert back.labels.equal(found.labels)
    assert back.image == found.image


@pytest.fixture
def turned() -> Detections:
    """A rectangle of 20 x 10 that stands upright because it is turned by 90 degrees, and one that is not turned."""
    boxes = torch.tensor([[30.0, 20, 20, 10, torch.pi / 2], [50, 20, 20, 10, 0]])
    return Detections(boxes, torch.tensor([0.9, 0.5]), torch.tensor([2, 0]), CLASSES, "street/a.jpg")


def test_rotated_boxes(turned: Detections, found: Detections) -> None:
    assert turned.rotated and not found.rotated
    assert turned.boxes.shape == (2, 5)
    assert turned.hboxes.tolist() == [[25, 10, 35, 30], [40, 15, 60, 25]]
    assert turned.polygons.dtype == torch.float32
    assert turned.polygons[0].tolist() == [[35, 10], [35, 30], [25, 30], [25, 10]]
    assert turned.filter(0.5).boxes.equal(turned.boxes[:1])
    picture = np.asarray(turned.draw(np.zeros((60, 90, 3), np.uint8), scores=False, thickness=1))
    assert picture[12:28, 25].any() and picture[12:28, 35].any()  # its long sides are drawn where they stand
    none = Detections(torch.zeros(0, 5), torch.zeros(0), torch.zeros(0, dtype=torch.int64), CLASSES)
    assert none.polygons.shape == (0, 4, 2)
    assert none.hboxes.shape == (0, 4)
    assert none.entries("a") == []


def test_rotated_boxes_in_json_and_back(turned: Detections, found: Detections, tmp_path: Path) -> None:
    turned.to_json(tmp_path / "found.json")
    entries = json.loads((tmp_path / "found.json").read_text())
    assert len(entries[0]["box"]) == 5
    assert entries[0]["polygon"] == [35, 10, 35, 30, 25, 30, 25, 10]
    back = read_detections(tmp_path / "found.json", CLASSES)["street/a.jpg"]
    assert back.boxes.equal(turned.boxes)
    write_detections(tmp_path / "both.json", [turned, found])
    with pytest.raises(FocaldetError, match="entry 2 has a box of another kind than entry 0"):
        read_detections(tmp_path / "both.json")


def test_rotated_boxes_for_supervision(turned: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("supervision")
    stand_in.Detections = lambda **fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    handed = turned.to_supervision()
    assert handed["xyxy"].tolist() == turned.hboxes.tolist()
    assert handed["data"]["xyxyxyxy"].shape == (2, 4, 2)


def test_many_pictures_and_classes_by_name(found: Detections, tmp_path: Path) -> None:
    other = Detections(found.boxes, found.scores, found.labels, CLASSES, "b.jpg")
    write_detections(tmp_path / "all.json", [found, other])
    assert list(read_detections(tmp_path / "all.json")) == ["street/a.jpg", "b.jpg"]
    joined = read_detections(tmp_path / "all.json", ("emu", "dog", "cat"))["b.jpg"]
    assert joined.names == found.names
    assert joined.labels.tolist() == [0, 2, 2]
    with pytest.raises(FocaldetError, match="entry 1 is of class 'cat', which is not among emu, dog"):
        read_detections(tmp_path / "all.json", ("emu", "dog"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "holds no list of detections"),
        ("[1]", "entry 0 should be an object with image"),
        ('[{"image": "a", "label": 0, "class": "cat", "score": 0.5, "box": [1, 2, 3]}]', "entry 0 has the box"),
        (
            '[{"image": "a", "label": 0, "class": "cat", "score": "x", "box": [1, 2, 3, 4]}]',
            "entry 0 has the score 'x'",
        ),
        ('[{"image": "a", "label": -1, "class": "cat", "score": 1, "box": [1, 2, 3, 4]}]', "entry 0 has the label -1"),
    ],
)
def test_files_that_are_not_ours(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FocaldetError, match=words):
        read_detections(tmp_path / "x.json")


def test_supervision_is_named_where_it_is_missing(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(FocaldetError, match="pip install supervision"):
        found.to_supervision()


def test_hands_over_to_supervision(found: Detections, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("supervision")
    stand_in.Detections = lambda **fields: fields  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", stand_in)
    handed = found.to_supervision()
    assert handed["xyxy"].shape == (3, 4)
    assert handed["class_id"].tolist() == [2, 0, 0]
    assert handed["data"]["class_name"].tolist() == ["emu", "cat", "cat"]
