from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from focaldet.assets import FOLDER, asset_path
from focaldet.data.dataset import ANY_CLASS
from focaldet.data.formats import Split, open_dataset
from focaldet.data.pictures import read_picture
from focaldet.errors import FocaldetError


def _files() -> list[Path]:
    return [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_what_ships_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in _files()}
    assert sum(sizes.values()) < 25_000_000
    assert max(sizes.values()) < 10_000_000


@pytest.mark.parametrize(("split", "pictures", "boxes"), [("train", 205, 2804), ("val", 87, 1137)])
def test_every_picture_of_the_demo_is_there(split: str, pictures: int, boxes: int) -> None:
    content = json.loads(asset_path(f"bccd/instances_{split}.json").read_text())
    assert (len(content["images"]), len(content["annotations"])) == (pictures, boxes)
    stems = asset_path(f"bccd/{split}.txt").read_text().split()
    assert sorted(stems) == sorted(Path(image["file_name"]).stem for image in content["images"])
    assert all(asset_path(f"bccd/images/{image['file_name']}").is_file() for image in content["images"])


@pytest.mark.parametrize(
    ("split", "pictures", "counts"), [("train", 204, (1038, 379, 72, 11, 12)), ("val", 56, (113, 248, 163, 4, 2))]
)
def test_every_frame_of_the_rotated_demo_is_there(split: Split, pictures: int, counts: tuple[int, ...]) -> None:
    dataset = open_dataset(asset_path("hit_uav"), split, kind="rbox")
    assert (dataset.format, dataset.kind, len(dataset)) == ("dota", "rbox", pictures)
    assert dataset.classes == ("Person", "Car", "Bicycle", "OtherVehicle")
    labels = dataset.labels.tolist()
    assert tuple(labels.count(label) for label in (0, 1, 2, 3, ANY_CLASS)) == counts
    assert (dataset.sizes == (512, 640)).all()
    assert dataset.left_out == ()
    assert f"| {split} | {pictures} | {' | '.join(map(str, counts))} |" in asset_path("hit_uav/README.md").read_text()


@pytest.mark.data
def test_frames_are_evenly_spaced_in_those_of_the_shared_folder(shared: Path) -> None:
    source = shared / "data/hit-uav"
    for split in ("train", "val"):
        stems, taken = ((folder / f"{split}.txt").read_text().split() for folder in (source, asset_path("hit_uav")))
        places = np.array([stems.index(stem) for stem in taken])
        assert set(np.diff(places)) <= {len(stems) // len(taken), len(stems) // len(taken) + 1}
        for stem in taken[::20]:
            ours, theirs = (folder / f"labelTxt/{stem}.txt" for folder in (asset_path("hit_uav"), source))
            assert ours.read_bytes() == theirs.read_bytes()
            pixels = [
                read_picture(folder / f"images/{stem}.jpg", 1).astype(int) for folder in (asset_path("hit_uav"), source)
            ]
            assert np.abs(pixels[0] - pixels[1]).mean() < 4  # grey levels, of JPEG at quality 80


@pytest.mark.parametrize("name", ["bccd", "hit_uav"])
def test_the_splits_share_no_picture(name: str) -> None:
    train, val = (set(asset_path(f"{name}/{split}.txt").read_text().split()) for split in ("train", "val"))
    assert not train & val


def test_terms_lie_beside_the_data() -> None:
    assert "Copyright (c) 2017 shenggan" in asset_path("bccd/LICENSE").read_text()
    assert "MIT" in asset_path("bccd/README.md").read_text()
    assert "creativecommons.org/licenses/by/4.0" in asset_path("hit_uav/LICENSE").read_text()
    assert "**Changes:**" in asset_path("hit_uav/README.md").read_text()


def test_a_missing_asset_is_one_sentence() -> None:
    with pytest.raises(
        FocaldetError, match=r"nonsense.bin is missing from this installation .* install focaldet again"
    ):
        asset_path("nonsense.bin")
