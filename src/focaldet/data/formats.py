"""Recognize a data set by what lies in its folder."""

from __future__ import annotations

from pathlib import Path

from focaldet.data.coco import find_pictures, read_coco
from focaldet.data.dataset import Dataset
from focaldet.errors import FocaldetError


def open_dataset(
    path: str | Path, split: str, *, format: str | None = None, classes: tuple[str, ...] | None = None
) -> Dataset:
    """Open."""
    root = Path(path)
    source = root if root.is_file() else root / f"instances_{split}.json"
    dataset = read_coco(source, split)
    from dataclasses import replace

    dataset = replace(dataset, folder=find_pictures(source, split, dataset.name(0)))
    return dataset if classes is None else dataset.with_classes(classes)
