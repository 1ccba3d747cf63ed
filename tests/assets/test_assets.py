from __future__ import annotations

import json
from pathlib import Path

import pytest

from focaldet.assets import FOLDER, asset_path
from focaldet.errors import FocaldetError

MIB = 2**20


def _files() -> list[Path]:
    return [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_what_ships_stays_small() -> None:
    sizes = {path: path.stat().st_size for path in _files()}
    assert sum(sizes.values()) < 25 * MIB
    assert max(sizes.values()) < 10 * MIB


@pytest.mark.parametrize(("split", "pictures", "boxes"), [("train", 205, 2804), ("val", 87, 1137)])
def test_every_picture_of_the_demo_is_there(split: str, pictures: int, boxes: int) -> None:
    content = json.loads(asset_path(f"bccd/instances_{split}.json").read_text())
    assert (len(content["images"]), len(content["annotations"])) == (pictures, boxes)
    stems = asset_path(f"bccd/{split}.txt").read_text().split()
    assert sorted(stems) == sorted(Path(image["file_name"]).stem for image in content["images"])
    assert all(asset_path(f"bccd/images/{image['file_name']}").is_file() for image in content["images"])


def test_the_splits_share_no_picture() -> None:
    train, val = (set(asset_path(f"bccd/{split}.txt").read_text().split()) for split in ("train", "val"))
    assert not train & val


def test_terms_lie_beside_the_data() -> None:
    assert "Copyright (c) 2017 shenggan" in asset_path("bccd/LICENSE").read_text()
    assert "MIT" in asset_path("bccd/README.md").read_text()


def test_a_missing_asset_is_one_sentence() -> None:
    with pytest.raises(
        FocaldetError, match=r"nonsense.bin is missing from this installation .* install focaldet again"
    ):
        asset_path("nonsense.bin")
