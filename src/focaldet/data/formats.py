"""Open a data set, whatever form it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, overload

from focaldet.data.data_file import open_data_file
from focaldet.data.dataset import Dataset
from focaldet.data.folders import NoSplitError, check_pictures, open_coco, open_folder
from focaldet.errors import FocaldetError

Split = Literal["train", "val"]


@overload
def open_dataset(
    path: str | Path,
    split: Split,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: Literal[False] = False,
) -> Dataset: ...


@overload
def open_dataset(
    path: str | Path,
    split: Split,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: bool,
) -> Dataset | None: ...


def open_dataset(
    path: str | Path,
    split: Split,
    *,
    format: str | None = None,
    classes: Sequence[str] | None = None,
    missing_ok: bool = False,
) -> Dataset | None:
    """Open one split of a data set; `Dataset.describe` says what was recognized.

    Args:
        path: a folder (COCO, YOLO or VOC, or with a data.yaml), a data.yaml, or a COCO json, which is then every split.
        split: "train" or "val".
        format: "coco", "yolo" or "voc", where several fit.
        classes: the class list, joined by name; None takes the data's own.
        missing_ok: return None where the data set does not have the split.

    Raises:
        FocaldetError: it cannot be opened; one sentence says why and where.
    """
    try:
        dataset = _open(Path(path), split, format)
    except NoSplitError:
        if missing_ok:
            return None
        raise
    return dataset if classes is None else dataset.with_classes(classes)


def _open(path: Path, split: Split, format: str | None) -> Dataset:
    if not path.exists():
        raise FocaldetError(f"data set {path} does not exist; check the path")
    if path.is_dir():
        data_file = path / "data.yaml"
        return open_data_file(data_file, split, format) if data_file.is_file() else open_folder(path, split, format)
    if path.suffix in (".yaml", ".yml"):
        return open_data_file(path, split, format)
    if path.suffix == ".json":
        return check_pictures(open_coco(path, split))
    raise FocaldetError(f"{path} is no data set: name a folder, a COCO json or a data.yaml")
