from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from focaldet.data.dataset import Dataset, Objects, build_dataset
from focaldet.metrics.coco import coco_scores
from focaldet.metrics.scores import Scores
from focaldet.results.coco import to_coco_results
from focaldet.results.detections import Detections

CLASSES = ("cat", "<b>dog</b> & co")
"""The second name would break a page that does not escape it."""
BOXES = ((10.0, 10, 30, 20), (60.0, 40, 30, 30), (5.0, 5, 20, 20))
"""x, y, width, height: two objects on the first picture, one on the second, none on the third."""


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Three pictures, the last one without objects."""
    names = ["a.jpg", 'b"<i>.jpg', "c.jpg"]
    for number, name in enumerate(names):
        PIL.Image.new("RGB", (120, 90), (60 * number, 90, 120)).save(tmp_path / name)
    objects = Objects(np.array([0, 0, 1]), np.array(BOXES), np.array([0, 1, 0]))
    return build_dataset(
        classes=CLASSES, format="coco", split="val", source=tmp_path / "instances_val.json", folder=tmp_path,
        names=names, sizes=np.array([[90, 120]] * 3), objects=objects,
    )  # fmt: skip


def detections_of(*rows: tuple[float, float, float, float, float, int]) -> Detections:
    """Return detections of (x1, y1, x2, y2, score, label)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 4], table[:, 5].long(), CLASSES)


@pytest.fixture
def detections() -> list[Detections]:
    """A hit of 0.9, a false alarm of 0.6 (right place, wrong class); a hit of 0.3; a false alarm of 0.2."""
    return [
        detections_of((10, 10, 40, 30, 0.9, 0), (60, 40, 90, 70, 0.6, 0)),
        detections_of((5, 5, 25, 26, 0.3, 0)),
        detections_of((50, 50, 80, 80, 0.2, 1)),
    ]


@pytest.fixture
def no_detections() -> list[Detections]:
    return [detections_of() for _ in range(3)]


@pytest.fixture
def scores(dataset: Dataset, detections: list[Detections]) -> Scores:
    ids = dataset.category_ids.tolist()
    results = [
        entry
        for image_id, found in zip(dataset.ids.tolist(), detections, strict=True)
        for entry in to_coco_results(found, image_id, ids)
    ]
    return coco_scores(dataset.to_coco(), results)
