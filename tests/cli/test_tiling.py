"""The verb `tile`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for part in ("images", "labelTxt"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for name in ("P1", "P2"):
        Image.fromarray(np.zeros((90, 120, 3), np.uint8)).save(tmp_path / "data" / "images" / f"{name}.png")
        (tmp_path / "data" / "labelTxt" / f"{name}.txt").write_text("5 5 15 5 15 15 5 15 plane 0\n")
    return tmp_path / "data"


def test_tile(command: Any, data: Path, tmp_path: Path) -> None:
    words = ["tile", data, "--output", tmp_path / "tiles", "--tile", "64", "--overlap", "16"]
    planned = json.loads(command(*words, "--dry-run", "--json").out)
    assert not (tmp_path / "tiles").exists()
    exit_code, out, err = command(*words, "--json")
    document = json.loads(out)
    assert (exit_code, document) == (0, planned)
    assert (document["scenes"], document["tiles"], document["objects"], document["copies"]) == (2, 12, 2, 2)
    assert document["cut"] | {"tile": 64, "overlap": 16, "owner": "share", "rates": [1.0]} == document["cut"]
    assert "cutting: 2/2" in err
    exit_code, _, err = command(*words)
    assert exit_code == 2 and "--resume" in err and "--overwrite" in err
    assert "2 pictures, 12 tiles" in command(*words, "--resume").out
    other = command(*words, "--pad", "none", "--resume")
    assert other.exit_code == 1 and "are of another cut: pad=[124, 116, 104] there and None asked for" in other.err
    assert command(*words, "--cut", "original", "--rates", "0.5,1", "--overwrite").exit_code == 0


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ("retinanet-h_r50d_1x_dota", {"tile": 600, "overlap": 150, "owner": "centre", "pad": None, "empty": False}),
        (
            "rotated_retinanet_obb_r50_fpn_1x_dota_le90",
            {"tile": 1024, "overlap": 200, "owner": "share", "min_share": 0.7, "pad": [124, 116, 104]},
        ),
        ("retinanet-h-small", {"tile": 640, "overlap": 160, "owner": "share"}),
    ],
)
def test_tiles_as_a_recipe_trains_on_them(
    command: Any, data: Path, tmp_path: Path, recipe: str, expected: dict[str, Any]
) -> None:
    words = ["tile", data, "--output", tmp_path / "tiles", "--like", recipe, "--dry-run", "--json"]
    cut = json.loads(command(*words).out)["cut"]
    assert cut | expected == cut
    assert json.loads(command(*words, "--tile", "700").out)["cut"] == cut | {"tile": 700}


def test_a_broken_picture_makes_the_exit_code_1(command: Any, data: Path, tmp_path: Path) -> None:
    path = data / "images" / "P1.png"
    path.write_bytes(path.read_bytes()[:70])
    exit_code, out, err = command("tile", data, "-o", tmp_path / "tiles", "--json")
    assert exit_code == 1
    assert json.loads(out)["failed"][0]["image"].endswith("P1.png")
    assert err.splitlines()[-1].startswith("focaldet: error: picture ") and "P1.png" in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--cut", "orignal"], 2, "did you mean 'original'?"),
        (["--cut", "original", "--like", "retinanet-h-small"], 2, "both say how to cut; leave out one"),
        (["--like", "retinanet-h-smal"], 2, "did you mean 'retinanet-h-small'?"),
        (["--like", "retinanet-small"], 2, "recipe retinanet-small has no tiles"),
        (["--rates", "1;2"], 2, "--rates '1;2' should be numbers with commas"),
        (["--pad", "1,2"], 2, "should be a colour of three whole numbers"),
        (["--tile", "100"], 1, "overlap=200 must lie between 0 and tile=100"),
    ],
)
def test_wrong_usage(command: Any, data: Path, tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    exit_code, _, err = command("tile", data, "-o", tmp_path / "tiles", *words)
    assert exit_code == code
    assert sentence in err and err.count("\n") == 1
    assert not (tmp_path / "tiles").exists()
