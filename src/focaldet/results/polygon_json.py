"""Detections and objects of json files as polygons: our own form, and COCO's with rotated boxes or four corners.

A box of five numbers is x, y, w, h and theta in radians, clockwise on the screen, as everywhere in focaldet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from focaldet.errors import FocaldetError
from focaldet.results.files import is_number
from focaldet.results.tables import DetectionTable, Floats, number_names, picture_key

Entry = Mapping[str, Any]
OUTLINES = ("poly", "segmentation", "bbox")
"""Where a COCO entry may have its outline, the most faithful first."""


def is_rotated(entry: Any) -> bool:
    """Tell whether a json entry, a detection or an object, has a rotated box rather than an upright one.

    >>> is_rotated({"bbox": [9, 9, 4, 2, 0.5]}), is_rotated({"bbox": [9, 9, 4, 2], "segmentation": [[1, 2, 3, 4]]})
    (True, False)
    """
    if not isinstance(entry, Mapping):
        return False
    boxes = (entry.get("bbox"), entry.get("box"))
    return "poly" in entry or any(isinstance(box, (list, tuple)) and len(box) == 5 for box in boxes)


def read_own_entries(entries: Sequence[Any], where: str) -> DetectionTable:
    """Turn the entries of a detections json into a table; boxes of 4 numbers count as the rectangles that they are.

    Args:
        entries: what the file held.
        where: the file's name, for sentences.

    Raises:
        FocaldetError: naming the entry, counted from 0, that is not as it should be.
    """
    outlines = []
    for number, entry in enumerate(entries):
        place = f"{where}: entry {number}"
        if not isinstance(entry, Mapping) or not isinstance(entry.get("image"), str) or "class" not in entry:
            raise FocaldetError(f"{place} should be an object with image, class, score and box or polygon")
        _check_score(entry, place)
        outlines.append(_own_outline(entry, place))
    pictures, owners = number_names([picture_key(entry["image"]) for entry in entries])
    classes, labels = number_names([str(entry["class"]) for entry in entries])
    polygons = to_polygons(outlines)
    scores = np.array([entry["score"] for entry in entries], dtype=np.float64)
    return DetectionTable(
        pictures=pictures, classes=classes, polygons=polygons, owners=owners, labels=labels, scores=scores
    )


def read_coco_entries(
    entries: Sequence[Any], pictures: Mapping[Any, str], classes: Mapping[Any, str], where: str
) -> DetectionTable:
    """Turn COCO results with rotated boxes into a table.

    Args:
        entries: {"image_id", "category_id", "score"} each, with the outline as `coco_outline` takes it.
        pictures: the truth's names by its ids.
        classes: its class names by category ids.
        where: the file's name, for sentences.

    Raises:
        FocaldetError: naming the entry that is not as it should be.
    """
    outlines, names, labels = [], [], []
    for number, entry in enumerate(entries):
        place = f"{where}: entry {number}"
        if not isinstance(entry, Mapping) or "image_id" not in entry or "category_id" not in entry:
            raise FocaldetError(f"{place} should be an object with image_id, category_id, score and bbox")
        _check_score(entry, place)
        outlines.append(coco_outline(entry, place))
        names.append(pictures.get(entry["image_id"], f"id {entry['image_id']}"))
        labels.append(classes.get(entry["category_id"], f"id {entry['category_id']}"))
    found_pictures, owners = number_names(names)
    found_classes, numbers = number_names(labels)
    return DetectionTable(
        pictures=found_pictures,
        classes=found_classes,
        polygons=to_polygons(outlines),
        owners=owners,
        labels=numbers,
        scores=np.array([entry["score"] for entry in entries], dtype=np.float64),
    )


def coco_outline(entry: Entry, place: str) -> list[float]:
    """Return the outline of a COCO entry: 8 corners, 5 numbers of an rbox, or 4 of an upright box x1, y1, x2, y2.

    Taken is the first there is of: `poly` of 8 numbers, `segmentation` of one polygon with 8 numbers, `bbox` of 5
    numbers, `bbox` of 4.

    Args:
        entry: an annotation or result.
        place: where it stands, for the sentence.

    Raises:
        FocaldetError: it has none of these.
    """
    for name in OUTLINES:
        numbers = entry.get(name)
        if name == "segmentation" and isinstance(numbers, list) and len(numbers) == 1:
            numbers = numbers[0]
        if not isinstance(numbers, (list, tuple)) or not all(map(is_number, numbers)):
            continue
        if len(numbers) == 8:
            return list(numbers)
        if name == "bbox" and len(numbers) == 5:
            return _checked_rbox(numbers, place)
        if name == "bbox" and len(numbers) == 4:
            x, y, width, height = numbers
            return [x, y, x + width, y + height]
    raise FocaldetError(
        f"{place} has no outline: give poly or segmentation with 8 numbers, or bbox with 5 (x, y, w, h, theta) or 4"
    )


def to_polygons(outlines: Sequence[Sequence[float]]) -> Floats:
    """Return corners (N, 4, 2) of outlines of 8, 5 or 4 numbers, as `coco_outline` gives them."""
    polygons = np.empty((len(outlines), 8))
    lengths = np.array([len(outline) for outline in outlines], dtype=np.int64)
    for length in (8, 5, 4):
        chosen = np.flatnonzero(lengths == length).tolist()
        rows = np.array([outlines[k] for k in chosen], dtype=np.float64).reshape(-1, length)
        if length == 5:
            rows = _corners(rows)
        polygons[chosen] = rows if length != 4 else rows[:, [0, 1, 2, 1, 2, 3, 0, 3]]
    return polygons.reshape(-1, 4, 2)


def _corners(boxes: Floats) -> Floats:
    """Return the corners (N, 8) of rboxes (N, 5); only where there are any is torch loaded."""
    if not len(boxes):
        return np.empty((0, 8))
    import torch

    from focaldet.geometry.rbox import rbox_to_polygon

    corners: Floats = rbox_to_polygon(torch.from_numpy(boxes)).numpy()
    return corners


def _own_outline(entry: Entry, place: str) -> list[float]:
    for name, lengths in (("polygon", (8,)), ("box", (4, 5))):
        numbers = entry.get(name)
        if numbers is None:
            continue
        if not isinstance(numbers, list) or len(numbers) not in lengths or not all(map(is_number, numbers)):
            raise FocaldetError(
                f"{place} has the {name} {numbers!r}, which should be {' or '.join(map(str, lengths))} numbers"
            )
        return _checked_rbox(numbers, place) if len(numbers) == 5 else numbers
    raise FocaldetError(f"{place} has neither polygon nor box")


def _checked_rbox(numbers: Sequence[float], place: str) -> list[float]:
    if numbers[2] < 0 or numbers[3] < 0:
        raise FocaldetError(f"{place} has the box {list(numbers)}, with a negative side")
    if abs(numbers[4]) > 2 * math.pi:
        raise FocaldetError(
            f"{place} has the box {list(numbers)}, whose angle is beyond a full turn: give radians, clockwise on the "
            "screen, or four corners"
        )
    return list(numbers)


def _check_score(entry: Entry, place: str) -> None:
    if not is_number(entry.get("score")):
        raise FocaldetError(f"{place} has the score {entry.get('score')!r}, which should be a number")
