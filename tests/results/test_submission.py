"""The zip for DOTA's server."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.errors import FocaldetError
from focaldet.results.dota import DOTA_CLASSES, read_task1
from focaldet.results.submission import find_version, write_submission
from focaldet.results.tables import DetectionTable

CORNERS = np.array([[10.04, 20], [30.06, 20], [30, 40.96], [-0.01, 40]])


def table(classes: tuple[str, ...] = DOTA_CLASSES["1.0"], pictures: tuple[str, ...] = ("P0003", "P0004")) -> Any:
    """A plane in each of two pictures and a helicopter in one."""
    return DetectionTable(
        pictures=pictures,
        classes=classes,
        polygons=np.stack([CORNERS, CORNERS + 100, CORNERS]),
        owners=np.array([0, 1, 1]),
        labels=np.array([0, 0, len(classes) - 1]),
        scores=np.array([0.98765, 1.0, 0.0004]),
    )


def test_the_zip(tmp_path: Path) -> None:
    counts = write_submission(tmp_path / "new" / "task1.zip", table())
    assert list(counts) == list(DOTA_CLASSES["1.0"])
    assert {name: count for name, count in counts.items() if count} == {"plane": 2, "helicopter": 1}
    with zipfile.ZipFile(tmp_path / "new" / "task1.zip") as archive:
        assert archive.namelist() == [f"Task1_{name}.txt" for name in DOTA_CLASSES["1.0"]]  # flat
        assert archive.read("Task1_plane.txt").decode() == (
            "P0003 0.988 10.0 20.0 30.1 20.0 30.0 41.0 0.0 40.0\n"
            "P0004 1.000 110.0 120.0 130.1 120.0 130.0 141.0 100.0 140.0\n"
        )
        assert archive.read("Task1_ship.txt") == b""
        archive.extractall(tmp_path / "out")
    assert len(read_task1(tmp_path / "out")) == 3
    assert len(list((tmp_path / "new").iterdir())) == 1


def test_the_same_detections_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.zip", "b.zip"):
        write_submission(tmp_path / name, table())
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_versions() -> None:
    assert [find_version(classes) for classes in DOTA_CLASSES.values()] == ["1.0", "1.5", "2.0"]
    assert find_version([]) == "1.0"


def test_missing_classes_may_be_allowed(tmp_path: Path) -> None:
    counts = write_submission(tmp_path / "a.zip", table(("plane", "airport")), allow_missing=True)
    assert len(counts) == 18 and counts["airport"] == 1


@pytest.mark.parametrize(
    ("given", "flags", "sentence"),
    [
        (
            table(("plane", "ship")),
            {},
            "nothing is said of baseball-diamond, .*, of the 15 classes of DOTA 1.0",
        ),
        (table(DOTA_CLASSES["1.0"]), {"version": "1.5"}, "nothing is said of container-crane, of the 16 classes"),
        (table((*DOTA_CLASSES["1.0"], "airplane")), {}, "'airplane' is no class of DOTA .did you mean 'plane'.."),
        (table(DOTA_CLASSES["2.0"]), {"version": "1.0"}, "'container-crane' is no class of DOTA 1.0"),
        (table(), {"version": "3.0"}, "there is no DOTA 3.0; give one of 1.0, 1.5, 2.0"),
        (table(), {"pictures": ["P0003", "P0005"]}, "detections in P0004, which is not among the 2 pictures"),
        (table(pictures=("P1__1024__0___0", "P2")), {}, "P1__1024__0___0 is the name of a tile.*merge tiles first"),
        (table(pictures=("P 1", "P2")), {}, "'P 1' cannot be a picture's name"),
        (replace(table(), scores=np.array([0.5, 1.5, 0])), {}, "a detection in P0004 has the score 1.5"),
        (replace(table(), scores=np.array([np.nan, 1, 0])), {}, "a detection in P0003 has the score nan"),
    ],
)
def test_what_the_server_would_not_take(tmp_path: Path, given: Any, flags: dict[str, Any], sentence: str) -> None:
    (tmp_path / "task1.zip").write_bytes(b"before")
    with pytest.raises(FocaldetError, match=sentence) as it:
        write_submission(tmp_path / "task1.zip", given, **flags)
    assert "\n" not in str(it.value)
    assert (tmp_path / "task1.zip").read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1
