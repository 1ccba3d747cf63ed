"""The command line, called in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import PIL.Image
import pytest

from focaldet.cli.main import main


class Result(NamedTuple):
    exit_code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `focaldet` with some words; answers exit code, standard output and standard error."""

    def run(*words: object) -> Result:
        exit_code = main([str(word) for word in words])
        return Result(exit_code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures of 96 x 64 with a red and a blue box each, as COCO json, for training and validation alike."""
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "images").mkdir()
    images, annotations = [], []
    for number in range(1, 5):
        picture = PIL.Image.new("RGB", (96, 64), (90, 100, 110))
        boxes = [(8 + 4 * number, 10, 24, 20), (56, 20 + 4 * number, 20, 16)]  # x, y, w, h
        for category, ((x, y, w, h), color) in enumerate(zip(boxes, ((200, 30, 30), (30, 30, 200)), strict=True), 1):
            picture.paste(color, (x, y, x + w, y + h))
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": category, "iscrowd": 0}
            annotations.append(entry | {"bbox": [x, y, w, h], "area": w * h})
        picture.save(folder / "images" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "width": 96, "height": 64})
    categories = [{"id": 1, "name": "red"}, {"id": 2, "name": "blue"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """What makes a recipe small enough for `tiny_data`."""
    return ("epochs=1", "batch=2", "normalize_over=2", "sizes=[[96,64]]", "test_size=[96,64]", "augment=[]")


@pytest.fixture(scope="session")
def tiny_run(tiny_data: Path, tiny: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on `tiny_data`."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["train", "retinanet-small", str(tiny_data), "--output", str(folder), *tiny]) == 0
    return folder
