"""The small recipe learns: it overfits two real pictures, and its files allow to go on and to predict."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

import focaldet
from focaldet.engine.train import train


def two_pictures(source: Path, folder: Path) -> Path:
    """Two training pictures of coco-mini with few objects, as training and validation data alike."""
    data = json.loads((source / "instances_train.json").read_text())
    counts = {image["id"]: 0 for image in data["images"]}
    for annotation in data["annotations"]:
        counts[annotation["image_id"]] += 1
    crowded = {annotation["image_id"] for annotation in data["annotations"] if annotation["iscrowd"]}
    chosen = sorted(number for number, count in counts.items() if 3 <= count <= 5 and number not in crowded)[:2]
    data["images"] = [image for image in data["images"] if image["id"] in chosen]
    data["annotations"] = [annotation for annotation in data["annotations"] if annotation["image_id"] in chosen]
    named = {annotation["category_id"] for annotation in data["annotations"]}
    data["categories"] = [category for category in data["categories"] if category["id"] in named]
    (folder / "images").mkdir(parents=True)
    for image in data["images"]:
        (folder / "images" / image["file_name"]).symlink_to(source / "images" / image["file_name"])
    for split in ("train", "val"):
        (folder / f"instances_{split}.json").write_text(json.dumps(data))
    return folder


@pytest.mark.data
def test_the_small_recipe_overfits_two_pictures(shared: Path, tmp_path: Path) -> None:
    data = two_pictures(shared / "data" / "coco-mini", tmp_path / "data")
    started = time.process_time()
    run = train(
        "retinanet-small",
        data,
        tmp_path / "run",
        epochs=1,
        images_per_epoch=160,
        batch=2,
        normalize_over=2,
        augment=(),
    )
    assert run.scores is not None
    assert (run.scores["AP50"] or 0) >= 0.95
    assert time.process_time() - started < 60  # the promise is CPU time, which a busy machine does not stretch

    detector = focaldet.load(run.folder)
    found = detector.predict(sorted((data / "images").iterdir()), score=0.5)
    assert all(len(each) >= 1 for each in found)
    assert set(detector.classes) == set(run.recipe.classes)
