"""Put rotated objects of many pictures into a Dataset: what all readers of rotated formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from focaldet.data.dataset import Dataset, Format, LeftOut, Objects, build_dataset, note_outside, sort_out_polygons
from focaldet.data.pictures import read_size
from focaldet.errors import FocaldetError, did_you_mean


@dataclass
class RotatedObjects:
    """Rotated objects as a reader finds them, a list a column.

    Attributes:
        pictures: number of each one's picture.
        corners: 8 numbers each, x1, y1, ..., x4, y4 in pixels.
        names: their classes.
        difficult: whether they are neither to be found nor false alarms.
        places: where they stand, for sentences.
    """

    pictures: list[int] = field(default_factory=list)
    corners: list[Sequence[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    places: list[str] = field(default_factory=list)

    def add(self, picture: int, corners: Sequence[float], name: str, difficult: bool, place: str) -> None:
        """Append one object."""
        self.pictures.append(picture)
        self.corners.append(corners)
        self.names.append(name)
        self.difficult.append(difficult)
        self.places.append(place)


def build_rotated(
    found: RotatedObjects,
    *,
    pictures: Sequence[Path],
    classes: Sequence[str],
    format: Format,
    split: str,
    source: Path,
    left_out: tuple[LeftOut, ...] = (),
) -> Dataset:
    """Put rotated objects into a Dataset; the pictures' sizes come from their files' headers.

    Polygons that cross themselves or have no area are left out and counted, those that reach out of their picture are
    kept and counted.

    Args:
        found: the objects.
        pictures: the pictures' files.
        classes: names by label.
        format: of the files.
        split: "train" or "val", for the record.
        source: folder or file to name in messages; the pictures' names are given relative to it where they lie in it.
        left_out: what the reader itself has left out.

    Raises:
        FocaldetError: an object is of a class that is not among `classes`, or a picture cannot be opened.
    """
    labels = label_names(found.names, classes, found.places)
    polygons = np.array(found.corners, dtype=np.float64).reshape(-1, 4, 2)
    owners = np.array(found.pictures, dtype=np.int64)
    sizes = np.array([read_size(path) for path in pictures], dtype=np.int64).reshape(-1, 2)
    usable, notes = sort_out_polygons(polygons, lambda k: found.places[k])
    kept = np.flatnonzero(usable)
    folder = source if source.is_dir() else source.parent
    return build_dataset(
        classes=classes,
        format=format,
        split=split,
        source=source,
        folder=folder,
        names=[name_in(path, folder) for path in pictures],
        sizes=sizes,
        objects=Objects(
            pictures=owners[kept],
            boxes=None,
            labels=labels[kept],
            difficult=np.array(found.difficult, dtype=np.bool_)[kept],
            polygons=polygons[kept],
        ),
        left_out=left_out + notes,
        notes=note_outside(polygons[kept], sizes[owners[kept]], lambda k: found.places[kept[k]]),
    )


def label_names(
    names: Sequence[str], classes: Sequence[str], places: Sequence[str]
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Return (N,) the label of each name.

    Raises:
        FocaldetError: one is not among the classes; the sentence says where it stands.
    """
    label_of = {name: label for label, name in enumerate(classes)}
    for name, place in zip(names, places, strict=True):
        if name not in label_of:
            raise FocaldetError(
                f"{place} is of class {name!r}, which the class list lacks{did_you_mean(name, classes)}: "
                f"{', '.join(classes)}"
            )
    return np.array([label_of[name] for name in names], dtype=np.int64)


def name_in(path: Path, folder: Path) -> str:
    """Return a picture's name relative to a folder, or its whole path where it lies elsewhere."""
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path.absolute())
