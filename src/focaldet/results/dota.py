"""DOTA's files of detections: class lists, Task 1 files, and what the names of tiles mean."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from focaldet.errors import FocaldetError
from focaldet.results.files import write_beside
from focaldet.results.tables import DetectionTable, Floats, number_names, picture_key

if TYPE_CHECKING:
    from focaldet.results.detections import Detections

_FIRST = (
    "plane",
    "baseball-diamond",
    "bridge",
    "ground-track-field",
    "small-vehicle",
    "large-vehicle",
    "ship",
    "tennis-court",
    "basketball-court",
    "storage-tank",
    "soccer-ball-field",
    "roundabout",
    "harbor",
    "swimming-pool",
    "helicopter",
)
DOTA_CLASSES: dict[str, tuple[str, ...]] = {
    "1.0": _FIRST,
    "1.5": (*_FIRST, "container-crane"),
    "2.0": (*_FIRST, "container-crane", "airport", "helipad"),
}
"""Classes of each version of DOTA, in the order of its devkit."""

TILE = re.compile(r"(?P<scene>.+)__(?P<rate>\d+(?:\.\d+)?)__(?P<x>\d+)___(?P<y>\d+)")
"""A tile's name; `place_of_tile` says what it means."""
LEAST_SIDE = 16
"""From this number on, what stands in a tile's name in place of the rate is the side of a window in pixels."""


def in_dota_order(names: Iterable[str]) -> tuple[str, ...]:
    """Return class names in the devkit's order, those that DOTA does not have after them by the alphabet.

    >>> in_dota_order(["ship", "crane", "plane"])
    ('plane', 'ship', 'crane')
    """
    place = {name: number for number, name in enumerate(DOTA_CLASSES["2.0"])}
    return tuple(sorted(names, key=lambda name: (place.get(name, len(place)), name)))


def is_tile(name: str) -> bool:
    """Tell whether a picture's name is that of a tile.

    >>> is_tile("P0003__0.5__0___824"), is_tile("P0003")
    (True, False)
    """
    return TILE.fullmatch(name) is not None


def task1_files(folder: Path) -> list[Path]:
    """Return the Task 1 files of a folder, Task1_plane.txt and so on, sorted."""
    return sorted(folder.glob("Task1_*.txt"))


def read_task1(folder: str | Path) -> DetectionTable:
    """Read a folder of Task 1 files: Task1_CLASS.txt with lines `picture score x1 y1 x2 y2 x3 y3 x4 y4`.

    Classes are the files', in the devkit's order. Detections come file by file, line by line.

    Raises:
        FocaldetError: there are no such files, or a line is not as above; the sentence names file and line.
    """
    folder = Path(folder)
    files = {path.stem.removeprefix("Task1_"): path for path in task1_files(folder)}
    if not files:
        raise FocaldetError(f"{folder} holds no Task1_CLASS.txt, such as Task1_plane.txt; name the folder that does")
    classes = in_dota_order(files)
    tables = [_read_task1_file(files[name]) for name in classes]
    names = [name for some, _ in tables for name in some]
    numbers = np.concatenate([some for _, some in tables])
    pictures, owners = number_names([picture_key(name) for name in names])
    return DetectionTable(
        pictures=pictures,
        classes=classes,
        polygons=numbers[:, 1:].reshape(-1, 4, 2),
        owners=owners,
        labels=np.repeat(np.arange(len(classes)), [len(some) for some, _ in tables]),
        scores=numbers[:, 0],
    )


def _read_task1_file(path: Path) -> tuple[list[str], Floats]:
    """Return the pictures of N detections, and score and corners (N, 9)."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as fault:
        raise FocaldetError(f"{path}: cannot be read as text ({fault})") from fault
    for number, words in enumerate(lines, 1):
        if len(words) not in (0, 10):
            raise _wrong_line(path, number, words)
    rows = [words for words in lines if words]
    try:
        numbers = np.array([[float(word) for word in words[1:]] for words in rows], dtype=np.float64).reshape(-1, 9)
        if np.isfinite(numbers).all():
            return [words[0] for words in rows], numbers
    except ValueError:
        pass
    raise next(_wrong_line(path, number, words) for number, words in enumerate(lines, 1) if not _are_finite(words[1:]))


def _are_finite(words: Sequence[str]) -> bool:
    try:
        return all(abs(float(word)) < float("inf") for word in words)
    except ValueError:
        return False


def _wrong_line(path: Path, number: int, words: Sequence[str]) -> FocaldetError:
    return FocaldetError(
        f"{path}:{number} reads {' '.join(words)[:80]!r}; expected are ten words, picture score x1 y1 x2 y2 x3 y3 x4 y4"
    )


def write_task1(folder: str | Path, many: Iterable[Detections], classes: Sequence[str]) -> list[Path]:
    """Write the detections of many pictures as Task 1 files, each whole or not at all.

    Scores have six digits and corners two, so that few scores become equal; other programs write three and one.

    Args:
        folder: where they go; files of these classes are replaced.
        many: each with the name of its picture; the files have the names without folder and suffix.
        classes: there is a file for each, empty where nothing was found, as the devkit and the server expect.

    Raises:
        FocaldetError: a picture has no name; or two have the same; or a class is not among `classes`.
    """
    lines: dict[str, list[str]] = {name: [] for name in classes}
    seen: set[str] = set()
    for found in many:
        key = picture_key(found.image or "")
        if not key or key in seen:
            raise FocaldetError(
                f"two pictures have the name {key!r} in Task 1 files" if key else "detections without a picture's name"
            )
        seen.add(key)
        for name, line in task1_lines(found, key):
            if name not in lines:
                raise FocaldetError(f"{key} has a {name}, which is not among the classes {', '.join(classes)}")
            lines[name].append(line)
    paths = [Path(folder) / f"Task1_{name}.txt" for name in lines]
    for path, some in zip(paths, lines.values(), strict=True):
        _write_lines(path, some)
    return paths


def replace_in_task1(folder: str | Path, found: Detections, stem: str) -> None:
    """Put the detections of one picture into a folder's Task 1 files, in place of what they have of that picture."""
    if not stem or len(stem.split()) != 1:
        raise FocaldetError(f"{stem!r} cannot be a picture's name in Task 1 files; give one word, such as P0003")
    lines: dict[str, list[str]] = {name: [] for name in found.classes}
    for name, line in task1_lines(found, stem):
        lines[name].append(line)
    for name, some in lines.items():
        path = Path(folder) / f"Task1_{name}.txt"
        there = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        _write_lines(path, [line for line in there if line.split(maxsplit=1)[:1] != [stem]] + some)


def task1_lines(found: Detections, stem: str) -> list[tuple[str, str]]:
    """Return (class, line) of each detection."""
    rows = zip(found.names, found.scores.tolist(), found.polygons.flatten(1).tolist(), strict=True)
    return [(name, f"{stem} {score:.6f} {' '.join(f'{c:.2f}' for c in corners)}") for name, score, corners in rows]


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    with write_beside(path, "w") as file:
        file.writelines(f"{line}\n" for line in lines)


def place_of_tile(name: str) -> tuple[str, tuple[float, float], float]:
    """Return a tile's scene, its upper left corner in the scene as cut, and by what that was scaled before.

    Two programs write such names. DOTA's devkit scales a scene by a rate, cuts it, and names SCENE__RATE__X___Y;
    mmrotate, and `focaldet tile`, cut windows of SIDE pixels from the scene as it is and name SCENE__SIDE__X___Y. A
    whole number from 16 on is a side: no scene is enlarged so much, and no window is so small.

    Raises:
        FocaldetError: the rate is 0.

    >>> place_of_tile("P0003__0.5__0___824"), place_of_tile("P0003__1024__0___824"), place_of_tile("P0003")
    (('P0003', (0.0, 824.0), 0.5), ('P0003', (0.0, 824.0), 1.0), ('P0003', (0.0, 0.0), 1.0))
    """
    tile = TILE.fullmatch(name)
    if tile is None:
        return name, (0.0, 0.0), 1.0
    rate = float(tile["rate"])
    if not rate:
        raise FocaldetError(f"the tile {name} was scaled by 0; name tiles SCENE__RATE__X___Y with a RATE above 0")
    return tile["scene"], (float(tile["x"]), float(tile["y"])), 1.0 if rate >= LEAST_SIDE else rate
