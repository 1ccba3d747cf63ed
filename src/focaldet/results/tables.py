"""Truth and detections of many pictures as a few flat arrays of polygons: what readers give and scoring takes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from focaldet.errors import FocaldetError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif"})


@dataclass(frozen=True, eq=False, kw_only=True)
class PolygonTable:
    """N quadrilaterals of many pictures.

    Attributes:
        pictures: names, in the form of `picture_key`, each once; one without any polygon counts as well.
        classes: names.
        polygons: (N, 4, 2) float64 corners in pixels of the picture, as they stand in the file.
        owners: (N,) int64 places in `pictures`.
        labels: (N,) int64 places in `classes`.
        notes: what a reader has to say aloud, a sentence each.

    Raises:
        FocaldetError: arrays do not fit together.
    """

    pictures: tuple[str, ...]
    classes: tuple[str, ...]
    polygons: Floats
    owners: Ints
    labels: Ints
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.polygons)
        if self.polygons.shape != (count, 4, 2):
            raise FocaldetError(f"polygons have shape {self.polygons.shape}; give (N, 4, 2)")
        for name, numbers, limit in (("owners", self.owners, self.pictures), ("labels", self.labels, self.classes)):
            if numbers.shape != (count,) or (count and not 0 <= numbers.min() <= numbers.max() < len(limit)):
                raise FocaldetError(f"{name} should be {count} numbers from 0 to {len(limit) - 1}, a place each")

    def __len__(self) -> int:
        return len(self.polygons)


@dataclass(frozen=True, eq=False, kw_only=True)
class TruthTable(PolygonTable):
    """What is to be found.

    Attributes:
        difficult: (N,) bool, objects that are neither to be found nor false alarms.
    """

    difficult: Bools


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionTable(PolygonTable):
    """What was found, in the order of the files, which decides between equal scores.

    Attributes:
        scores: (N,) float64.
    """

    scores: Floats


@lru_cache(maxsize=2**16)  # files name a picture once for each detection in it
def picture_key(name: str) -> str:
    """Return what pictures are joined by: the file's name without its folder and a picture's suffix.

    >>> picture_key("val/images/P0003__0.5__0___824.png"), picture_key("P0003__0.5__0___824")
    ('P0003__0.5__0___824', 'P0003__0.5__0___824')
    """
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in PICTURE_SUFFIXES else path.name


def number_names(names: list[str]) -> tuple[tuple[str, ...], Ints]:
    """Return the distinct names in order of appearance, and each one's place among them.

    >>> number_names(["b", "a", "b"])
    (('b', 'a'), array([0, 1, 0]))
    """
    place_of: dict[str, int] = {}
    places = np.array([place_of.setdefault(name, len(place_of)) for name in names], dtype=np.int64)
    return tuple(place_of), places


def places_in(names: tuple[str, ...], known: tuple[str, ...]) -> Ints:
    """Return the place of each name among the known ones, -1 where it is not known."""
    place_of = {name: place for place, name in enumerate(known)}
    return np.array([place_of.get(name, -1) for name in names], dtype=np.int64)
