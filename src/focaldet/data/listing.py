"""Which pictures there are: in folders, in text files, in what a data set calls its splits."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from focaldet.data.dataset import Dataset
from focaldet.data.paths import refuse_outside
from focaldet.errors import FocaldetError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
"""Files that count as pictures where a folder is listed."""

ALIASES = {"train": ("train", "training", "trainval"), "val": ("val", "valid", "validation", "test", "testing")}
"""What a split may be called, the best name first."""


class NoSplitError(FocaldetError):
    """The data set is there but does not have this split."""


def check_pictures(dataset: Dataset) -> Dataset:
    """Return the dataset if every picture of it exists.

    Each folder is listed once: 100,000 pictures take a fraction of a second.

    Raises:
        FocaldetError: pictures are missing; the sentence gives their number and names the first.
    """
    files: dict[str, set[str]] = defaultdict(set)
    missing = []
    for index in range(len(dataset)):
        place, name = os.path.split(dataset.name(index))
        if place not in files and (dataset.folder / place).is_dir():
            files[place] = set(os.listdir(dataset.folder / place))
        if name not in files[place]:
            missing.append(dataset.name(index))
    if missing:
        raise FocaldetError(
            f"{len(missing)} of the {len(dataset)} pictures of {dataset.source} do not exist in {dataset.folder}, "
            f"the first is {missing[0]}; add them or take them out of the file"
        )
    return dataset


def pictures_in(folder: Path) -> list[Path]:
    """Return every picture below a folder, sorted."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)


def by_stem(pictures: Iterable[Path]) -> dict[str, list[Path]]:
    """Return pictures by their names without suffix, by which label files belong to them."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in pictures:
        found[path.stem].append(path)
    return dict(found)


def with_own_names(pictures: Sequence[Path]) -> list[Path]:
    """Return the pictures if no two of them have one name up to the suffix; they would share a label file."""
    return [only_one(paths) for paths in by_stem(pictures).values()]


def only_one(paths: Sequence[Path]) -> Path:
    """Return the only picture of a name.

    Raises:
        FocaldetError: there are several.
    """
    if len(paths) > 1:
        raise FocaldetError(
            f"{paths[0]} and {paths[1]} are two pictures of the name {paths[0].stem!r}, by which labels are joined; "
            "rename or remove one"
        )
    return paths[0]


def listed_pictures(lines: Path, folders: Sequence[Path], roots: Sequence[Path]) -> list[Path]:
    """Return the pictures that a text file lists, a line each: paths relative to the text file, or stems.

    Args:
        lines: the text file; what follows a blank in a line is not looked at (VOC has a flag there).
        folders: where to look for stems.
        roots: the data set's own folders, in which a path that exists has to lie. One that does not exist is of another
            machine, and taken by its stem.

    Raises:
        FocaldetError: one of them does not exist, two pictures have its stem, or a path leaves the data set's folders.
    """
    entries = [(number, line.split(maxsplit=1)[0]) for number, line in enumerate(_lines(lines), 1) if line.strip()]
    there = by_stem(path for folder in folders if folder.is_dir() for path in pictures_in(folder))
    found = []
    for number, entry in entries:
        path = lines.parent / entry
        stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
        if path.suffix.lower() in SUFFIXES and path.is_file():
            refuse_outside([entry], lines.parent, roots, lambda _, line=number: f"line {line} of {lines}")  # type: ignore[misc]
            found.append(path)
        elif stem in there:
            found.append(only_one(there[stem]))
        else:
            raise FocaldetError(f"picture {entry} of {lines} does not exist in {', '.join(map(str, folders))}")
    return found


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FocaldetError(f"{path} cannot be read as a list of pictures: {error}") from error


def list_file(folders: Iterable[Path], split: str) -> Path | None:
    """Return the text file that lists a split's pictures, train.txt for instance; None where there is none."""
    paths = (folder / f"{alias}.txt" for alias in ALIASES[split] for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def class_list(root: Path) -> list[str] | None:
    """Return the names that a text file of the folder gives to the class numbers, a line each; None without one."""
    for name in ("classes.txt", "labels/classes.txt", "obj.names"):
        if (root / name).is_file():
            return [line.strip() for line in (root / name).read_text().splitlines() if line.strip()]
    return None
