"""Read xml with rotated boxes into a Dataset: that of HRSC2016, and VOC's with a `robndbox` in place of a `bndbox`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree.ElementTree import Element

from focaldet.data.dataset import Dataset
from focaldet.data.rotated import RotatedObjects, build_rotated
from focaldet.data.voc import number_in, parse_xml, text_in, voc_box
from focaldet.errors import FocaldetError
from focaldet.results.polygon_json import to_polygons

HRSC_CLASS = "ship"
"""HRSC2016 numbers kinds of ships; as its users do, all are taken as one class."""
HRSC_BOX = ("mbox_cx", "mbox_cy", "mbox_w", "mbox_h", "mbox_ang")
ROTATED_BOX = ("robndbox/cx", "robndbox/cy", "robndbox/w", "robndbox/h", "robndbox/angle")


def read_hrsc(
    pictures: Sequence[Path], labels: Path, split: str, source: Path, classes: Sequence[str] | None = None
) -> Dataset:
    """Read the labels of some pictures.

    An angle is in radians, clockwise on the screen, the direction of the w side. An object of VOC's form that has a
    `bndbox` alone is taken as the rectangle that it is.

    Args:
        pictures: their files, no two of one stem.
        labels: the folder that has a `STEM.xml` of each.
        split: "train" or "val", for the record.
        source: folder or file to name in messages.
        classes: names by label; by default all that any xml of the folder has, sorted, so that splits agree.

    Raises:
        FocaldetError: a file that is no such xml; an object without name or box; a class not among `classes`.
    """
    found = RotatedObjects()
    for number, picture in enumerate(pictures):
        path = labels / f"{picture.stem}.xml"
        for place, element in enumerate(objects_in(parse_xml(path)), 1):
            where = f"object {place} of {path}"
            difficult = element.findtext("difficult", "0").strip() not in ("", "0")
            found.add(number, _corners(element, where), name_of(element, where), difficult, where)
    if classes is None:
        roots = (parse_xml(path) for path in labels.glob("*.xml"))
        classes = sorted({name_of(element, "an object") for root in roots for element in objects_in(root)})
    return build_rotated(found, pictures=pictures, classes=classes, format="hrsc", split=split, source=source)


def objects_in(root: Element) -> Iterator[Element]:
    """Return the objects of an xml of either form."""
    yield from root.iter("HRSC_Object")
    yield from root.iter("object")


def name_of(element: Element, place: str) -> str:
    """Return an object's class."""
    return HRSC_CLASS if element.tag == "HRSC_Object" else text_in(element, "name", place)


def is_rotated(root: Element) -> bool | None:
    """Tell whether an xml has rotated boxes; None where it has no object to tell by."""
    objects = list(objects_in(root))
    return any(one.find(key) is not None for one in objects for key in (HRSC_BOX[0], "robndbox")) if objects else None


def _corners(element: Element, place: str) -> list[float]:
    keys = HRSC_BOX if element.tag == "HRSC_Object" else ROTATED_BOX
    if element.tag != "HRSC_Object" and element.find("robndbox") is None:
        x, y, width, height = voc_box(element, place)
        return [x, y, x + width, y, x + width, y + height, x, y + height]
    box = [number_in(element, key, place) for key in keys]
    if not all(map(math.isfinite, box)) or min(box[2:4]) < 0:
        raise FocaldetError(f"{place} has the box {box}; give finite numbers, w and h not negative")
    corners: list[float] = to_polygons([box]).ravel().tolist()
    return corners
