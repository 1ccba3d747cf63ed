"""Write labels in every format that can be read back: one function a format, from flat arrays to files.

What a format has no place for is told by `what_is_lost` beforehand; see each format's entry there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import yaml

from focaldet.data.dataset import Dataset, Floats, Format, xywh_to_polygons
from focaldet.errors import FocaldetError
from focaldet.geometry.quads import measure_quads

RECTANGLE = 0.999
"""Share of its least-area rectangle that a polygon fills if it counts as one: corners have few digits."""


@dataclass(frozen=True)
class Layout:
    """How a format is laid out in a folder, with {split} for "train" and "val".

    Attributes:
        pictures: where the pictures are.
        write: (dataset, names of its pictures there, folder of the data set) -> writes one split's labels.
        rotated: whether objects may be rotated.
    """

    pictures: str
    write: Callable[[Dataset, Sequence[str], Path], None]
    rotated: bool


def what_is_lost(dataset: Dataset, format: Format) -> list[str]:
    """Return what a format cannot hold of a dataset and what is done about it, a clause with a number each."""
    difficult, regions = int(dataset.difficult.sum()), int((dataset.crowd | dataset.ignore).sum())
    rotated = dataset.num_objects if dataset.polygons is not None else 0
    clauses: list[tuple[str, int]] = []
    if format in ("yolo", "yolo-obb"):
        clauses += [("crowds left out, as the format has no mark for them", regions)]
        clauses += [("difficult objects written like others", difficult)]
    elif format != "coco":
        clauses += [("crowds written as difficult objects", regions)]
    if not LAYOUTS[format].rotated:
        clauses += [("rotated objects written as their upright hulls", rotated)]
    if format == "hrsc" and dataset.polygons is not None:
        clauses += [("quadrilaterals written as their least-area rectangles", _skewed(dataset.polygons))]
    return [f"{clause}: {count}" for clause, count in clauses if count]


def what_classes_lose(classes: Sequence[str], used: Collection[int], format: Format) -> list[str]:
    """Return what a format cannot hold of a class list, as `what_is_lost`; `used` are labels that some object has."""
    unused = [name for label, name in enumerate(classes) if label not in used]
    blank = [name for name in classes if name != "-".join(name.split())]
    if format == "voc" and unused:
        return [f"classes without an object lost, as the format has no list of classes: {', '.join(unused)}"]
    if format == "dota" and blank:
        return [f"classes written with '-' for a blank: {', '.join(blank)}"]
    return []


def without_regions(dataset: Dataset, format: Format) -> Dataset:
    """Return the dataset without the objects that a format must leave out, as it would make ordinary ones of them."""
    return dataset.keep_objects(~(dataset.crowd | dataset.ignore)) if format in ("yolo", "yolo-obb") else dataset


def write_classes(
    classes: Sequence[str], splits: Sequence[str], ignored: Sequence[str], format: Format, root: Path
) -> None:
    """Write what a data set says of its classes beside its labels: classes.txt, or a data.yaml where it takes one.

    Args:
        classes: names by label.
        splits: those that were written.
        ignored: classes that are neither to be found nor background.
        format: of the labels.
        root: folder of the data set.
    """
    content: dict[str, Any] = {}
    if format in ("yolo", "yolo-obb"):
        content = {split: f"images/{split}" for split in splits} | {"names": dict(enumerate(classes))}
    elif ignored:
        content = {"format": format}
    if ignored:
        content["ignored"] = list(ignored)
    if content:
        (root / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    if format in ("dota", "hrsc"):
        names = dota_names(classes) if format == "dota" else classes
        (root / "classes.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def dota_names(classes: Sequence[str]) -> list[str]:
    """Return class names as words, as a line of labelTxt needs them.

    Raises:
        FocaldetError: two become the same.

    >>> dota_names(["ship", "storage tank"])
    ['ship', 'storage-tank']
    """
    names = ["-".join(name.split()) for name in classes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FocaldetError(f"two classes become {twice!r} in DOTA's labels, which have no blanks in names; rename one")
    return names


def coco_content(dataset: Dataset, names: Sequence[str]) -> dict[str, Any]:
    """Return a dataset as COCO json: rotated objects with four corners as segmentation and their hull as bbox.

    Args:
        dataset: what to write.
        names: `file_name` of each picture.
    """
    images = [
        {"id": int(number), "file_name": name, "height": int(height), "width": int(width)}
        for number, name, (height, width) in zip(dataset.ids, names, dataset.sizes, strict=True)
    ]
    categories = [
        {"id": int(number), "name": name} for number, name in zip(dataset.category_ids, dataset.classes, strict=True)
    ]
    return {"images": images, "annotations": list(_annotations(dataset)), "categories": categories}


def _annotations(dataset: Dataset) -> Iterator[dict[str, Any]]:
    owners, ids = dataset.ids[dataset.object_pictures].tolist(), dataset.object_ids.tolist()
    categories, boxes = dataset.category_ids[dataset.labels].tolist(), dataset.boxes.tolist()
    areas = dataset.areas if dataset.polygons is None else measure_quads(dataset.polygons).areas
    polygons = None if dataset.polygons is None else dataset.polygons.reshape(-1, 8).tolist()
    for k in range(dataset.num_objects):
        one = {"id": ids[k], "image_id": owners[k], "category_id": categories[k], "bbox": boxes[k]}
        one |= {"area": float(areas[k]), "iscrowd": int(dataset.crowd[k])}
        if polygons is not None:
            one["segmentation"] = [polygons[k]]
        for mark, flags in (("difficult", dataset.difficult), ("ignore", dataset.ignore)):
            if flags[k]:
                one[mark] = 1
        yield one


def _write_coco(dataset: Dataset, names: Sequence[str], root: Path) -> None:
    content = json.dumps(coco_content(dataset, names), ensure_ascii=False)
    (root / f"instances_{dataset.split}.json").write_text(content, encoding="utf-8")


def _write_dota(dataset: Dataset, names: Sequence[str], root: Path) -> None:
    folder = _folder(root / dataset.split / "labelTxt")
    classes, free = dota_names(dataset.classes), dataset.difficult | dataset.crowd | dataset.ignore
    polygons = _polygons(dataset)
    for name, objects in _by_picture(dataset, names):
        lines = (
            f"{_words(polygons[k].ravel().tolist())} {classes[dataset.labels[k]]} {int(free[k])}\n" for k in objects
        )
        (folder / f"{Path(name).stem}.txt").write_text("".join(lines), encoding="utf-8")


def _write_yolo(dataset: Dataset, names: Sequence[str], root: Path, rotated: bool = False) -> None:
    folder = _folder(root / "labels" / dataset.split)
    sides = np.tile(dataset.sizes[dataset.object_pictures][:, ::-1], 4 if rotated else 2)
    if rotated:
        shares = _polygons(dataset).reshape(-1, 8) / sides
    else:
        x, y, width, height = dataset.boxes.T
        shares = np.stack([x + width / 2, y + height / 2, width, height], axis=1) / sides
    for name, objects in _by_picture(dataset, names):
        lines = (f"{dataset.labels[k]} {' '.join(f'{share:.10g}' for share in shares[k])}\n" for k in objects)
        (folder / f"{Path(name).stem}.txt").write_text("".join(lines), encoding="utf-8")


def _write_xml(dataset: Dataset, names: Sequence[str], root: Path, rotated: bool = False) -> None:
    """Write VOC's xml: a `bndbox` of pixel numbers counted from 1, or a `robndbox` with its angle in radians."""
    folder, lists = _folder(root / "Annotations"), _folder(root / "ImageSets/Main")
    if rotated:
        import torch  # which no other format needs

        from focaldet.geometry.polygon import polygon_to_rbox

        corners = torch.from_numpy(_polygons(dataset).reshape(-1, 8))
        boxes = polygon_to_rbox(corners).numpy()
    else:
        x, y, width, height = dataset.boxes.T
        boxes = np.stack([x + 1, y + 1, x + width, y + height], axis=1)
    tag, free = "robndbox" if rotated else "bndbox", dataset.difficult | dataset.crowd | dataset.ignore
    keys = ("cx", "cy", "w", "h", "angle") if rotated else ("xmin", "ymin", "xmax", "ymax")
    for (name, objects), size in zip(_by_picture(dataset, names), dataset.sizes, strict=True):
        tree = _new_annotation(name, size)
        for k in objects:
            one = ElementTree.SubElement(tree, "object")
            ElementTree.SubElement(one, "type").text = tag
            ElementTree.SubElement(one, "name").text = dataset.classes[dataset.labels[k]]
            ElementTree.SubElement(one, "difficult").text = str(int(free[k]))
            box = ElementTree.SubElement(one, tag)
            for key, number in zip(keys, boxes[k].tolist(), strict=True):
                ElementTree.SubElement(box, key).text = _number(number)
        ElementTree.indent(tree)
        ElementTree.ElementTree(tree).write(folder / f"{Path(name).stem}.xml", encoding="utf-8")
    (lists / f"{dataset.split}.txt").write_text("".join(f"{Path(name).stem}\n" for name in names), encoding="utf-8")


def _new_annotation(name: str, size: npt.NDArray[np.int64]) -> ElementTree.Element:
    tree = ElementTree.Element("annotation")
    ElementTree.SubElement(tree, "filename").text = name
    element = ElementTree.SubElement(tree, "size")
    for side, pixels in zip(("width", "height"), size[::-1].tolist(), strict=True):
        ElementTree.SubElement(element, side).text = str(pixels)
    return tree


def _by_picture(dataset: Dataset, names: Sequence[str]) -> Iterator[tuple[str, range]]:
    """Yield each picture's name and the numbers of its objects."""
    ends = dataset.starts.tolist()
    yield from zip(names, map(range, ends, ends[1:]), strict=True)


def _polygons(dataset: Dataset) -> Floats:
    return xywh_to_polygons(dataset.boxes) if dataset.polygons is None else dataset.polygons


def _skewed(polygons: Floats) -> int:
    """Return how many polygons (N, 4, 2) are no rectangles."""
    measures = measure_quads(polygons)
    return int((measures.areas < RECTANGLE * measures.rectangles).sum())


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _words(numbers: Sequence[float]) -> str:
    return " ".join(map(_number, numbers))


def _number(number: float) -> str:
    """Return the shortest text that reads as the same number."""
    return repr(number).removesuffix(".0")


LAYOUTS: Mapping[Format, Layout] = {
    "coco": Layout("images/{split}", _write_coco, rotated=True),
    "dota": Layout("{split}/images", _write_dota, rotated=True),
    "yolo": Layout("images/{split}", _write_yolo, rotated=False),
    "yolo-obb": Layout("images/{split}", partial(_write_yolo, rotated=True), rotated=True),
    "voc": Layout("JPEGImages", _write_xml, rotated=False),
    "hrsc": Layout("JPEGImages", partial(_write_xml, rotated=True), rotated=True),
}
"""The formats that can be written."""
