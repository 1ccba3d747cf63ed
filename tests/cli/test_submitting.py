"""The verb `submit`."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from focaldet.results.dota import DOTA_CLASSES

BOX = "10 10 30 10 30 20 10 20"


@pytest.fixture
def found(tmp_path: Path) -> Path:
    folder = tmp_path / "found"
    folder.mkdir()
    for name in DOTA_CLASSES["1.0"]:
        (folder / f"Task1_{name}.txt").write_text("")
    (folder / "Task1_ship.txt").write_text(f"P1 0.912345 {BOX}\nP2 0.5 {BOX}\n")
    return folder


def test_submit(command: Any, found: Path, tmp_path: Path) -> None:
    words = ["submit", found, "--output", tmp_path / "task1.zip"]
    exit_code, out, err = command(*words, "--json")
    document = json.loads(out)
    assert (exit_code, err) == (0, "")
    assert (document["detections"], document["pictures"], document["classes"]["ship"]) == (2, 2, 2)
    with zipfile.ZipFile(tmp_path / "task1.zip") as archive:
        assert archive.read("Task1_ship.txt").decode().startswith("P1 0.912 10.0 10.0 30.0")
    exit_code, _, err = command(*words)
    assert exit_code == 2 and "exists already; add --overwrite" in err
    assert "2 detections in 2 pictures: plane 0" in command(*words, "--overwrite").out


def test_tiles_are_merged(command: Any, found: Path, tmp_path: Path) -> None:
    moved = "3 10 23 10 23 20 3 20"
    (found / "Task1_ship.txt").write_text(f"P1__64__0___0 0.9 {BOX}\nP1__64__7___0 0.5 {moved}\n")
    words = ["submit", found, "-o", tmp_path / "task1.zip"]
    exit_code, _, err = command(*words)
    assert exit_code == 1 and "P1__64__0___0 is the name of a tile" in err
    assert not (tmp_path / "task1.zip").exists()
    for rule in ("0.1", "single-scale"):
        document = json.loads(command(*words, "--merge", rule, "--overwrite", "--json").out)
        assert (document["detections"], document["pictures"]) == (1, 1)
        assert "merged 2 detections of 2 tiles and pictures into 1 of 1 scenes" in document["notes"][0]


def test_a_detections_json(command: Any, tmp_path: Path) -> None:
    entry = {"image": "x/P1.png", "label": 0, "class": "ship", "score": 0.5, "box": [20, 15, 20, 10, 0.0]}
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "detections.json").write_text(json.dumps([entry]))
    words = ["submit", tmp_path / "found", "-o", tmp_path / "task1.zip"]
    assert "nothing is said of plane" in command(*words).err
    (tmp_path / "test.txt").write_text("P1\nP2\n")
    exit_code, out, _ = command(*words, "--allow-missing", "--pictures", tmp_path / "test.txt", "--dota", "1.5")
    assert exit_code == 0 and "1 detections in 1 pictures" in out and "container-crane 0" in out


def test_the_folder_that_predict_wrote(command: Any, found: Path, tmp_path: Path) -> None:
    """Its Task 1 files say which classes were looked for, and its json where things are."""
    found.rename(tmp_path / "task1")
    entry = {"image": "x/P1.png", "label": 0, "class": "ship", "score": 0.25, "box": [20, 15, 20, 10, 0.0]}
    (tmp_path / "detections.json").write_text(json.dumps([entry]))
    exit_code, out, _ = command("submit", tmp_path, "-o", tmp_path / "task1.zip")
    assert exit_code == 0 and "1 detections in 1 pictures" in out and "harbor 0" in out


def test_wrong_usage_and_wrong_files(command: Any, found: Path, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "P1.png").write_text("")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("")
    (tmp_path / "odd.json").write_text("{}")
    for words, code, sentence in (
        ((found, "--merge", "all"), 2, "merge='all' is neither an IoU nor one of single-scale"),
        ((found, "--merge", "2"), 2, "merge=2 should be an IoU"),
        ((found, "--pictures", tmp_path / "images"), 1, "detections in P2, which is not among the 1 pictures"),
        ((found, "--pictures", tmp_path / "no.txt"), 1, "no.txt: cannot be read as a list of pictures"),
        ((tmp_path / "run",), 1, "run holds a run, but no detections"),
        ((tmp_path / "odd.json",), 1, "holds no list of detections"),
        ((tmp_path / "no.json",), 1, "no.json does not exist; name a folder that `focaldet predict` wrote"),
    ):
        exit_code, out, err = command("submit", *words, "-o", tmp_path / "task1.zip")
        assert (exit_code, out) == (code, ""), err
        assert sentence in err and err.count("\n") == 1
    (found / "Task1_ship.txt").write_text(f"P1 0.9 {BOX} 5\n")
    assert "Task1_ship.txt:1 reads" in command("submit", found, "-o", tmp_path / "task1.zip").err
    (found / "Task1_ship.txt").unlink()
    assert "nothing is said of ship" in command("submit", found, "-o", tmp_path / "task1.zip").err
    assert not (tmp_path / "task1.zip").exists()
