"""`focaldet score` on rotated boxes, from files to table; the upright path is in test_training.py."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import focaldet
from focaldet.errors import UsageError

PLANE, SHIP = "10 10 50 10 50 30 10 30", "60 60 80 60 80 70 60 70"
FAR = "200 200 220 200 220 210 200 210"


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    """Three pictures, one without objects, one with a difficult ship and a polygon that crosses itself."""
    folder = tmp_path / "labelTxt"
    folder.mkdir()
    (folder / "P1.txt").write_text(f"imagesource:GoogleEarth\ngsd:0.1\n{PLANE} plane 0\n{SHIP} ship 0\n")
    (folder / "P2.txt").write_text(f"{PLANE} plane 0\n{SHIP} ship 1\n0 0 9 0 0 9 9 9 ship 0\n")
    (folder / "P3.txt").write_text("")
    return folder


@pytest.fixture
def task1(tmp_path: Path) -> Path:
    """All objects found but the plane of P2; a false ship in P3, and a car in a picture that is not there."""
    folder = tmp_path / "found"
    folder.mkdir()
    (folder / "Task1_plane.txt").write_text(f"P1 0.9 {PLANE}\n")
    (folder / "Task1_ship.txt").write_text(f"P1 0.8 {SHIP}\nP2 0.95 {SHIP}\nP3 0.3 {FAR}\n")
    (folder / "Task1_car.txt").write_text(f"P9 0.9 {SHIP}\n")
    return folder


def test_label_files_and_task1_files(command: Any, truth: Path, task1: Path) -> None:
    exit_code, out, err = command("score", truth, task1)
    assert (exit_code, err) == (0, "")
    assert f"rotated boxes: {truth} (label files): 3 pictures, 4 objects, 1 of them difficult; " in out
    assert f"{task1} (Task 1 files): 5 detections" in out
    assert f"polygon crosses itself: 1 (the first: {truth}/P2.txt:3)" in out
    assert "left out: 1 detections of pictures that the truth does not have: P9 (1)" in out
    assert "left out: 1 detections of classes that the truth does not have: car (1)" in out
    assert "11 points" in out and "101 points" in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines()[-3:]}
    assert rows["plane"][:2] == ["54.5", "50.0"]  # 6 of 11 levels; half the area
    assert rows["ship"][:2] == ["100.0", "100.0"]  # the false alarm comes last, the difficult one does not count
    assert rows["ship"][-1] == "1"


def test_json_is_one_document_and_what_python_says(command: Any, truth: Path, task1: Path) -> None:
    exit_code, out, _ = command("score", truth, task1, "--json")
    assert exit_code == 0
    document = json.loads(out)
    assert document == focaldet.score(truth, task1).to_dict()
    assert list(document)[:10] == [
        "rule", "AP50_voc07", "AP50_voc12", "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR",
    ]  # fmt: skip
    assert set(document["classes"]) == {"plane", "ship"}
    assert len(document["notes"]) == 4


def test_our_json_and_cocos_say_the_same(command: Any, truth: Path, task1: Path, tmp_path: Path) -> None:
    """The same detections as detections json and, with the same truth, as COCO json of five numbers."""
    rboxes = {"P": [30, 20, 40, 20, 0.0], "S": [70, 65, 10, 20, math.pi / 2], "F": [210, 205, 20, 10, math.pi]}
    rows = [("P1", "plane", 0.9, "P"), ("P1", "ship", 0.8, "S"), ("P2", "ship", 0.95, "S"), ("P3", "ship", 0.3, "F")]
    ours, theirs, coco = tmp_path / "ours.json", tmp_path / "theirs.json", tmp_path / "truth.json"
    number, category = {"P1": 1, "P2": 2, "P3": 3}, {"plane": 1, "ship": 2}
    own, foreign = [], []
    for name, of, score, box in rows:
        own.append({"image": f"x/{name}.png", "label": 0, "class": of, "score": score, "box": rboxes[box]})
        numbers = {"image_id": number[name], "category_id": category[of]}
        foreign.append({**numbers, "score": score, "bbox": rboxes[box]})
    ours.write_text(json.dumps(own))
    theirs.write_text(json.dumps(foreign))
    objects = [(1, 1, "P", 0), (1, 2, "S", 0), (2, 1, "P", 0), (2, 2, "S", 1)]
    annotations = [
        {"id": k, "image_id": image, "category_id": of, "bbox": rboxes[box], "ignore": hard}
        for k, (image, of, box, hard) in enumerate(objects)
    ]
    images = [{"id": of, "file_name": f"{name}.png"} for name, of in number.items()]
    categories = [{"id": of, "name": name} for name, of in category.items()]
    coco.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    expected = focaldet.score(truth, task1).to_dict()
    for wanted, found in ((truth, ours), (coco, theirs), (coco, ours), (coco, task1)):
        scores = json.loads(command("score", wanted, found, "--json").out)
        assert {name: scores[name] for name in expected if name != "notes"} == {
            name: pytest.approx(value) if isinstance(value, float) else value
            for name, value in expected.items()
            if name != "notes"
        }
    assert "(COCO json): 3 pictures, 4 objects, 1 of them difficult" in command("score", coco, theirs).out


def test_tiles_are_merged_when_asked(command: Any, truth: Path, tmp_path: Path) -> None:
    """The ship of P1 lies in two tiles, one at half scale: it counts once."""
    folder = tmp_path / "tiles"
    folder.mkdir()
    (folder / "Task1_ship.txt").write_text(
        "P1__1__50___50 0.9 10 10 30 10 30 20 10 20\nP1__0.5__0___0 0.8 30 30 40 30 40 35 30 35\n"
    )
    exit_code, _, err = command("score", truth, folder)
    assert exit_code == 1
    assert "these are tiles of scenes" in err
    assert err.count("\n") == 1
    exit_code, out, _ = command("score", truth, folder, "--merge", "0.1")
    assert exit_code == 0
    assert "merged 2 detections of 2 tiles and pictures into 1 of 1 scenes, NMS at IoU > 0.1" in out
    assert focaldet.score(truth, folder, merge=0.1).classes["ship"]["AP50_voc12"] == 1.0
    without = tmp_path / "without"
    (folder / "Task1_ship.txt").rename(tmp_path / "Task1_ship.txt")
    without.mkdir()
    (without / "Task1_ship.txt").write_text((tmp_path / "Task1_ship.txt").read_text().replace("0.8 ", "0.99 "))
    assert (
        focaldet.score(truth, without, merge=1.0).classes["ship"]["AR"] == 1.0
    )  # both stay, the second is a false alarm


def test_some_pictures_and_classes_ignored(command: Any, truth: Path, task1: Path, tmp_path: Path) -> None:
    lines = tmp_path / "val.txt"
    lines.write_text("P1\n")
    exit_code, out, _ = command("score", truth, task1, "--pictures", lines)
    assert exit_code == 0
    assert "1 pictures, 2 objects" in out
    assert "left out: 3 detections of pictures that the truth does not have" in out
    document = json.loads(command("score", truth, task1, "--class-agnostic", "--json").out)
    assert set(document["classes"]) == {"object"}
    assert document["rule"].endswith("classes ignored")
    assert document["AR"] == pytest.approx(2 / 3)


def test_wrong_usage_and_wrong_files(command: Any, truth: Path, task1: Path, tiny_data: Path, tmp_path: Path) -> None:
    upright, results = tiny_data / "instances_val.json", tmp_path / "results.json"
    results.write_text("[]")
    for words, code, sentence in (
        ((truth, task1, "--merge", "2"), 2, "merge=2 should be an IoU"),
        ((upright, results, "--merge", "0.1"), 2, "hold upright boxes"),
        ((upright, task1, "--pictures", "x.txt"), 2, "names pictures of a label folder"),
        ((truth, tmp_path / "none"), 1, "none: cannot be read"),
        ((tmp_path / "none", task1), 1, "none: cannot be read"),
        ((task1.parent / "tiny", task1), 1, "cannot be read"),
        ((truth, truth), 1, "holds no Task1_CLASS.txt"),
        ((truth, upright), 1, "holds no list of detections"),
    ):
        exit_code, out, err = command("score", *words)
        assert (exit_code, out) == (code, ""), err
        assert sentence in err
        assert err.count("\n") == 1
    results.write_text('[{"image_id": 1, "category_id": 1, "score": 1, "bbox": [1, 2, 3, 4]}]')
    assert "know pictures by number" in command("score", truth, results).err
    with pytest.raises(UsageError):
        focaldet.score(upright, results, merge=0.1)


def test_empty_files_of_detections(command: Any, truth: Path, tmp_path: Path) -> None:
    (tmp_path / "none.json").write_text("[]")
    document = json.loads(command("score", truth, tmp_path / "none.json", "--json").out)
    assert document["AP50_voc07"] == document["AP"] == document["AR"] == 0.0


@pytest.mark.data
def test_real_labels_find_themselves(shared: Path, tmp_path: Path) -> None:
    """Difficult objects as false alarms would show, and a polygon that did not overlap itself."""
    folder = shared / "data" / "dota-samples"
    lines: dict[str, list[str]] = {}
    for path in sorted((folder / "labelTxt").glob("*.txt")):
        for line in path.read_text().splitlines():
            words = line.split()
            lines.setdefault(words[8], []).append(f"{path.stem} 0.5 {' '.join(words[:8])}\n")
    for name, some in lines.items():
        (tmp_path / f"Task1_{name}.txt").write_text("".join(some))
    scores = focaldet.score(folder, tmp_path)
    assert scores["AP50_voc07"] == scores["AP50_voc12"] == scores["AP"] == scores["AR"] == 1.0
