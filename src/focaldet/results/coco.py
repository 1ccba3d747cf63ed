"""COCO results: a json list of {"image_id", "category_id", "bbox": [x, y, w, h], "score"}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focaldet.errors import FocaldetError
from focaldet.results.files import is_number, read_json, write_json

if TYPE_CHECKING:  # whoever reads annotations does without torch
    from focaldet.results.detections import Detections

Result = dict[str, Any]


def to_coco_results(detections: Detections, image_id: int, category_ids: Sequence[int]) -> list[Result]:
    """Turn the detections of one picture into COCO results.

    Args:
        detections: N boxes in pixels of the original picture.
        image_id: the picture's id.
        category_ids: C ids; label k is category `category_ids[k]`.

    Returns:
        N entries. Widths and heights are differences of the float32 corners in double precision, as in the reference.
    """
    if len(category_ids) != len(detections.classes):
        raise FocaldetError(
            f"{len(detections.classes)} classes need as many category ids, but there are {len(category_ids)}"
        )
    rows = zip(detections.hboxes.tolist(), detections.scores.tolist(), detections.labels.tolist(), strict=True)
    return [
        {"image_id": image_id, "category_id": category_ids[label], "bbox": [x1, y1, x2 - x1, y2 - y1], "score": score}
        for (x1, y1, x2, y2), score, label in rows
    ]


def write_coco_results(path: str | Path, results: Iterable[Result]) -> None:
    """Write COCO results, whole or not at all."""
    write_json(path, list(results))


def read_coco_results(path: str | Path, truth: Mapping[str, Any] | None = None) -> list[Result]:
    """Read COCO results and check every entry.

    Args:
        path: the json file.
        truth: the COCO annotations that they belong to; where given, ids must be known there.

    Raises:
        FocaldetError: naming the file and the entry, counted from 0, where one is not as it should be.
    """
    results = read_json(path)
    check_coco_results(results, truth, str(path))
    return list(results)


def check_coco_truth(truth: Any, where: str = "truth", *, upright: bool = True) -> None:
    """Raise FocaldetError unless `truth` is COCO annotations whose objects are all in known pictures and categories.

    Args:
        truth: what a json file held.
        where: the file's name, for the sentence.
        upright: demand that each object has a bbox of four numbers.
    """
    parts = ("images", "annotations", "categories")
    if not isinstance(truth, Mapping) or not all(isinstance(truth.get(part), (list, tuple)) for part in parts):
        raise FocaldetError(f"{where}: is not COCO annotations, which have the lists {', '.join(parts)}")
    for part, what in (("images", "picture"), ("categories", "category")):
        _check_ids(truth[part], f"{where}: {what}")
    known = _known_ids(truth)
    for number, entry in enumerate(truth["annotations"]):
        needed = ("image_id", "category_id", "bbox") if upright else ("image_id", "category_id")
        _check_entry(entry, known, f"{where}: annotation {number}", needed)


def _check_ids(entries: Sequence[Any], where: str) -> None:
    """Demand that every picture or category has an id of its own, a whole number."""
    seen: set[int] = set()
    for number, entry in enumerate(entries):
        key = entry.get("id") if isinstance(entry, Mapping) else None
        if not isinstance(key, int):
            raise FocaldetError(f"{where} {number} has no id that is a whole number")
        if key in seen:
            raise FocaldetError(f"{where} {number} has the id {key}, which another one has already")
        seen.add(key)


def _known_ids(truth: Mapping[str, Any]) -> dict[str, set[Any]]:
    return {
        "image_id": {image["id"] for image in truth["images"]},
        "category_id": {category["id"] for category in truth["categories"]},
    }


def check_coco_results(results: Any, truth: Mapping[str, Any] | None = None, where: str = "results") -> None:
    """Raise FocaldetError unless `results` is a list of COCO results, of pictures and categories in `truth`.

    Args:
        results: what a json file held, or a list of dictionaries.
        truth: COCO annotations, or None to leave ids unchecked.
        where: the file's name, for the sentence.
    """
    if not isinstance(results, (list, tuple)):
        hint = "; these are annotations, not results" if isinstance(results, dict) and "images" in results else ""
        raise FocaldetError(f"{where}: holds no list of COCO results{hint}")
    known = {} if truth is None else _known_ids(truth)
    for number, entry in enumerate(results):
        _check_entry(entry, known, f"{where}: entry {number}", ("image_id", "category_id", "bbox", "score"))


def _check_entry(entry: Any, known: Mapping[str, set[Any]], where: str, needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in entry] if isinstance(entry, Mapping) else list(needed)
    if missing:
        raise FocaldetError(f"{where} has no {', '.join(missing)}; it should have {', '.join(needed)}")
    box = entry.get("bbox")
    if "bbox" in needed and not (isinstance(box, (list, tuple)) and len(box) == 4 and all(map(is_number, box))):
        raise FocaldetError(f"{where} has the bbox {box!r}, which should be four numbers: x, y, width, height")
    if "score" in needed and not is_number(entry["score"]):
        raise FocaldetError(f"{where} has the score {entry['score']!r}, which should be a number")
    for name, ids in known.items():
        if not isinstance(entry[name], int) or entry[name] not in ids:
            what = "pictures" if name == "image_id" else "categories"
            raise FocaldetError(f"{where} has the {name} {entry[name]!r}, which is not among the {what} of the truth")
