"""Task 1 files and tiles."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.results.detections import Detections
from focaldet.results.dota import DOTA_CLASSES, in_dota_order, merge_tiles, read_task1, write_task1
from focaldet.results.tables import DetectionTable

CLASSES = ("plane", "ship")
SQUARE = np.array([[0.0, 0], [10, 0], [10, 10], [0, 10]])


def square_at(x: float, y: float) -> np.ndarray:
    return SQUARE + np.array([x, y])


def detections(image: str | None = "a/P1.png", shift: float = 0.0) -> Detections:
    boxes = torch.tensor([[30.0 + shift, 20, 20, 10, math.pi / 6], [60 + shift, 20, 20, 10, 0.0]])
    return Detections(boxes, torch.tensor([0.75, 0.5]), torch.tensor([1, 0]), CLASSES, image)


def table(pictures: tuple[str, ...], rows: list[tuple[int, np.ndarray, float]]) -> DetectionTable:
    return DetectionTable(
        pictures=pictures,
        classes=CLASSES,
        polygons=np.array([row[1] for row in rows]).reshape(-1, 4, 2),
        owners=np.array([row[0] for row in rows], dtype=np.int64),
        labels=np.zeros(len(rows), dtype=np.int64),
        scores=np.array([row[2] for row in rows], dtype=np.float64),
    )


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


def test_tiles_come_back_to_their_scene() -> None:
    """An object on the overlap of two tiles counts once; the tile at half scale is twice as large in the scene."""
    found = table(
        ("P1__1__0___0", "P1__1__50___20", "P1__0.5__100___0", "P2"),
        [(0, square_at(55, 25), 0.8), (1, square_at(5, 5), 0.9), (2, SQUARE, 0.7), (3, SQUARE, 0.6)],
    )
    merged = merge_tiles(found, 0.1)
    assert merged.pictures == ("P1", "P2")
    assert merged.scores.tolist() == [0.9, 0.7, 0.6]
    assert merged.owners.tolist() == [0, 0, 1]
    assert np.array_equal(merged.polygons[0], square_at(55, 25))
    assert np.array_equal(merged.polygons[1], 2 * square_at(100, 0))
    assert merged.notes == ("merged 4 detections of 4 tiles and pictures into 3 of 2 scenes, NMS at IoU > 0.1",)
    assert len(merge_tiles(found, 1.0)) == 4


def test_classes_and_scenes_do_not_suppress_one_another() -> None:
    found = table(("P1__1__0___0", "P2__1__0___0"), [(0, SQUARE, 0.8), (0, SQUARE, 0.9), (1, SQUARE, 0.7)])
    found = DetectionTable(**{**vars(found), "labels": np.array([0, 1, 0])})
    assert len(merge_tiles(found, 0.1)) == 3


def test_no_tiles_and_bad_tiles() -> None:
    assert len(merge_tiles(table((), []), 0.1)) == 0
    with pytest.raises(FocaldetError, match="P1__0__0___0 was scaled by 0"):
        merge_tiles(table(("P1__0__0___0",), [(0, SQUARE, 0.5)]), 0.1)
