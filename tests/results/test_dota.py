"""Task 1 files; the names of tiles are in the doctests, and their merging in tests/postprocess/test_merge.py."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.results.detections import Detections
from focaldet.results.dota import DOTA_CLASSES, in_dota_order, read_task1, write_task1

CLASSES = ("plane", "ship")
SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])


def square_at(x: float, y: float) -> np.ndarray:
    return SQUARE + np.array([x, y])


def detections(image: str | None = "a/P1.png", shift: float = 0.0) -> Detections:
    boxes = torch.tensor([[30.0 + shift, 20, 20, 10, math.pi / 6], [60 + shift, 20, 20, 10, 0.0]])
    return Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), CLASSES, image)


def test_the_class_lists_are_the_devkits() -> None:
    assert [len(classes) for classes in DOTA_CLASSES.values()] == [15, 16, 18]
    assert DOTA_CLASSES["1.5"] == (*DOTA_CLASSES["1.0"], "container-crane")
    assert DOTA_CLASSES["2.0"][16:] == ("airport", "helipad")
    assert in_dota_order(["helipad", "zebra", "plane", "apple"]) == ("plane", "helipad", "apple", "zebra")


def test_task1_files_and_back(tmp_path: Path) -> None:
    paths = write_task1(tmp_path, [detections(), detections("P2.tif", 5)], ("plane", "ship", "harbor"))
    assert [path.name for path in paths] == ["Task1_plane.txt", "Task1_ship.txt", "Task1_harbor.txt"]
    assert (tmp_path / "Task1_harbor.txt").read_text() == ""
    assert (tmp_path / "Task1_plane.txt").read_text().splitlines() == [
        "P1 0.500000 50.00 15.00 70.00 15.00 70.00 25.00 50.00 25.00",
        "P2 0.500000 55.00 15.00 75.00 15.00 75.00 25.00 55.00 25.00",
    ]
    back = read_task1(tmp_path)
    assert (back.pictures, back.classes) == (("P1", "P2"), ("plane", "ship", "harbor"))
    assert back.owners.tolist() == [0, 1, 0, 1]
    assert back.labels.tolist() == [0, 0, 1, 1]
    assert back.scores.tolist() == [0.5, 0.5, 0.75, 0.75]
    assert np.abs(back.polygons[2] - detections().polygons[0].numpy()).max() <= 0.005 + 1e-6  # two decimals


def test_one_picture_after_the_other(tmp_path: Path) -> None:
    detections().to_dota(tmp_path, "P1")
    detections(shift=5).to_dota(tmp_path, "P2")
    detections().to_dota(tmp_path, "P2")  # again: in place of what was there
    assert read_task1(tmp_path).pictures == ("P1", "P2")
    assert len(read_task1(tmp_path)) == 4
    assert np.array_equal(*(read_task1(tmp_path).polygons[owner::2] for owner in (0, 1)))
    with pytest.raises(FocaldetError, match="'my picture' cannot be a picture's name in Task 1 files"):
        detections().to_dota(tmp_path, "my picture")


def test_what_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match="two pictures have the name 'P1'"):
        write_task1(tmp_path, [detections("a/P1.png"), detections("b/P1.png")], CLASSES)
    with pytest.raises(FocaldetError, match="detections without a picture's name"):
        write_task1(tmp_path, [detections(None)], CLASSES)
    with pytest.raises(FocaldetError, match="P1 has a plane, which is not among the classes ship"):
        write_task1(tmp_path, [detections()], ("ship",))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "line",
    [
        "P1 0.5 1 2 3 4 5 6 7",
        "P1 0.5 1 2 3 4 5 6 7 8 9",
        "P1 high 1 2 3 4 5 6 7 8",
        "P1 0.5 1 2 3 4 5 6 7 nan",
        "plane",
    ],
)
def test_lines_that_are_wrong(tmp_path: Path, line: str) -> None:
    (tmp_path / "Task1_ship.txt").write_text(f"P1 0.5 0 0 4 0 4 4 0 4\n\n{line}\n")
    with pytest.raises(
        FocaldetError, match=r"Task1_ship\.txt:3 reads '.*'; expected are ten words, picture score x1"
    ) as it:
        read_task1(tmp_path)
    assert "\n" not in str(it.value)


def test_folders_that_are_wrong(tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"holds no Task1_CLASS\.txt, such as Task1_plane\.txt"):
        read_task1(tmp_path)
    (tmp_path / "Task1_ship.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FocaldetError, match=r"Task1_ship\.txt: cannot be read as text"):
        read_task1(tmp_path)
