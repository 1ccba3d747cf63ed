"""The verb `predict`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def test_predict_writes_answers_and_pictures(command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ["predict", tiny_run, tiny_data / "images", "-o", tmp_path / "found", "--score", "0", "--json"]
    document = json.loads(command(*words).out)
    assert (document["done"], document["failed"]) == (4, [])
    records = json.loads((tmp_path / "found" / "detections.json").read_text())
    assert {Path(record["image"]).name for record in records} == {"1.png", "2.png", "3.png", "4.png"}
    assert {record["class"] for record in records} <= {"red", "blue"}
    assert len(list((tmp_path / "found" / "drawn").iterdir())) == 4


def test_an_unreadable_picture_does_not_stop_the_others(
    command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    good = tiny_data / "images" / "1.png"
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    exit_code, out, err = command("predict", tiny_run, tmp_path / "bad.png", good, "-o", tmp_path / "found", "--json")
    assert exit_code == 1
    document = json.loads(out)
    assert document["done"] == 1
    (failed,) = document["failed"]
    assert failed["image"].endswith("bad.png")
    last = err.splitlines()[-1]
    assert last.startswith("focaldet: error: ")
    assert "bad.png" in last


def test_answers_are_not_overwritten(command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ["predict", tiny_run, tiny_data / "images" / "1.png", "-o", tmp_path, "--format", "json"]
    assert command(*words).exit_code == 0
    exit_code, _, err = command(*words)
    assert exit_code == 2
    assert "--overwrite" in err
    assert command(*words, "--overwrite").exit_code == 0


def test_formats(command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    words = ["predict", tiny_run, tiny_data / "images", "-o", tmp_path / "found", "--format", "coco,json", "score=0.0"]
    assert command(*words).exit_code == 0
    assert json.loads((tmp_path / "found" / "coco.json").read_text())
    assert not (tmp_path / "found" / "drawn").exists()


def test_a_dry_run_lists_the_pictures(command: Any, tiny_data: Path, tmp_path: Path) -> None:
    words = ["predict", "retinanet-small", tiny_data / "images" / "*.png", "-o", tmp_path / "found", "--dry-run"]
    assert len(json.loads(command(*words, "--json").out)["pictures"]) == 4
    assert "4 pictures" in command(*words).out
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["retinanet-smal", "1.png"], "did you mean 'retinanet-small'?"),
        (["retinanet-small", "nothing-*.png"], "nothing-*.png"),
        (["retinanet-small", "1.png", "--score", "2"], "--score"),
        (["retinanet-small", "1.png", "--format", "jsn"], "did you mean 'json'?"),
    ],
)
def test_wrong_usage(
    command: Any, tiny_data: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tiny_data / "images")
    exit_code, _, err = command("predict", *words, "-o", "found")
    assert exit_code == 2
    assert sentence in err
    assert err.count("\n") == 1
