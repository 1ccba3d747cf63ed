"""Predicting on many pictures: none is lost to another one's fault, and a broken-off run goes on."""

from __future__ import annotations

import json
import shutil
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

import focaldet
from focaldet.data import pictures
from focaldet.engine.detector import Detector
from focaldet.engine.predict import drawn_names, find_pictures, predict_folder
from focaldet.errors import FocaldetError, UsageError
from focaldet.results import files
from focaldet.results.detections import read_detections


@pytest.fixture(scope="module")
def detector(unbroken: Any) -> Detector:
    return focaldet.load(unbroken[0].folder, score=0.0, max_detections=3)


@pytest.fixture
def seen(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Notes every picture that the detector looks at."""
    shapes: list[tuple[int, ...]] = []
    predict = type(detector).predict

    def watched(self: Any, what: Any, **options: Any) -> Any:
        shapes.append((what.height, what.width, len(what.getbands())))
        return predict(self, what, **options)

    monkeypatch.setattr(Detector, "predict", watched)
    return shapes


def answers(folder: Path) -> Any:
    return json.loads((folder / "detections.json").read_text())


def test_answers_are_those_of_predict(detector: Detector, data: Path, tmp_path: Path) -> None:
    summary = predict_folder(detector, [data / "images"], tmp_path / "found", formats=("json", "coco", "draw"))
    paths = sorted((data / "images").iterdir())
    assert (summary.done, summary.failed) == (4, [])
    found = read_detections(tmp_path / "found" / "detections.json", detector.classes)
    assert list(found) == [str(path) for path in paths]
    for path in paths:
        assert np.array_equal(found[str(path)].numpy().boxes, detector.predict(path).numpy().boxes)
        with PIL.Image.open(tmp_path / "found" / "drawn" / f"{path.stem}.jpg") as drawn:
            assert drawn.size == (96, 64)
    results = json.loads((tmp_path / "found" / "coco.json").read_text())
    listed = json.loads((tmp_path / "found" / "coco-images.json").read_text())
    assert [image["file_name"] for image in listed["images"]] == [str(path) for path in paths]
    x, y, w, h = results[0]["bbox"]
    assert [x, y, x + w, y + h] == pytest.approx(answers(tmp_path / "found")[0]["box"])
    assert {path.name for path in (tmp_path / "found").iterdir()} == {
        "detections.json", "coco.json", "coco-images.json", "drawn",
    }  # fmt: skip
    assert [path.name for path in summary.files] == ["detections.json", "coco.json", "coco-images.json", "drawn"]


def test_unreadable_pictures_are_listed_and_the_others_done(
    detector: Detector, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good, last = data / "images" / "1.png", data / "images" / "2.png"
    cut, text, missing, bomb = (tmp_path / name for name in ("cut.jpg", "text.jpg", "missing.jpg", "bomb.png"))
    with PIL.Image.open(good) as picture:
        picture.save(cut)
    cut.write_bytes(cut.read_bytes()[:-200])
    text.write_text("no picture")
    PIL.Image.new("RGB", (200, 200)).save(bomb)
    monkeypatch.setattr(pictures, "_limit", ContextVar("limit", default=30_000))
    summary = predict_folder(detector, [cut, good, missing, text, bomb, last], tmp_path / "found")
    assert summary.done == 2
    assert [Path(name) for name, _ in summary.failed] == [cut, missing, text, bomb]
    faults = ("is cut off", "does not exist", "is not a picture", "taken unasked")
    for (name, sentence), words in zip(summary.failed, faults, strict=True):
        assert words in sentence and name in sentence and "\n" not in sentence
    assert {Path(entry["image"]) for entry in answers(tmp_path / "found")} == {good, last}
    assert summary.to_dict()["failed"][0] == {"image": str(cut), "error": summary.failed[0][1]}


def test_a_broken_off_run_goes_on_where_it_was(
    detector: Detector, data: Path, tmp_path: Path, recorder: Any, seen: list[Any]
) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    predict_folder(detector, [data / "images"], whole)
    seen.clear()
    with pytest.raises(KeyboardInterrupt):
        predict_folder(detector, [data / "images"], parts, listener=recorder(stop_at=2, during="predicting"))
    journal = parts / "detections.jsonl"
    first, second = journal.read_text().splitlines(keepends=True)
    journal.write_text(first + second[: len(second) // 2])  # as if the machine had gone down while writing
    assert not (parts / "detections.json").exists()
    summary = predict_folder(detector, [data / "images"], parts, resume=True)
    assert (summary.done, len(seen)) == (4, 2 + 3)
    assert (parts / "detections.json").read_bytes() == (whole / "detections.json").read_bytes()
    assert {path.name for path in (parts / "drawn").iterdir()} == {path.name for path in (whole / "drawn").iterdir()}
    assert not journal.exists()


def test_a_line_that_was_cut_does_not_spoil_the_next(
    detector: Detector, data: Path, tmp_path: Path, recorder: Any
) -> None:
    """Broken off twice: the cut line must be gone before the next one is appended."""
    (tmp_path / "detections.jsonl").write_text('{"image": "x", "detec')
    listener = recorder(stop_at=1, during="predicting")
    with pytest.raises(KeyboardInterrupt):
        predict_folder(detector, [data / "images"], tmp_path, resume=True, formats=("json",), listener=listener)
    assert predict_folder(detector, [data / "images"], tmp_path, resume=True, formats=("json",)).done == 4
    assert len({entry["image"] for entry in answers(tmp_path)}) == 4


def test_without_resume_a_broken_off_run_begins_anew(
    detector: Detector, data: Path, tmp_path: Path, recorder: Any, seen: list[Any]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        predict_folder(detector, [data / "images"], tmp_path, listener=recorder(stop_at=2, during="predicting"))
    predict_folder(detector, [data / "images"], tmp_path, formats=("json",))
    assert len(seen) == 2 + 4


def test_finished_answers_are_replaced_only_when_told(
    detector: Detector, data: Path, tmp_path: Path, recorder: Any, seen: list[Any]
) -> None:
    one, four = [data / "images" / "1.png"], [data / "images"]
    predict_folder(detector, one, tmp_path, formats=("json",))
    before = (tmp_path / "detections.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(UsageError, match="holds detections already; add --overwrite to replace them"):
            predict_folder(detector, four, tmp_path, resume=resume)
    with pytest.raises(KeyboardInterrupt):
        listener = recorder(stop_at=2, during="predicting")
        predict_folder(detector, four, tmp_path, formats=("json",), overwrite=True, listener=listener)
    assert (tmp_path / "detections.json").read_bytes() == before
    seen.clear()
    predict_folder(detector, four, tmp_path, formats=("json",), resume=True)  # of the call that was told to overwrite
    assert len(seen) == 2
    assert len({entry["image"] for entry in answers(tmp_path)}) == 4


def test_a_full_disk_keeps_the_answers_before(
    detector: Detector, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict_folder(detector, [data / "images" / "1.png"], tmp_path, formats=("json",))
    before = (tmp_path / "detections.json").read_bytes()

    def full_disk(_: Any, mode: str, **rest: Any) -> Any:
        return open("/dev/full", mode, **rest)

    monkeypatch.setattr(files, "open", full_disk, raising=False)
    with pytest.raises(FocaldetError, match=r"cannot write .*detections\.json: .* is untouched; free some space"):
        predict_folder(detector, [data / "images"], tmp_path, formats=("json",), overwrite=True)
    assert (tmp_path / "detections.json").read_bytes() == before
    assert (tmp_path / "detections.jsonl").exists()  # nothing that was worked out is lost


def test_pictures_of_one_name_in_two_folders(detector: Detector, data: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(data / "images" / "1.png", tmp_path / folder / "same.png")
    shutil.copy(data / "images" / "2.png", tmp_path / "b" / "same-2.png")
    summary = predict_folder(detector, [tmp_path / "a", tmp_path / "b"], tmp_path / "found")
    assert summary.done == 3
    # in this order: a/same.png, b/same-2.png, b/same.png
    assert {path.name for path in (tmp_path / "found" / "drawn").iterdir()} == {"same.jpg", "same-2.jpg", "same-3.jpg"}
    assert len({entry["image"] for entry in answers(tmp_path / "found")}) == 3


def test_drawn_names_are_never_shared() -> None:
    paths = [Path(name) for name in ("a/x.png", "b/x.png", "x-2.png", "c/x.jpg", "x.gif", "y.png")]
    names = drawn_names(paths)
    assert [names[path] for path in paths] == ["x.jpg", "x-2.jpg", "x-2-2.jpg", "x-3.jpg", "x-4.jpg", "y.jpg"]


def test_pictures_of_four_channels_are_drawn_too(new_data: Any, tmp_path: Path) -> None:
    detector = focaldet.load("retinanet-small", classes=("a",), in_channels=4, test_size=(96, 64), score=0.0)
    data = new_data(pictures=1, mode="RGBA")
    assert predict_folder(detector, [data / "images"], tmp_path / "found").done == 1
    grey = focaldet.load("retinanet-small", classes=("a",), in_channels=1, test_size=(96, 64), score=0.0)
    assert predict_folder(grey, [data / "images"], tmp_path / "grey").done == 1
    (failed,) = predict_folder(detector, [new_data("rgb", pictures=1) / "images"], tmp_path / "rgb").failed
    assert "has 3 bands, but 4 are asked for (in_channels)" in failed[1]


def test_finding_pictures(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = data / "images"
    names = [folder / f"{number}.png" for number in range(1, 5)]
    assert find_pictures([folder]) == names
    assert find_pictures([folder / "[12].png", folder, "missing.jpg"]) == [*names, Path("missing.jpg")]  # each once
    (tmp_path / "odd[1].png").write_bytes(names[0].read_bytes())
    assert find_pictures([tmp_path / "odd[1].png"]) == [tmp_path / "odd[1].png"]  # a file before a pattern
    (tmp_path / "empty").mkdir()
    for nothing in (tmp_path / "empty", tmp_path / "*.jpg"):
        with pytest.raises(UsageError, match=r"holds no picture \(\.bmp, "):
            find_pictures([nothing])
