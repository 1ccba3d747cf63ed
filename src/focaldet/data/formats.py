"""Open a data set, whatever form it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from focaldet.data.data_file import ignored_classes, open_data_file
from focaldet.data.dataset import Dataset, Kind
from focaldet.data.folders import open_coco, open_folder
from focaldet.data.listing import NoSplitError, check_pictures
from focaldet.data.paths import outside_allowed
from focaldet.errors import FocaldetError

Split = Literal["train", "val"]


@overload
def open_dataset(
    path: str | Path,
    split: Split,
    *,
    kind: Kind | None = None,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: Literal[False] = False,
    allow_outside: bool = False,
) -> Dataset: ...


@overload
def open_dataset(
    path: str | Path,
    split: Split,
    *,
    kind: Kind | None = None,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: bool,
    allow_outside: bool = False,
) -> Dataset | None: ...


def open_dataset(
    path: str | Path,
    split: Split,
    *,
    kind: Kind | None = None,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: bool = False,
    allow_outside: bool = False,
) -> Dataset | None:
    """Open one split of a data set; `Dataset.describe` says what was recognized.

    Args:
        path: a folder (COCO, DOTA, YOLO, VOC, HRSC or ICDAR, or with a data.yaml), a data.yaml, or a COCO json, which
            is then every split.
        split: "train" or "val".
        kind: the boxes that are wanted: "hbox" takes rotated objects by their hulls, "rbox" upright ones as the
            rectangles that they are; where several formats fit a folder, that with such boxes is taken. None takes
            objects as they are.
        format: one of FORMAT_NAMES, where several fit.
        classes: the class list, joined by name; None takes the data's own.
        missing_ok: return None where the data set does not have the split.
        allow_outside: take pictures that lists and jsons name outside of the data set's folders; it is allowed inside
            the block `outside_allowed` too.

    Raises:
        FocaldetError: it cannot be opened; one sentence says why and where.
    """
    try:
        with outside_allowed(allow_outside):
            dataset = open_as_written(Path(path), split, format, kind)
    except NoSplitError:
        if missing_ok:
            return None
        raise
    dataset = dataset if kind is None else dataset.as_kind(kind)
    return dataset if classes is None else dataset.with_classes(classes)


def open_as_written(
    path: Path, split: Split, format: str | None = None, kind: Kind | None = None, *, with_ignored: bool = True
) -> Dataset:
    """Open one split with its boxes of the kind that the files have; arguments are as in `open_dataset`.

    Args:
        path: of the data set.
        split: "train" or "val".
        format: decides where several fit.
        kind: boxes that come first where several formats fit.
        with_ignored: whether the classes that a data.yaml names as `ignored` lose their names.
    """
    if not path.exists():
        raise FocaldetError(f"data set {path} does not exist; check the path")
    if path.is_dir():
        data_file = path / "data.yaml"
        if not data_file.is_file():
            return open_folder(path, split, format, kind)
        return open_data_file(data_file, split, format, kind, with_ignored=with_ignored)
    if path.suffix in (".yaml", ".yml"):
        return open_data_file(path, split, format, kind, with_ignored=with_ignored)
    if path.suffix == ".json":
        return check_pictures(open_coco(path, split))
    raise FocaldetError(f"{path} is no data set: name a folder, a COCO json or a data.yaml")


def ignored_in(path: Path) -> list[str]:
    """Return the classes that a data set's data.yaml names as `ignored`; none without such a file."""
    path = path / "data.yaml" if path.is_dir() else path
    return ignored_classes(path) if path.suffix in (".yaml", ".yml") and path.is_file() else []
