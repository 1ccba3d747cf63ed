"""Read VOC xml into a Dataset: one file a picture, `Annotations/x.xml` for `JPEGImages/x.jpg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from focaldet.data.dataset import Dataset, Objects, build_dataset, sort_out
from focaldet.data.pictures import read_size
from focaldet.data.rotated import name_in
from focaldet.errors import FocaldetError


@dataclass
class _Table:
    """Objects of several files, a list a column."""

    pictures: list[int] = field(default_factory=list)
    boxes: list[tuple[float, float, float, float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    difficult: list[bool] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


def read_voc(pictures: Sequence[Path], folder: Path, split: str, classes: Sequence[str] | None = None) -> Dataset:
    """Read the labels of some pictures.

    A corner is written as the number of its pixel, counted from 1 and belonging to the box. In continuous coordinates
    the box therefore goes from xmin - 1 to xmax.

    Args:
        pictures: their files; `Annotations` of `folder` has an xml of each one's name.
        folder: the data set.
        split: "train" or "val", for the record.
        classes: names by label; by default all that any xml of the folder has, sorted, so that splits agree.

    Raises:
        FocaldetError: a file that is no VOC xml; an object without name or box.
    """
    table, sizes = _Table(), []
    for number, picture in enumerate(pictures):
        path = folder / "Annotations" / f"{picture.stem}.xml"
        root = parse_xml(path)
        sizes.append(_size_of(root) or read_size(picture))
        for place, element in enumerate(root.iter("object"), 1):
            _add_object(table, element, number, f"object {place} of {path}")
    classes = class_names(folder) if classes is None else list(classes)
    label_of = {name: label for label, name in enumerate(classes)}
    boxes = np.array(table.boxes, dtype=np.float64).reshape(-1, 4)
    kept, notes = sort_out(boxes, lambda k: table.places[k])
    labels = np.array(
        [_label(name, label_of, place) for name, place in zip(table.names, table.places, strict=True)], dtype=np.int64
    )
    return build_dataset(
        classes=classes,
        format="voc",
        split=split,
        source=folder,
        folder=folder,
        names=[name_in(picture, folder) for picture in pictures],
        sizes=np.array(sizes, dtype=np.int64),
        objects=Objects(
            pictures=np.array(table.pictures, dtype=np.int64)[kept],
            boxes=boxes[kept],
            labels=labels[kept],
            difficult=np.array(table.difficult, dtype=bool)[kept],
        ),
        left_out=notes,
    )


def class_names(folder: Path) -> list[str]:
    """Return every class that an xml of the folder names, sorted."""
    roots = (parse_xml(path) for path in (folder / "Annotations").glob("*.xml"))
    return sorted({text_in(element, "name", "an object") for root in roots for element in root.iter("object")})


def parse_xml(path: Path) -> ElementTree.Element:
    """Parse a label file; one that is missing or no xml is a sentence."""
    try:
        return ElementTree.parse(path).getroot()
    except FileNotFoundError as error:
        raise FocaldetError(f"{path} does not exist; every picture of a split needs its xml") from error
    except (ElementTree.ParseError, OSError) as error:
        raise FocaldetError(f"{path} is not readable as xml: {error}") from error


def _size_of(root: ElementTree.Element) -> tuple[int, int] | None:
    """Return the (height, width) that the file gives, None where it gives none or zero."""
    height, width = (root.findtext(f"size/{side}", "").strip() for side in ("height", "width"))
    return (int(height), int(width)) if height.isdigit() and width.isdigit() and int(height) * int(width) else None


def _add_object(table: _Table, element: ElementTree.Element, picture: int, place: str) -> None:
    table.pictures.append(picture)
    table.boxes.append(voc_box(element, place))
    table.names.append(text_in(element, "name", place))
    table.difficult.append(element.findtext("difficult", "0").strip() not in ("", "0"))
    table.places.append(place)


def voc_box(element: ElementTree.Element, place: str) -> tuple[float, float, float, float]:
    """Return x, y, width, height of an object's `bndbox`."""
    x1, y1, x2, y2 = (number_in(element, f"bndbox/{key}", place) for key in ("xmin", "ymin", "xmax", "ymax"))
    return x1 - 1, y1 - 1, x2 - x1 + 1, y2 - y1 + 1


def _label(name: str, label_of: dict[str, int], place: str) -> int:
    if name not in label_of:
        raise FocaldetError(f"{place} is of class {name!r}, which the class list lacks: {', '.join(label_of)}")
    return label_of[name]


def text_in(element: ElementTree.Element, key: str, place: str) -> str:
    """Return the text of an element's child; an object without it is a sentence that says where it stands."""
    text = element.findtext(key, "").strip()
    if not text:
        raise FocaldetError(f"{place} has no <{key}>")
    return text


def number_in(element: ElementTree.Element, key: str, place: str) -> float:
    """Return the number of an element's child, as `text_in` does its text."""
    text = text_in(element, key, place)
    try:
        return float(text)
    except ValueError as error:
        raise FocaldetError(f"{place} has <{key}> {text!r}, which is no number") from error
