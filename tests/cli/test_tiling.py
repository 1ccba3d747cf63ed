"""The verb `tile`."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from focaldet.data import pictures


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
    assert f"nothing is written to {tmp_path / 'tiles'}: 2 pictures, 12 tiles" in command(*words, "--dry-run").out
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
    assert not [*(tmp_path / "tiles").rglob("*P1__*")] and len([*(tmp_path / "tiles").rglob("*P2__*")]) == 2
    again = command("tile", data, "-o", tmp_path / "tiles", "--resume")
    assert again.exit_code == 1 and "1 pictures could not be cut; mend them and add --resume" in again.out
    assert err.splitlines()[-1].startswith("focaldet: error: picture ") and "P1.png" in err.splitlines()[-1]


def spoil_a_line(data: Path) -> None:
    (data / "labelTxt" / "P2.txt").write_text("5 5 15 5 15 15 5 plane 0\n")


def name_other_classes(data: Path) -> None:
    (data / "classes.txt").write_text("ship\nplain\n")


def double_a_name(data: Path) -> None:
    Image.open(data / "images" / "P2.png").save(data / "images" / "P2.tif")


def cut_the_header_off(data: Path) -> None:
    (data / "images" / "P2.png").write_bytes((data / "images" / "P2.png").read_bytes()[:20])


def lose_labels(data: Path) -> None:
    (data / "labelTxt" / "P2.txt").unlink()


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (spoil_a_line, "P2.txt:1 reads '5 5 15 5 15 15 5 plane 0'; expected is x1 y1 x2 y2 x3 y3 x4 y4 class"),
        (name_other_classes, "P1.txt:1 is of class 'plane', which the class list lacks (did you mean 'plain'?): ship"),
        (double_a_name, "P2.tif are two pictures of the name 'P2', by which labels are joined; rename or remove one"),
        (cut_the_header_off, "P2.png is cut off (Truncated File Read); copy or download it again"),
        (lose_labels, "the first is P2.png; an empty file stands for a picture without objects"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    command: Any, data: Path, tmp_path: Path, spoil: Callable[[Path], None], sentence: str
) -> None:
    spoil(data)
    exit_code, out, err = command("tile", data, "-o", tmp_path / "tiles")
    assert (exit_code, out) == (1, "")
    assert err.startswith("focaldet: error: ") and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "tiles").exists()


def test_coordinates_outside_are_counted(command: Any, data: Path, tmp_path: Path) -> None:
    """Wholly outside it is lost to all tiles; partly outside it is kept as it is."""
    (data / "labelTxt" / "P2.txt").write_text(
        "-50 5 -40 5 -40 15 -50 15 ship 0\n110.5 5 125 5 125 15 110.5 15 ship 0\n"
    )
    exit_code, out, _ = command("tile", data, "-o", tmp_path / "tiles", "--min-share", "0.5")
    assert exit_code == 0
    assert "3 objects, 2 times in tiles; in no tile: 1 (ship 1)" in out
    assert "kept: objects that reach out of their picture: 2 (the first: " in out and "P2.txt:1)" in out
    assert (tmp_path / "tiles" / "labelTxt" / "P2__1024__0___0.txt").read_text().startswith("110.5 5 125 5 ")


def test_a_guard_against_giants_may_be_lifted(
    command: Any, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "_limit", ContextVar("limit", default=10_000))  # each has 10,800 pixels
    words = ["tile", data, "-o", tmp_path / "tiles", "--workers", "0"]
    exit_code, _, err = command(*words)
    assert exit_code == 1 and "add --any-size, where there is memory for it" in err
    assert not (tmp_path / "tiles").exists()
    assert command(*words, "--any-size").exit_code == 0


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
