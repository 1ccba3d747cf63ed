"""Tiny data and tiny runs, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
import pytest

import focaldet
from focaldet.engine.progress import Quiet
from focaldet.engine.run import Run

COLOURS = {"red": (200, 30, 30), "blue": (30, 30, 200), "green": (30, 160, 30)}
WriteData = Callable[..., Path]


class Recorder(Quiet):
    """Keeps what a listener is told; may be made to press Ctrl-C.

    Args:
        stop_at: number of the advance, counted from 1 over tasks whose name has `during` in it, that is interrupted.
        during: which tasks count.
    """

    def __init__(self, stop_at: int | None = None, during: str = "epoch") -> None:
        self.lines: list[str] = []
        self.tasks: list[str] = []
        self.figures: list[dict[str, float]] = []
        self.stop_at, self.during, self.advances = stop_at, during, 0

    def start(self, total: int | None, what: str) -> None:
        self.tasks.append(what)

    def advance(self, n: int = 1, **figures: float) -> None:
        if figures:
            self.figures.append(figures)
        if self.during in self.tasks[-1]:
            self.advances += 1
            if self.advances == self.stop_at:
                raise KeyboardInterrupt

    def message(self, text: str) -> None:
        self.lines.append(text)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def recorder() -> type[Recorder]:
    return Recorder


def write_data(folder: Path, classes: Sequence[str] = ("red", "blue"), pictures: int = 4, mode: str = "RGB") -> Path:
    """Pictures of 96 x 64 with a box of each class, as COCO json, for training and validation alike.

    Category ids count down from 30, picture ids up from 11, so that nobody can take one for a label or an index.
    """
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(1, pictures + 1):
        picture = PIL.Image.new("RGB", (96, 64), (90, 100, 110))
        for place, name in enumerate(classes):
            x, y, w, h = 2 + 32 * place + 2 * number, 8 + 6 * number, 24, 20
            picture.paste(COLOURS[name], (x, y, x + w, y + h))
            entry = {"id": len(annotations) + 1, "image_id": 10 + number, "category_id": 30 - place, "iscrowd": 0}
            annotations.append(entry | {"bbox": [x, y, w, h], "area": w * h})
        picture.convert(mode).save(folder / "images" / f"{number}.png")
        images.append({"id": 10 + number, "file_name": f"{number}.png", "width": 96, "height": 64})
    categories = [{"id": 30 - place, "name": name} for place, name in enumerate(classes)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(document))
    return folder


@pytest.fixture
def new_data(tmp_path: Path) -> WriteData:
    """Writes data of other classes, numbers or modes."""

    def write(name: str = "other", **options: Any) -> Path:
        return write_data(tmp_path / name, **options)

    return write


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data") / "tiny")


@pytest.fixture(scope="session")
def tiny() -> dict[str, Any]:
    """What makes the small recipe small enough: two steps an epoch, two epochs."""
    return {"epochs": 2, "batch": 2, "normalize_over": 2, "sizes": ((96, 64),), "test_size": (96, 64)}


@pytest.fixture(scope="session")
def unbroken(data: Path, tiny: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Recorder]:
    """A run of two epochs on `data`, and what it said."""
    listener = Recorder()
    folder = tmp_path_factory.mktemp("runs") / "unbroken"
    return focaldet.train("retinanet-small", data, folder, listener=listener, **tiny), listener
