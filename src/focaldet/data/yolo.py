"""Read YOLO labels into a Dataset: a text file a picture, a line an object, numbers as shares of the sides.

A line is `class x y width height`, or for rotated objects (YOLO-OBB) `class x1 y1 x2 y2 x3 y3 x4 y4`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from focaldet.data.dataset import Dataset, Floats, Ints, Objects, build_dataset, left_out, sort_out
from focaldet.data.pictures import read_size
from focaldet.data.rotated import RotatedObjects, build_rotated, name_in
from focaldet.errors import FocaldetError

FORMS = {
    5: "five numbers, class x y width height,",
    9: "nine numbers, class x1 y1 x2 y2 x3 y3 x4 y4,",
}
"""What a line holds, by its length."""


def read_yolo(pictures: Sequence[Path], classes: Sequence[str], split: str, source: Path) -> Dataset:
    """Read the labels of some pictures; sizes come from the pictures' headers.

    A picture without a label file is one without objects. The first object decides which of the two forms the lines
    have.

    Args:
        pictures: their files.
        classes: names by number.
        split: "train" or "val", for the record.
        source: folder or file to name in messages; the pictures' names are given relative to it where they lie in it.

    Raises:
        FocaldetError: a line of another form, a class number without a name, or two pictures with one label file.
    """
    labels = [label_path(path) for path in pictures]
    _refuse_twins(pictures, labels)
    rows, owners, places = _read_all(labels, len(classes))
    if rows.shape[1] == 9:
        return _rotated(rows, owners, places, pictures, classes, split, source)
    sizes = np.array([read_size(path) for path in pictures], dtype=np.int64).reshape(-1, 2)
    boxes = _to_pixels(rows[:, 1:], sizes[owners])
    kept, notes = sort_out(boxes, lambda k: places[k])
    folder = source if source.is_dir() else source.parent
    return build_dataset(
        classes=classes,
        category_ids=np.arange(len(classes)),
        format="yolo",
        split=split,
        source=source,
        folder=folder,
        names=[name_in(path, folder) for path in pictures],
        sizes=sizes,
        objects=Objects(pictures=owners[kept], boxes=boxes[kept], labels=rows[kept, 0].astype(np.int64)),
        left_out=notes,
    )


def has_rotated_labels(pictures: Sequence[Path]) -> bool:
    """Tell by the first object of all whether labels are YOLO-OBB's."""
    for path in map(label_path, pictures):
        for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
            if line.strip():
                return len(line.split()) == 9
    return False


def _rotated(
    rows: Floats,
    owners: Ints,
    places: Sequence[str],
    pictures: Sequence[Path],
    classes: Sequence[str],
    split: str,
    source: Path,
) -> Dataset:
    finite = np.asarray(np.isfinite(rows).all(axis=1))
    kept = np.flatnonzero(finite).tolist()
    sides = np.array([read_size(path)[::-1] for path in pictures], dtype=np.float64).reshape(-1, 2)
    corners = rows[:, 1:] * np.tile(sides[owners], 4)
    found = RotatedObjects(
        pictures=owners[kept].tolist(),
        corners=corners[kept].tolist(),
        names=[classes[int(rows[k, 0])] for k in kept],
        difficult=[False] * len(kept),
        places=[places[k] for k in kept],
    )
    return build_rotated(
        found,
        pictures=pictures,
        classes=classes,
        format="yolo-obb",
        split=split,
        source=source,
        left_out=left_out("boxes with numbers that are not finite", ~finite, lambda k: places[k]),
    )


def _refuse_twins(pictures: Sequence[Path], labels: Sequence[Path]) -> None:
    owner: dict[Path, Path] = {}
    for picture, label in zip(pictures, labels, strict=True):
        if owner.setdefault(label, picture) != picture:
            raise FocaldetError(f"{owner[label]} and {picture} share the label file {label}; rename or remove one")


def label_path(picture: Path) -> Path:
    """Return where a picture's labels are: the last folder `images` on its way read as `labels`, else beside it.

    >>> label_path(Path("set/images/train/a.jpg")).as_posix()
    'set/labels/train/a.txt'
    """
    parts = list(picture.parts)
    for place in range(len(parts) - 2, -1, -1):
        if parts[place] == "images":
            parts[place] = "labels"
            return Path(*parts).with_suffix(".txt")
    return picture.with_suffix(".txt")


def _read_all(labels: Sequence[Path], num_classes: int) -> tuple[Floats, Ints, list[str]]:
    """Return (N, 5 or 9) class and numbers of all files, (N,) whose they are, and where each stands."""
    rows: list[list[float]] = []
    owners: list[int] = []
    places: list[str] = []
    for owner, path in enumerate(labels):
        for number, line in enumerate(_lines(path), 1):
            if line.strip():
                rows.append(_read_line(line, f"line {number} of {path}", num_classes, len(rows[0]) if rows else None))
                owners.append(owner)
                places.append(f"line {number} of {path}")
    table = np.array(rows, dtype=np.float64) if rows else np.empty((0, 5))
    return table, np.array(owners, dtype=np.int64), places


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise FocaldetError(f"label file {path} cannot be read: {error}") from error


def _read_line(line: str, where: str, num_classes: int, length: int | None) -> list[float]:
    """Return class and numbers of a line; `length` is that of the lines before."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) not in ((5, 9) if length is None else (length,)) or not numbers[0].is_integer():
        form = FORMS[length or 5]
        raise FocaldetError(f"{where} reads {line.strip()[:60]!r}; {form} are expected")
    if not 0 <= numbers[0] < num_classes:
        raise FocaldetError(f"{where} has class {numbers[0]:.0f}, but names are given for 0 to {num_classes - 1} only")
    return numbers


def _to_pixels(shares: Floats, sizes: Ints) -> Floats:
    """Turn (N, 4) centre x, y, width, height as shares into x, y, width, height in pixels."""
    sides = sizes[:, [1, 0]].astype(np.float64)
    extents = shares[:, 2:] * sides
    return np.concatenate([shares[:, :2] * sides - extents / 2, extents], axis=1)
