"""Small data sets made on the spot, in every format."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from focaldet.data.dataset import Dataset, Objects, build_dataset


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.fixture
def save_picture() -> Callable[..., Path]:
    def save(path: Path, height: int = 40, width: int = 60, seed: int = 0) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(height, width, seed=seed)).save(path)
        return path

    return save


@pytest.fixture
def coco_content() -> dict[str, Any]:
    """Three pictures (one without objects, one tall) with ids that have gaps, two classes."""
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 60, "height": 40},
            {"id": 3, "file_name": "b.png", "width": 40, "height": 60},
            {"id": 20, "file_name": "c.png", "width": 60, "height": 40},
        ],
        "annotations": [
            {"id": 5, "image_id": 3, "category_id": 9, "bbox": [1, 2, 10, 20], "area": 150.5, "iscrowd": 0},
            {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0.1, 0.2, 30.3, 20.4], "area": 600, "iscrowd": 0},
            {"id": 9, "image_id": 7, "category_id": 9, "bbox": [5, 5, 20, 20], "area": 300, "iscrowd": 1},
        ],
        "categories": [{"id": 9, "name": "cat"}, {"id": 4, "name": "dog"}],
    }


@pytest.fixture
def coco_folder(tmp_path: Path, coco_content: dict[str, Any], save_picture: Callable[..., Path]) -> Callable[..., Path]:
    """Writes the content (changed or not) as both splits of a folder."""

    def write(content: Any = coco_content, splits: tuple[str, ...] = ("train", "val")) -> Path:
        for seed, (name, height, width) in enumerate((("a.png", 40, 60), ("b.png", 60, 40), ("c.png", 40, 60))):
            save_picture(tmp_path / "images" / name, height, width, seed=seed)
        for split in splits:
            (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
        return tmp_path

    return write


@pytest.fixture
def saved_dataset(tmp_path: Path, save_picture: Callable[..., Path]) -> Dataset:
    """Nine pictures of mixed shapes, each with one object."""
    sizes = np.array([(40, 60), (60, 40), (40, 60), (40, 60), (60, 40), (48, 60), (40, 60), (64, 40), (50, 50)])
    names = [f"{k}.png" for k in range(len(sizes))]
    for seed, (name, (height, width)) in enumerate(zip(names, sizes.tolist(), strict=True)):
        save_picture(tmp_path / name, height, width, seed=seed)
    count = len(names)
    return build_dataset(
        classes=["thing"],
        format="coco",
        split="train",
        source=tmp_path / "made.json",
        folder=tmp_path,
        names=names,
        sizes=sizes,
        objects=Objects(
            pictures=np.arange(count),
            boxes=np.tile(np.array([[4.0, 6.0, 20.0, 16.0]]), (count, 1)),
            labels=np.zeros(count, dtype=np.int64),
        ),
    )
