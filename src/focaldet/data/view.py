"""Which pictures and objects of a data set are trained on: every code base leaves out others."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch

from focaldet.data.dataset import Bools, Dataset, Floats
from focaldet.geometry.polygon import polygon_to_rbox, polygon_to_rbox_by_sides

Rectangle = Literal["least-area", "by-sides"]
"""As which rbox a polygon is taken: that of least area around it, or one that has its first two sides (quirk)."""


def training_view(
    dataset: Dataset,
    *,
    empty_pictures: bool = False,
    min_picture: int = 32,
    min_side: float | None = 1.0,
    rectangle: Rectangle = "least-area",
) -> Dataset:
    """Return what is trained on: pictures that are not too small and not empty, with their fit objects.

    An upright set's picture is empty if nothing at all is annotated in it, as in the rows of COCO; a rotated set's, if
    no fit object is, as in the rows of DOTA and in mmrotate.

    Args:
        dataset: as read, in the classes that are asked for.
        empty_pictures: keep those too.
        min_picture: pixels that the shorter side of a picture must have.
        min_side: see `trainable_objects`.
        rectangle: see `trainable_objects`.
    """
    fit = dataset.keep_objects(trainable_objects(dataset, min_side, rectangle))
    wanted = dataset.sizes.min(axis=1) >= min_picture
    if not empty_pictures:
        wanted &= (fit if dataset.kind == "rbox" else dataset).counts > 0
    return fit.select(np.flatnonzero(wanted))


def trainable_objects(dataset: Dataset, min_side: float | None = 1.0, rectangle: Rectangle = "least-area") -> Bools:
    """Return (N,) which objects are trained on: never those marked `ignore`; crowds stay, and are told apart later.

    Args:
        dataset: as read.
        min_side: objects with a shorter side, in pixels of the file, are left out, and so are those outside their
            picture and those of no area, which is the file's and need not be that of the box. None: all are fit, as in
            the rows of DOTA.
        rectangle: whose sides are measured, of rotated objects.
    """
    wanted: Bools = ~dataset.ignore
    if min_side is None:
        return wanted
    x, y, width, height = dataset.boxes.T
    limits = dataset.sizes[dataset.object_pictures]
    inside_x = np.minimum(x + width, limits[:, 1]) - np.maximum(x, 0)
    inside_y = np.minimum(y + height, limits[:, 0]) - np.maximum(y, 0)
    wanted &= (inside_x > 0) & (inside_y > 0) & (dataset.areas > 0)
    wanted &= _sides(dataset, rectangle).min(axis=1) >= min_side
    return wanted


def _sides(dataset: Dataset, rectangle: Rectangle) -> Floats:
    """Return the (N, 2) sides of objects, in pixels."""
    if dataset.polygons is None:
        return dataset.boxes[:, 2:]
    fit = polygon_to_rbox if rectangle == "least-area" else polygon_to_rbox_by_sides
    sides: Floats = fit(torch.from_numpy(dataset.polygons.reshape(-1, 8)))[:, 2:4].numpy()
    return sides
