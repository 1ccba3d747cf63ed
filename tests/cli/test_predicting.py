"""The verb `predict`."""

from __future__ import annotations

import json
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from focaldet.data import pictures


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


def test_looking_several_times(command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path) -> None:
    scores = []
    for words in ([], ["--tta"]):
        words = [*words, "--format", "json", "--score", "0", "--overwrite"]
        assert command("predict", tiny_run, tiny_data / "images" / "1.png", "-o", tmp_path, *words).exit_code == 0
        records = json.loads((tmp_path / "detections.json").read_text())
        scores.append(sum(record["score"] for record in records))
    assert scores[1] > scores[0]  # the best of six looks are at least as good, and some are better


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


def test_an_upright_run_looks_at_tiles_when_asked(command: Any, tiny_run: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (96, 200, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "scene.png")
    words = ["predict", tiny_run, tmp_path / "scene.png", "--format", "json", "score=0.01"]
    assert command(*words, "-o", tmp_path / "whole").exit_code == 0
    assert command(*words, "tile=64", "overlap=16", "-o", tmp_path / "tiles").exit_code == 0
    whole, tiled = (json.loads((tmp_path / name / "detections.json").read_text()) for name in ("whole", "tiles"))
    assert len(tiled) > len(whole)
    assert all(len(record["box"]) == 4 for record in tiled)


@pytest.mark.parametrize("verb", ["predict", "eval"])
def test_a_guard_against_giants_may_be_lifted(
    command: Any, tiny_run: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(pictures, "_limit", ContextVar("limit", default=6_000))  # each has 6,144 pixels
    words = [verb, tiny_run, tiny_data / "images" if verb == "predict" else tiny_data, "-o", tmp_path / "a.json"]
    exit_code, _, err = command(*words)
    assert exit_code == 1 and "add --any-size, where there is memory for it" in err
    assert command(*words, "--any-size", "--overwrite").exit_code == 0
