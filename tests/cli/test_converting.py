"""The verb `convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    Image.new("L", (64, 48)).save(folder / "images/a.png")
    (folder / "labelTxt/a.txt").write_text("1 2 21 2 21 12 1 12 ship 1\n")
    return folder


def test_convert(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answer = command("convert", source, tmp_path / "yolo", "--format", "yolo-obb")
    assert answer.exit_code == 0
    assert answer.out.splitlines() == [
        "train: difficult objects written like others: 1",
        f"{tmp_path}/yolo (yolo-obb): train: 1 pictures, 1 objects",
    ]
    assert (tmp_path / "yolo/labels/train/a.txt").read_text().startswith("0 0.015625 0.04166666667 ")
    again = command("convert", source, tmp_path / "yolo", "--format", "yolo")
    assert again.exit_code == 2
    assert "is there already; add --overwrite to replace it" in again.err
    as_json = command("convert", source, tmp_path / "yolo", "--format", "yolo", "--overwrite", "--link", "--json")
    document = json.loads(as_json.out)
    assert document["splits"] == {"train": {"pictures": 1, "objects": 1}}
    assert document["format"] == "yolo"


def test_convert_to_a_json(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answer = command("convert", source, tmp_path / "truth.json", "--split", "train", "--from", "dota")
    assert (answer.exit_code, answer.out) == (0, f"{tmp_path}/truth.json (coco): train: 1 pictures, 1 objects\n")
    (source / "labelTxt/a.txt").write_text("1 2 3 4 5 6 7 ship\n")
    broken = command("convert", source, tmp_path / "other", "--format", "coco")
    assert broken.exit_code == 1
    assert "a.txt:1 reads '1 2 3 4 5 6 7 ship'; expected is" in broken.err
    assert broken.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "truth.json"]
