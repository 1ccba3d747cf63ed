"""Recognize a data set by what lies in its folder, and open one of its splits."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from focaldet.data.coco import read_coco
from focaldet.data.dataset import FORMAT_NAMES, Dataset
from focaldet.data.voc import read_voc
from focaldet.data.yolo import read_yolo
from focaldet.errors import FocaldetError, UsageError, did_you_mean

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})
"""Files that count as pictures where a folder is listed."""

ALIASES = {"train": ("train", "training", "trainval"), "val": ("val", "valid", "validation", "test", "testing")}
"""What a split may be called, the best name first."""


class NoSplitError(FocaldetError):
    """The data set is there but does not have this split."""


def open_folder(root: Path, split: str, format: str | None = None) -> Dataset:
    """Open a split of a folder.

    Args:
        root: the folder.
        split: "train" or "val".
        format: decides where several formats fit.

    Raises:
        NoSplitError: it has a format that is known, but not this split.
        FocaldetError: it has no format that is known, or several.
    """
    if format is not None and format not in FINDERS:
        raise UsageError(f"format={format!r} is not known{did_you_mean(format, FINDERS)}; use {', '.join(FINDERS)}")
    fitting = {name: find for name, find in FINDERS.items() if format in (None, name)}
    found = {name: opener for name, find in fitting.items() if (opener := find(root, split)) is not None}
    if len(found) > 1:
        names = " and ".join(FORMAT_NAMES[name] for name in found)
        raise FocaldetError(
            f"{root} holds {names}; say which one counts by a data.yaml with a line such as 'format: {min(found)}'"
        )
    if not found:
        _complain(root, split, fitting)
    (opener,) = found.values()
    return check_pictures(opener())


def open_coco(path: Path, split: str, stems: set[str] | None = None) -> Dataset:
    """Open a COCO json and find its pictures.

    Args:
        path: the json.
        split: "train" or "val".
        stems: the pictures of the split, where the json holds more; None takes all.
    """
    dataset = read_coco(path, split)
    if stems is not None:
        dataset = dataset.select([k for k in range(len(dataset)) if Path(dataset.name(k)).stem in stems])
    return dataset


def open_yolo(pictures: Sequence[Path], classes: Sequence[str], split: str, source: Path) -> Dataset:
    """Open pictures with YOLO labels; none at all is an error."""
    if not pictures:
        raise FocaldetError(f"{source} has no pictures for {split}")
    return read_yolo(pictures, classes, split, source)


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


def listed_pictures(lines: Path, folders: Sequence[Path]) -> list[Path]:
    """Return the pictures that a text file lists, a line each: paths relative to the text file, or stems.

    Args:
        lines: the text file; what follows a blank in a line is not looked at (VOC has a flag there).
        folders: where to look for stems.

    Raises:
        FocaldetError: one of them does not exist.
    """
    entries = [line.split(maxsplit=1)[0] for line in lines.read_text().splitlines() if line.strip()]
    by_stem = {path.stem: path for folder in folders if folder.is_dir() for path in pictures_in(folder)}
    found = []
    for entry in entries:
        path = lines.parent / entry
        stem = path.stem if path.suffix.lower() in SUFFIXES else path.name
        if path.suffix.lower() in SUFFIXES and path.is_file():
            found.append(path)
        elif stem in by_stem:
            found.append(by_stem[stem])
        else:
            raise FocaldetError(f"picture {entry} of {lines} does not exist in {', '.join(map(str, folders))}")
    return found


def yolo_classes(root: Path) -> list[str] | None:
    """Return the names that a text file of the folder gives to the class numbers, a line each; None without one."""
    for name in ("classes.txt", "labels/classes.txt", "obj.names"):
        if (root / name).is_file():
            return [line.strip() for line in (root / name).read_text().splitlines() if line.strip()]
    return None


Opener = Callable[[], Dataset]


def _find_coco(root: Path, split: str) -> Opener | None:
    for alias in ALIASES[split]:
        paths = _jsons_of(root, alias)
        if len(paths) > 1:
            shown = " and ".join(path.name for path in paths)
            raise FocaldetError(f"{root} holds {shown} for {split}; name one by 'train:' and 'val:' in a data.yaml")
        if paths:
            return lambda: open_coco(paths[0], split)
    stems, whole = _listed_stems(root, split), _jsons_without_split(root)
    if stems is not None and len(whole) == 1:
        return lambda: open_coco(whole[0], split, stems)
    return None


def _jsons(root: Path) -> list[Path]:
    return sorted([*root.glob("*.json"), *root.glob("annotations/*.json")])


def _jsons_of(root: Path, alias: str) -> list[Path]:
    """Return the jsons whose name has the alias as a word, those called instances_* before others."""
    word = re.compile(rf"(^|[_.-]){alias}(20\d\d)?([_.-]|$)")
    paths = [path for path in _jsons(root) if word.search(path.stem)]
    instances = [path for path in paths if path.stem.startswith("instances")]
    return instances or paths or sorted(root.glob(f"{alias}/_annotations.coco.json"))


def _jsons_without_split(root: Path) -> list[Path]:
    aliased = {path for names in ALIASES.values() for alias in names for path in _jsons_of(root, alias)}
    return [path for path in _jsons(root) if path not in aliased]


def _listed_stems(root: Path, split: str) -> set[str] | None:
    path = root / f"{split}.txt"
    return (
        {Path(line.strip()).stem for line in path.read_text().splitlines() if line.strip()} if path.is_file() else None
    )


def _find_yolo(root: Path, split: str) -> Opener | None:
    pictures = _yolo_pictures(root, split)
    if pictures is None:
        return None

    def opener() -> Dataset:
        classes = yolo_classes(root)
        if classes is None:
            raise FocaldetError(
                f"nothing in {root} names the class numbers of its labels; add a classes.txt, a name a line"
            )
        return open_yolo(pictures(), classes, split, root)

    return opener


def _yolo_pictures(root: Path, split: str) -> Callable[[], list[Path]] | None:
    """Return what lists the pictures of a split, None where the folder is not laid out for YOLO or lacks the split."""
    for alias in ALIASES[split]:
        for tail, labels in ((f"images/{alias}", f"labels/{alias}"), (f"{alias}/images", f"{alias}/labels")):
            if (root / labels).is_dir() and (root / tail).is_dir():
                return lambda tail=tail: pictures_in(root / tail)  # type: ignore[misc]
    if (root / "labels").is_dir() and (root / f"{split}.txt").is_file():
        return lambda: listed_pictures(root / f"{split}.txt", [root / "images"])
    return None


def _find_voc(root: Path, split: str) -> Opener | None:
    if not (root / "Annotations").is_dir():
        return None
    for alias in ALIASES[split]:
        for lines in (root / f"ImageSets/Main/{alias}.txt", root / f"{alias}.txt"):
            if lines.is_file():
                folders = [root / "JPEGImages", root / "images"]
                return lambda lines=lines: read_voc(listed_pictures(lines, folders), root, split)  # type: ignore[misc]
    return None


FINDERS: dict[str, Callable[[Path, str], Opener | None]] = {"coco": _find_coco, "yolo": _find_yolo, "voc": _find_voc}


def _complain(root: Path, split: str, finders: dict[str, Callable[[Path, str], Opener | None]]) -> None:
    other = "val" if split == "train" else "train"
    if any(find(root, other) is not None for find in finders.values()):
        raise NoSplitError(
            f"{root} has a {other} split but no {split} split; name its pictures in a {split}.txt or a data.yaml"
        )
    raise FocaldetError(
        f"{root} is no data set of a known format for {split}: expected instances_{split}.json with images/ (COCO), "
        f"labels/ with images/ (YOLO) or Annotations/ with JPEGImages/ (VOC), the last two with {split}.txt"
    )
