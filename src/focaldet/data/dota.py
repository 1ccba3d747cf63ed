"""Read DOTA's labels, a text file a picture, into a Dataset or as truth for scoring, and COCO json as such truth."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from focaldet.data.dataset import Dataset, LeftOut, sort_out_polygons
from focaldet.data.rotated import RotatedObjects, build_rotated
from focaldet.errors import FocaldetError, did_you_mean
from focaldet.results.coco import check_coco_truth
from focaldet.results.dota import in_dota_order
from focaldet.results.polygon_json import coco_outline, to_polygons
from focaldet.results.tables import Ints, TruthTable, picture_key

HEADERS = ("imagesource:", "gsd:")
"""How the two lines start that DOTA puts above the objects."""
UPRIGHT = re.compile(r"hbb|rec", re.IGNORECASE)
"""In the names of DOTA's folders of upright boxes."""
EXPECTED = "x1 y1 x2 y2 x3 y3 x4 y4 class difficult"


class LabelledObject(NamedTuple):
    """One object of a file: 8, 5 or 4 numbers, its class, whether it is difficult, where it stands."""

    outline: list[float]
    name: str
    difficult: bool
    place: str


def read_dota(
    pictures: Sequence[Path],
    labels: Path,
    split: str,
    source: Path,
    classes: Sequence[str] | None = None,
    *,
    beside: Sequence[Path] = (),
    all_labels: bool = False,
) -> Dataset:
    """Read the labels of some pictures; lines are as `read_label_folder` says.

    Args:
        pictures: their files, no two of one stem.
        labels: the folder of the label files; each picture needs its own, an empty one where it has no object.
        split: "train" or "val", for the record.
        source: folder or file to name in messages.
        classes: names by label; None takes those that the files of this folder and of those `beside` it name, in the
            devkit's order.
        beside: label folders of the other splits.
        all_labels: whether each label file should have its picture; those that have none are then counted.

    Raises:
        FocaldetError: a line is wrong, a picture has no label file, or a class is not among `classes`.
    """
    paths = {path.stem: path for path in labels.glob("*.txt")}
    missing = [picture for picture in pictures if picture.stem not in paths]
    if missing:
        raise FocaldetError(
            f"{len(missing)} of the {len(pictures)} pictures of {source} have no label file in {labels}, the first is "
            f"{missing[0].name}; an empty file stands for a picture without objects"
        )
    found = RotatedObjects()
    for number, picture in enumerate(pictures):
        for one in read_label_file(paths[picture.stem]):
            found.add(number, one.outline, one.name, one.difficult, one.place)
    used = {picture.stem for picture in pictures}
    unused = sorted(stem for stem in paths if stem not in used)
    if classes is None:
        others = [paths[stem] for stem in unused] + [path for folder in beside for path in folder.glob("*.txt")]
        classes = in_dota_order({*found.names, *class_names(others)})
    lonely = (LeftOut("label files without a picture", len(unused), str(paths[unused[0]])),) if unused else ()
    return build_rotated(
        found,
        pictures=pictures,
        classes=classes,
        format="dota",
        split=split,
        source=source,
        left_out=lonely if all_labels else (),
    )


def read_label_file(path: Path) -> list[LabelledObject]:
    """Read one label file; lines are as `read_label_folder` says."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise FocaldetError(f"{path}: cannot be read as text ({fault})") from fault
    return [
        _read_line(line, f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lower().startswith(HEADERS)
    ]


def class_names(paths: Iterable[Path]) -> set[str]:
    """Return every class that label files name; what is wrong with a line shows when its file is read."""
    rows = (
        line.split() for path in paths for line in path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    )
    return {words[8] for words in rows if len(words) in (9, 10)}


def label_folder(path: Path) -> Path | None:
    """Return where a folder's label files are: in its labelTxt or labelTxt-v1.0 or the like, or in itself.

    mmrotate's tiles have them in `annfiles`, DOTA's archives of v1.5 and v2.0 in a folder such as
    labelTxt-v1.5/DOTA-v1.5_train, beside one of upright boxes.

    Raises:
        FocaldetError: there are several such folders.
    """
    if (path / "labelTxt").is_dir():
        return label_folder(path / "labelTxt") or path / "labelTxt"
    folders = sorted(folder for folder in path.glob("labelTxt*") if folder.is_dir())
    folders = folders or [folder for folder in (path / "annfiles",) if folder.is_dir()]
    if len(folders) > 1:
        raise FocaldetError(f"{path} holds {' and '.join(folder.name for folder in folders)}; name one of them")
    if folders:
        return label_folder(folders[0])
    if any(path.glob("*.txt")):
        return path
    if not path.name.startswith("labelTxt"):
        return None
    inner = [folder for folder in path.iterdir() if not UPRIGHT.search(folder.name) and any(folder.glob("*.txt"))]
    return inner[0] if len(inner) == 1 else None


def read_label_folder(folder: str | Path, pictures: str | Path | None = None) -> TruthTable:
    """Read the labels of a folder of pictures: DOTA v1.0, v1.5 or v2.0, or what is written like them.

    A line is `x1 y1 x2 y2 x3 y3 x4 y4 class difficult`; without the last word the object is not difficult. The lines
    `imagesource:` and `gsd:` may stand above. An empty file is a picture without objects. Objects whose polygon crosses
    itself or has no area are left out and counted; of equal objects each counts.

    Args:
        folder: holds the label files, or a folder labelTxt with them.
        pictures: a text file that names the pictures which count, one a line; None takes all.

    Returns:
        Classes are those that the files name, in the devkit's order.

    Raises:
        FocaldetError: there are no label files, or a line is not as above; the sentence names file and line.
    """
    place = label_folder(Path(folder))
    if place is None:
        raise FocaldetError(f"{folder} holds neither label files, such as P0003.txt, nor a folder labelTxt with them")
    paths = sorted(place.glob("*.txt")) if pictures is None else _listed(place, Path(pictures))
    tables = [read_label_file(path) for path in paths]
    objects = [one for table in tables for one in table]
    return _to_table(
        [path.stem for path in paths],
        in_dota_order({one.name for one in objects}),
        objects,
        np.repeat(np.arange(len(paths)), [len(table) for table in tables]),
    )


def read_coco_polygons(content: Any, where: str) -> TruthTable:
    """Turn COCO annotations with rotated boxes or four corners into truth; `coco_outline` says which forms there are.

    Objects marked `iscrowd`, `ignore` or `difficult` count as difficult. Pictures are known by their files' names
    without folder and suffix.

    Args:
        content: what the json file held.
        where: its name, for sentences.

    Raises:
        FocaldetError: it is no COCO annotations, or an object has no outline.
    """
    check_coco_truth(content, where, upright=False)
    names = {item["id"]: picture_name(item) for item in content["images"]}
    classes = {item["id"]: str(item.get("name", item["id"])) for item in content["categories"]}
    for known, what in ((names, "pictures"), (classes, "categories")):
        if len(set(known.values())) < len(known):
            twice = next(name for name in known.values() if list(known.values()).count(name) > 1)
            raise FocaldetError(f"{where} has two {what} of the name {twice!r}, by which detections are joined")
    objects, owners = [], []
    place_of = {key: place for place, key in enumerate(names)}
    for number, item in enumerate(content["annotations"]):
        place = f"{where}: annotation {number}"
        difficult = any(bool(item.get(mark)) for mark in ("iscrowd", "ignore", "difficult"))
        objects.append(LabelledObject(coco_outline(item, place), classes[item["category_id"]], difficult, place))
        owners.append(place_of[item["image_id"]])
    return _to_table(
        list(names.values()),
        tuple(classes[key] for key in sorted(classes)),
        objects,
        np.array(owners, dtype=np.int64),
    )


def picture_name(image: Any) -> str:
    """Return the name by which a picture of COCO annotations is joined: its file's, or its id where it has none."""
    return picture_key(str(image.get("file_name", image["id"])))


def _to_table(
    pictures: Sequence[str], classes: tuple[str, ...], objects: Sequence[LabelledObject], owners: Ints
) -> TruthTable:
    polygons = to_polygons([one.outline for one in objects])
    kept, notes = sort_out_polygons(polygons, lambda k: objects[k].place)
    label_of = {name: label for label, name in enumerate(classes)}
    return TruthTable(
        pictures=tuple(pictures),
        classes=classes,
        polygons=polygons[kept],
        owners=owners[kept],
        labels=np.array([label_of[one.name] for one in objects], dtype=np.int64)[kept],
        difficult=np.array([one.difficult for one in objects], dtype=np.bool_)[kept],
        notes=tuple(f"left out: {note}" for note in notes),
    )


def _listed(folder: Path, pictures: Path) -> list[Path]:
    """Return the label files of the pictures that a text file names, each once."""
    try:
        lines = pictures.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as fault:
        raise FocaldetError(f"{pictures}: cannot be read as a list of pictures ({fault})") from fault
    keys = dict.fromkeys(picture_key(line.strip()) for line in lines if line.strip())
    there = {path.stem: path for path in folder.glob("*.txt")}
    missing = [key for key in keys if key not in there]
    if missing:
        raise FocaldetError(
            f"{len(missing)} of the {len(keys)} pictures of {pictures} have no label file in {folder}, the first is "
            f"{missing[0]}{did_you_mean(missing[0], there)}; an empty file stands for a picture without objects"
        )
    return [there[key] for key in keys]


def _read_line(line: str, place: str) -> LabelledObject:
    words = line.split()
    try:
        corners = [float(word) for word in words[:8]]
        difficult = int(words[9]) if len(words) > 9 else 0
    except ValueError:
        corners, difficult = [], 0
    if len(words) not in (9, 10) or len(corners) != 8 or not all(map(math.isfinite, corners)) or difficult < 0:
        raise FocaldetError(f"{place} reads {line.strip()[:80]!r}; expected is {EXPECTED}")
    return LabelledObject(corners, words[8], difficult != 0, place)
