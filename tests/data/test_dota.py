"""DOTA's label files in every version, and what is wrong with some; COCO json with rotated boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.data.dota import label_folder, read_coco_polygons, read_label_folder
from focaldet.errors import FocaldetError

HEADER = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
PLANE = "10.5 10 50 10 50 30.25 10.5 30.25 plane 0"
SHIP = "60 60 80 60 80 70 60 70 ship 1"
BOW, FLAT = "0 0 9 0 0 9 9 9 ship 0", "0 0 3 3 6 6 9 9 plane 0"


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


def test_every_version_reads(tmp_path: Path) -> None:
    """With the header (v1.0), without (v1.5, v2.0), without the last word, in other line ends, empty; equal objects."""
    write(tmp_path, P1=f"{HEADER}{PLANE}\n{SHIP}\n{PLANE}\n", P2=f"{SHIP}\r\n\r\n", P3="", P4=PLANE.removesuffix(" 0"))
    truth = read_label_folder(tmp_path)
    assert (truth.pictures, truth.classes) == (("P1", "P2", "P3", "P4"), ("plane", "ship"))
    assert truth.owners.tolist() == [0, 0, 0, 1, 3]
    assert truth.labels.tolist() == [0, 1, 0, 1, 0]
    assert truth.difficult.tolist() == [False, True, False, True, False]
    assert truth.polygons[0].tolist() == [[10.5, 10], [50, 10], [50, 30.25], [10.5, 30.25]]
    assert truth.notes == ()


def test_polygons_that_are_of_no_use_are_left_out_and_counted(tmp_path: Path) -> None:
    write(tmp_path, P1=f"{HEADER}{BOW}\n{PLANE}\n{FLAT}\n{BOW}\n")
    truth = read_label_folder(tmp_path)
    assert truth.labels.tolist() == [0]
    assert truth.notes == (
        f"left out: objects whose polygon crosses itself: 2 (the first: {tmp_path}/P1.txt:3)",
        f"left out: objects without area: 1 (the first: {tmp_path}/P1.txt:5)",
    )
    assert truth.classes == ("plane", "ship")  # what the file names, though nothing of it is left


@pytest.mark.parametrize(
    "line",
    [
        "1 2 3 4 5 6 7 plane 0",
        "1 2 3 4 5 6 7 8",
        "1 2 3 4 5 6 7 8 plane 0 0",
        "1 2 3 4 5 6 7 nan plane 0",
        "1 2 3 4 5 6 7 inf plane 0",
        "1 2 3 4 5 6 7 8 plane no",
        "1 2 3 4 5 6 7 8 plane -1",
        "a 2 3 4 5 6 7 8 plane 0",
    ],
)
def test_lines_that_are_wrong_name_file_and_line(tmp_path: Path, line: str) -> None:
    write(tmp_path, P1=PLANE, P2=f"{HEADER}{line}\n")
    with pytest.raises(FocaldetError, match=r"P2\.txt:3 reads '.*'; expected is x1 y1 .* class difficult") as caught:
        read_label_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_where_the_labels_are(tmp_path: Path) -> None:
    labels = write(tmp_path / "val" / "labelTxt", P1=PLANE)
    write(tmp_path / "val", train="P1\n")  # a list beside the labels is no label file
    assert label_folder(tmp_path / "val") == labels
    assert read_label_folder(tmp_path / "val").pictures == ("P1",)
    inner = write(tmp_path / "test" / "labelTxt-v1.5" / "labelTxt", P2=SHIP)
    assert label_folder(tmp_path / "test") == inner
    write(tmp_path / "test" / "labelTxt-v1.0", P2=SHIP)
    with pytest.raises(FocaldetError, match=r"holds labelTxt-v1\.0 and labelTxt-v1\.5; name one of them"):
        label_folder(tmp_path / "test")
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        FocaldetError, match=r"empty holds neither label files, such as P0003\.txt, nor a folder labelTxt"
    ):
        read_label_folder(tmp_path / "empty")
    (tmp_path / "empty" / "P1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FocaldetError, match=r"P1\.txt: cannot be read as text"):
        read_label_folder(tmp_path / "empty")


def test_only_the_pictures_that_are_listed(tmp_path: Path) -> None:
    write(tmp_path / "labelTxt", P1=PLANE, P2=SHIP, P3="")
    lines = tmp_path / "val.txt"
    lines.write_text("P3\nimages/P1.png\nP1\n\n")
    truth = read_label_folder(tmp_path, lines)
    assert (truth.pictures, truth.classes) == (("P3", "P1"), ("plane",))
    assert truth.owners.tolist() == [1]
    lines.write_text("P1\nP22\n")
    with pytest.raises(
        FocaldetError, match=r"1 of the 2 pictures of .*val\.txt have no label file .* P22 \(did you mean"
    ):
        read_label_folder(tmp_path, lines)
    with pytest.raises(FocaldetError, match=r"none\.txt: cannot be read as a list of pictures"):
        read_label_folder(tmp_path, tmp_path / "none.txt")


@pytest.mark.data
def test_real_labels(shared: Path) -> None:
    truth = read_label_folder(shared / "data" / "dota-samples")
    assert (len(truth.pictures), len(truth)) == (7, 881)
    lines = (shared / "data" / "dota-samples" / "labelTxt" / "P1234.txt").read_text().splitlines()
    there = np.flatnonzero(truth.owners == truth.pictures.index("P1234"))
    assert [truth.classes[truth.labels[k]] for k in there] == [line.split()[8] for line in lines]
    assert truth.difficult[there].sum() == sum(line.endswith(" 1") for line in lines)


COCO: dict[str, Any] = {
    "images": [{"id": 5, "file_name": "a/P5.png"}, {"id": 2}],
    "categories": [{"id": 9, "name": "ship"}, {"id": 4, "name": "plane"}],
    "annotations": [
        {"id": 1, "image_id": 2, "category_id": 9, "bbox": [30, 20, 20, 10, 0.0], "iscrowd": 1},
        {"id": 2, "image_id": 5, "category_id": 4, "poly": [0, 0, 9, 0, 9, 9, 0, 9]},
        {"id": 3, "image_id": 5, "category_id": 4, "poly": [0, 0, 9, 0, 0, 9, 9, 9]},
    ],
}


def test_coco_json_with_rotated_boxes() -> None:
    truth = read_coco_polygons(COCO, "x.json")
    assert (truth.pictures, truth.classes) == (("P5", "2"), ("plane", "ship"))
    assert truth.owners.tolist() == [1, 0]
    assert truth.labels.tolist() == [1, 0]
    assert truth.difficult.tolist() == [True, False]
    assert truth.polygons[0].tolist() == [[20, 15], [40, 15], [40, 25], [20, 25]]
    assert truth.notes == ("left out: objects whose polygon crosses itself: 1 (the first: x.json: annotation 2)",)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"images": [{"id": 5, "file_name": "a/P.png"}, {"id": 2, "file_name": "b/P.jpg"}]},
            "two pictures of the name 'P'",
        ),
        ({"categories": [{"id": 9, "name": "ship"}, {"id": 4, "name": "ship"}]}, "two categories of the name 'ship'"),
        ({"annotations": [{"image_id": 2, "category_id": 9}]}, "annotation 0 has no outline"),
        ({"annotations": [{"image_id": 2, "category_id": 1, "poly": [0] * 8}]}, "annotation 0 has the category_id 1"),
        ({"annotations": {}}, "is not COCO annotations"),
    ],
)
def test_coco_json_that_is_wrong(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FocaldetError, match=rf"x\.json:? .*{words}"):
        read_coco_polygons(COCO | changes, "x.json")
