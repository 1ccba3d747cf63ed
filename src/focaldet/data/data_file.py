"""data.yaml: where the splits of a data set are and what its classes are called.

Ours has `train`, `val`, `classes`, `format` and `ignored`; the YOLO world's has `path`, `train`, `val` and `names`.
Both are read, mixed as well; keys that are not known are passed over, as other programs have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from focaldet.data.dataset import Dataset, Kind
from focaldet.data.folders import open_coco, open_folder, open_yolo
from focaldet.data.listing import NoSplitError, check_pictures, class_list, listed_pictures, pictures_in
from focaldet.data.paths import is_inside
from focaldet.errors import FocaldetError

YOLO_FORMATS = (None, "yolo", "yolo-obb")
OTHER_LABELS = ("labelTxt", "Annotations", "gt")
"""Folders in which other formats have their labels."""


def open_data_file(
    path: Path, split: str, format: str | None = None, kind: Kind | None = None, *, with_ignored: bool = True
) -> Dataset:
    """Open a split as a data.yaml describes it.

    * `train`, `val`: a folder, a COCO json, or a text file that lists pictures; relative to `path` or to the file.
      Several of them, in brackets, can only be YOLO's. Without both, the file's own folder is looked into.
    * What these name may lie anywhere; it is said where it is outside of the file's folder. What the lists and jsons
      name in turn has to lie in one of these folders (`data.paths`).
    * `names`: the classes of YOLO labels by number, and all that other label files may name. `classes`: the classes
      that count, in their order; for YOLO labels without `names` they are the names.
    * `ignored`: classes whose objects are neither to be found nor background; `with_ignored` says whether they become
      that, or stay classes like others.

    Raises:
        NoSplitError: the file does not have this split.
        FocaldetError: it is no such file, or what it names is not there.
    """
    content = _load(path)
    format = format or content.get("format")
    names = _names(content, path)
    classes = _strings(content, "classes", path)
    dataset = _open_split(path, content, split, format, kind, names, classes)
    if with_ignored:
        dataset = dataset.with_ignored(_strings(content, "ignored", path) or [])
    if classes is None or (names is None and dataset.format in YOLO_FORMATS):
        return dataset
    return dataset.with_classes(classes)


def ignored_classes(path: Path) -> list[str]:
    """Return the classes that a data.yaml names as `ignored`."""
    return _strings(_load(path), "ignored", path) or []


def _open_split(
    path: Path,
    content: dict[str, Any],
    split: str,
    format: str | None,
    kind: Kind | None,
    names: list[str] | None,
    classes: list[str] | None,
) -> Dataset:
    base = path.parent / str(content.get("path") or ".")
    base = base if base.is_dir() else path.parent  # the YOLO world's `path` may be of another machine
    entry = content.get(split) or (content.get("valid") if split == "val" else None)
    if entry is None and not content.get("train") and not content.get("val"):
        return open_folder(base, split, format, kind, names)
    if entry is None:
        raise NoSplitError(f"{path} names no {split!r}")
    targets = [_target(base, str(one), path) for one in (entry if isinstance(entry, list) else [entry])]
    folders = [target if target.is_dir() else target.parent for target in targets]
    dataset = _open_targets(path, split, format, kind, names, classes, base, targets, (path.parent, base, *folders))
    notes = [f"{path.name} names {target}, outside of its folder" for target in _outside(targets, path.parent)]
    return replace(dataset, notes=(*notes, *dataset.notes)) if notes else dataset


def _outside(targets: Sequence[Path], folder: Path) -> list[Path]:
    return [target for target in targets if not is_inside(target, [folder]) and target.absolute() != folder.absolute()]


def _open_targets(
    path: Path,
    split: str,
    format: str | None,
    kind: Kind | None,
    names: list[str] | None,
    classes: list[str] | None,
    base: Path,
    targets: Sequence[Path],
    roots: Sequence[Path],
) -> Dataset:
    """Open what a split's entry names; what that names in turn has to lie in one of the `roots`."""
    first = targets[0]
    if first.suffix == ".json" and len(targets) == 1:
        return check_pictures(open_coco(first, split, roots=roots))
    numbered = next((known for known in (names, classes, class_list(base)) if known is not None), None)
    if format in YOLO_FORMATS and numbered is not None and all(_has_yolo_labels(one, base) for one in targets):
        pictures = [picture for target in targets for picture in _pictures_of(target, base, roots)]
        return open_yolo(pictures, numbered, split, path)
    if len(targets) > 1:
        raise FocaldetError(
            f"{path} names several places for {split}, which only YOLO labels may have; name one folder"
        )
    if first.suffix == ".txt" and first.is_file():
        root = base if is_inside(first, [base]) else first.parent
        return open_folder(root, split, format, kind, names or class_list(root), listed=first, roots=roots)
    return open_folder(first, split, format, kind, names or class_list(base), whole=True, roots=roots)


def _has_yolo_labels(target: Path, base: Path) -> bool:
    """Whether a target can only be YOLO's: a folder of pictures that itself has no labels, or a list of pictures.

    Such a list may stand beside labels of another format as well, as `focaldet tile` writes it.
    """
    if target.suffix == ".txt":
        return (base / "labels").is_dir() or not any((base / name).is_dir() for name in OTHER_LABELS)
    return "images" in target.parts or bool(list(target.glob("*.txt")))


def _pictures_of(target: Path, base: Path, roots: Sequence[Path]) -> list[Path]:
    return pictures_in(target) if target.is_dir() else listed_pictures(target, [base / "images"], roots)


def _target(base: Path, entry: str, path: Path) -> Path:
    """Return an entry's file or folder; some exports write `../train/images` for `train/images`."""
    for candidate in (base / entry, base / entry.removeprefix("../")):
        if candidate.exists():
            return candidate
    raise FocaldetError(f"{path} names {entry}, which does not exist in {base}")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, OSError, UnicodeDecodeError) as error:
        raise FocaldetError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise FocaldetError(f"{path} should hold lines such as 'train: images/train' and 'classes: [cat, dog]'")
    return content


def _names(content: dict[str, Any], path: Path) -> list[str] | None:
    """Return `names`, written as a list or as {number: name}."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise FocaldetError(f"'names' of {path} should number the classes 0 to {len(names) - 1}")
        return [str(names[number]) for number in range(len(names))]
    return _strings(content, "names", path)


def _strings(content: dict[str, Any], key: str, path: Path) -> list[str] | None:
    value = content.get(key)
    if value is None:
        return None
    if not isinstance(value, list):
        raise FocaldetError(f"{key!r} of {path} should be a list, such as [cat, dog]")
    return [str(item) for item in value]
