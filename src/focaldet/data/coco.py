"""Read a COCO json into a Dataset."""

from __future__ import annotations

import contextlib
import gc
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from focaldet.data.dataset import (
    Dataset,
    Floats,
    Ints,
    LeftOut,
    Objects,
    build_dataset,
    left_out,
    note_outside,
    polygon_hulls,
    sort_out,
    sort_out_polygons,
)
from focaldet.data.paths import refuse_outside
from focaldet.data.pictures import read_size
from focaldet.errors import FocaldetError
from focaldet.results.polygon_json import coco_outline, to_polygons

Records = list[dict[str, Any]]


def read_coco(path: Path, split: str, folder: Path | None = None, roots: Sequence[Path] = ()) -> Dataset:
    """Read a COCO json; no picture is opened, unless the file lacks their sizes.

    Labels follow the order of the file's categories (spec section 10). Boxes that are not finite, negative or without
    area, and objects of pictures that are not listed, are left out and counted.

    Objects are rotated where the file has outlines of four corners or boxes of five numbers, as `coco_outline` takes
    them, and no segmentation of another shape; else they are upright, and masks are not looked at.

    Args:
        path: the json.
        split: "train" or "val", for the record.
        folder: where the pictures are; None looks for the first one in the usual places.
        roots: the data set's folders, besides the json's own, in which its pictures have to lie.

    Raises:
        FocaldetError: not COCO json, no pictures, two pictures of one id, a category without a name, a picture outside
            of the data set's folders.
    """
    with _without_collector():
        return _read(path, split, folder, roots)


def _read(path: Path, split: str, folder: Path | None, roots: Sequence[Path]) -> Dataset:
    content = load_coco(path)
    images, annotations = content["images"], content["annotations"]
    if not images:
        raise FocaldetError(f"{path} lists no pictures")
    names = [_text(image, "file_name", f"picture {number + 1} of {path}") for number, image in enumerate(images)]
    folder = find_pictures(path, split, names[0]) if folder is None else folder
    own = (*roots, _own_folder(path), folder)
    refuse_outside(names, folder, own, lambda k: f"picture {images[k].get('id', k + 1)} of {path}")
    ids = _numbers(images, "id", f"{path}: pictures")
    _refuse_twins(ids, names, path)
    classes, category_ids = _read_categories(content["categories"], path)
    objects, left = _read_objects(annotations, ids, category_ids, path)
    sizes = _read_sizes(images, names, folder)
    return build_dataset(
        classes=classes,
        category_ids=category_ids,
        format="coco",
        split=split,
        source=path,
        folder=folder,
        names=names,
        ids=ids,
        sizes=sizes,
        objects=objects,
        left_out=left,
        notes=_notes(objects, sizes, path),
    )


@contextlib.contextmanager
def _without_collector() -> Iterator[None]:
    """Let Python look for no cycles meanwhile: a json has none, and looking takes longer than reading does."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def load_coco(path: Path) -> dict[str, Any]:
    """Parse a json and make sure that it is a COCO data set: an object with images, annotations and categories."""
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FocaldetError(f"{path} does not exist; check the path") from error
    except (ValueError, RecursionError) as error:
        raise FocaldetError(f"{path} is not valid JSON ({error}); a COCO json is expected") from error
    if isinstance(content, list):
        scored = bool(content) and isinstance(content[0], dict) and "score" in content[0]
        hint = "COCO results (detections)" if scored else "a list"
        raise FocaldetError(f"{path} holds {hint}, not a COCO data set with images, annotations and categories")
    lists = content if isinstance(content, dict) else {}
    missing = [key for key in ("images", "annotations", "categories") if not isinstance(lists.get(key), list)]
    if missing:
        raise FocaldetError(f"{path} is not COCO json: it has no list {' and no list '.join(map(repr, missing))}")
    for key in ("images", "annotations", "categories"):
        if not all(isinstance(record, dict) for record in lists[key]):
            raise FocaldetError(f"{path} is not COCO json: {key!r} holds something that is no object")
    return lists


def find_pictures(path: Path, split: str, first: str) -> Path:
    """Return the folder in which a json's pictures lie, by looking for the first one.

    Raises:
        FocaldetError: it is in none of the usual places, which the sentence lists.
    """
    root = _own_folder(path)
    tails = ("images", f"{split}2017", f"images/{split}", f"images/{split}2017", split, ".")
    places = [path.parent, *(root / tail for tail in tails)]
    for place in places:
        if (place / first).is_file():
            return place
    shown = ", ".join(tail for tail in tails if tail != ".")
    raise FocaldetError(f"picture {first} of {path} does not exist in {root} nor in its folders {shown}")


def _own_folder(path: Path) -> Path:
    """Return the folder of the data set that a json belongs to."""
    return path.parent.parent if path.parent.name == "annotations" else path.parent


def _refuse_twins(ids: Ints, names: Sequence[str], path: Path) -> None:
    order = np.argsort(ids, kind="stable")
    same = np.flatnonzero(np.diff(ids[order]) == 0)
    if len(same):
        one, other = order[same[0]], order[same[0] + 1]
        raise FocaldetError(f"{path} gives id {ids[one]} to two pictures, {names[one]} and {names[other]}")


def _read_categories(categories: Records, path: Path) -> tuple[tuple[str, ...], Ints]:
    ids = _numbers(categories, "id", f"{path}: categories")
    names = [
        _text(record, "name", f"category {number} of {path}") for number, record in zip(ids, categories, strict=True)
    ]
    for values, kind in ((ids.tolist(), "id"), (names, "name")):
        twice = next((value for value in values if values.count(value) > 1), None)
        if twice is not None:
            raise FocaldetError(f"{path} has two categories of the {kind} {twice!r}")
    return tuple(names), ids


def _read_objects(
    annotations: Records, image_ids: Ints, category_ids: Ints, path: Path
) -> tuple[Objects, tuple[LeftOut, ...]]:
    ids = _numbers(annotations, "id", f"{path}: annotations", default=range(1, len(annotations) + 1))
    polygons = _read_polygons(annotations, ids, path) if are_rotated(annotations) else None
    boxes = _read_boxes(annotations, ids, path) if polygons is None else _boxes_beside(annotations, polygons)
    pictures = _positions(_numbers(annotations, "image_id", f"{path}: annotations"), image_ids)
    categories = _numbers(annotations, "category_id", f"{path}: annotations")
    labels = _positions(categories, category_ids)
    if (labels < 0).any():
        first = int((labels < 0).argmax())
        raise FocaldetError(
            f"annotation {ids[first]} of {path} has category_id {categories[first]}, which has no name there"
        )

    def place(number: int) -> str:
        return f"annotation {ids[number]} of {path.name}"

    usable, notes = sort_out(boxes, place) if polygons is None else sort_out_polygons(polygons, place)
    homeless = usable & (pictures < 0)
    notes += left_out("objects of pictures that are not listed", homeless, place)
    kept = usable & ~homeless
    areas = np.array([_real(record.get("area")) for record in annotations], dtype=np.float64)
    areas = np.where(np.isnan(areas), boxes[:, 2] * boxes[:, 3], areas)
    objects = Objects(
        pictures=pictures[kept],
        boxes=boxes[kept],
        labels=labels[kept],
        crowd=_flags(annotations, "iscrowd")[kept],
        difficult=_flags(annotations, "difficult")[kept],
        ignore=_flags(annotations, "ignore")[kept],
        areas=areas[kept],
        ids=ids[kept],
        polygons=None if polygons is None else polygons[kept],
    )
    return objects, notes


def are_rotated(annotations: Records) -> bool:
    """Tell whether annotations are those of rotated objects: some have four corners or an rbox, none has a mask."""
    forms = {_form(record) for record in annotations}
    return "rotated" in forms and "mask" not in forms


def _form(record: dict[str, Any]) -> str:
    outline, box = record.get("segmentation"), record.get("bbox")
    if "poly" in record or (isinstance(box, list) and len(box) == 5):
        return "rotated"
    if isinstance(outline, list) and outline:
        corners = outline[0] if len(outline) == 1 and isinstance(outline[0], list) else outline
        return "rotated" if len(corners) == 8 and not isinstance(corners[0], list) else "mask"
    return "mask" if isinstance(outline, dict) and not record.get("iscrowd") else "upright"


def _read_polygons(annotations: Records, ids: Ints, path: Path) -> Floats:
    """Return (N, 4, 2) corners as written."""
    return to_polygons(
        [coco_outline(record, f"annotation {k} of {path}") for k, record in zip(ids, annotations, strict=True)]
    )


def _boxes_beside(annotations: Records, polygons: Floats) -> Floats:
    """Return (N, 4) x, y, width, height: those written beside polygons (N, 4, 2), else the hulls of these."""
    boxes = polygon_hulls(polygons)
    for number, record in enumerate(annotations):
        box = record.get("bbox")
        if isinstance(box, list) and len(box) == 4:
            boxes[number] = [_real(value) for value in box]
    return boxes


def _notes(objects: Objects, sizes: Ints, path: Path) -> tuple[str, ...]:
    if objects.polygons is None or objects.ids is None:
        return ()
    ids = objects.ids
    return note_outside(objects.polygons, sizes[objects.pictures], lambda k: f"annotation {ids[k]} of {path.name}")


def _flags(annotations: Records, key: str) -> Any:
    return np.array([bool(record.get(key)) for record in annotations], dtype=bool)


def _read_boxes(annotations: Records, ids: Ints, path: Path) -> Floats:
    """Return (N, 4) x, y, width, height as written."""
    try:
        boxes = np.array([record["bbox"] for record in annotations], dtype=np.float64)
        if boxes.shape == (len(annotations), 4) or not annotations:
            return boxes.reshape(-1, 4)
    except (KeyError, TypeError, ValueError):
        pass
    for number, record in zip(ids, annotations, strict=True):  # which one is it?
        box = record.get("bbox")
        if not isinstance(box, list) or len(box) != 4:
            raise FocaldetError(
                f"annotation {number} of {path} has bbox {box!r} instead of four numbers x, y, width, height"
            )
    rows = [[_real(value) for value in record["bbox"]] for record in annotations]  # null counts as not finite
    return np.array(rows, dtype=np.float64)


def _read_sizes(images: Records, names: Sequence[str], folder: Path) -> Ints:
    """Return (P, 2) height and width; a size that the file lacks is read from the picture."""
    sizes = np.array([(_real(image.get("height")), _real(image.get("width"))) for image in images])
    for index in np.flatnonzero(~(sizes > 0).all(axis=1)):
        sizes[index] = read_size(folder / names[int(index)])
    return sizes.astype(np.int64)


def _positions(values: Ints, known: Ints) -> Ints:
    """Return where each value stands in `known`, -1 where it does not."""
    if not len(known):
        return np.full(len(values), -1, dtype=np.int64)
    order = np.argsort(known, kind="stable")
    place = np.searchsorted(known[order], values).clip(max=len(known) - 1)
    found = order[place]
    return np.where(known[found] == values, found, -1)


def _numbers(records: Records, key: str, where: str, default: Sequence[int] | None = None) -> Ints:
    """Return a column of whole numbers; ids that are strings of digits are read as numbers."""
    try:
        if default is None:
            return np.array([int(record[key]) for record in records], dtype=np.int64)
        return np.array([int(record.get(key, k)) for k, record in zip(default, records, strict=True)], dtype=np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FocaldetError(f"{where} need a whole number as {key!r}, which one of them does not have") from error


def _text(record: dict[str, Any], key: str, where: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value:
        raise FocaldetError(f"{where} has no {key!r}")
    return value


def _real(value: Any) -> float:
    """Return a number as it is and anything else as NaN."""
    return value if isinstance(value, (int, float)) else np.nan
