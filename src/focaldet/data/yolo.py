"""Read YOLO labels into a Dataset: a text file a picture, a line an object, numbers as shares of the sides."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from focaldet.data.dataset import Dataset, Floats, Ints, Objects, build_dataset, sort_out
from focaldet.data.pictures import read_size
from focaldet.errors import FocaldetError


def read_yolo(pictures: Sequence[Path], classes: Sequence[str], split: str, source: Path) -> Dataset:
    """Read the labels of some pictures; sizes come from the pictures' headers.

    A picture without a label file is one without objects.

    Args:
        pictures: their files.
        classes: names by number.
        split: "train" or "val", for the record.
        source: folder or file to name in messages; the pictures' names are given relative to it where they lie in it.

    Raises:
        FocaldetError: a line that is not `class x y w h`, or a class number without a name.
    """
    sizes = np.array([read_size(path) for path in pictures], dtype=np.int64).reshape(-1, 2)
    labels = [label_path(path) for path in pictures]
    tables = [_read_labels(path, len(classes)) for path in labels]
    counts = [len(table) for table in tables]
    rows = np.concatenate([*tables, np.empty((0, 5))])
    owners = np.repeat(np.arange(len(pictures)), counts)
    lines = np.concatenate([*(np.arange(count) for count in counts), np.empty(0, np.int64)]) + 1
    boxes = _to_pixels(rows[:, 1:], sizes[owners])
    kept, notes = sort_out(boxes, lambda k: f"object {lines[k]} of {labels[owners[k]]}")
    folder = source if source.is_dir() else source.parent
    return build_dataset(
        classes=classes,
        category_ids=np.arange(len(classes)),
        format="yolo",
        split=split,
        source=source,
        folder=folder,
        names=[_name_in(path, folder) for path in pictures],
        sizes=sizes,
        objects=Objects(pictures=owners[kept], boxes=boxes[kept], labels=rows[kept, 0].astype(np.int64)),
        left_out=notes,
    )


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


def _read_labels(path: Path, num_classes: int) -> Floats:
    """Return (G, 5) class, x, y, width, height of one file."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return np.empty((0, 5))
    except (OSError, UnicodeDecodeError) as error:
        raise FocaldetError(f"label file {path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            rows.append(_read_line(line, f"line {number} of {path}", num_classes))
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _read_line(line: str, where: str, num_classes: int) -> list[float]:
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError:
        numbers = []
    if len(numbers) != 5 or not numbers[0].is_integer():
        raise FocaldetError(f"{where} reads {line.strip()[:60]!r}; five numbers, class x y width height, are expected")
    if not 0 <= numbers[0] < num_classes:
        raise FocaldetError(f"{where} has class {numbers[0]:.0f}, but names are given for 0 to {num_classes - 1} only")
    return numbers


def _to_pixels(shares: Floats, sizes: Ints) -> Floats:
    """Turn (N, 4) centre x, y, width, height as shares into x, y, width, height in pixels."""
    sides = sizes[:, [1, 0]].astype(np.float64)
    extents = shares[:, 2:] * sides
    return np.concatenate([shares[:, :2] * sides - extents / 2, extents], axis=1)


def _name_in(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path.absolute())
