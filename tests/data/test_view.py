"""Which pictures and objects are trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from focaldet.data.dataset import Dataset, Objects, build_dataset
from focaldet.data.view import training_view


def dataset_of(boxes: list[list[float]], **flags: list[float]) -> Dataset:
    """One picture of 40 x 60 with the boxes, one without objects, one of 31 x 60 with a box."""
    count = len(boxes)
    return build_dataset(
        classes=["thing"],
        format="coco",
        split="train",
        source=Path("made.json"),
        folder=Path(),
        names=["a", "b", "c"],
        sizes=np.array([(40, 60), (40, 60), (31, 60)]),
        objects=Objects(
            pictures=np.array([0] * count + [2]),
            boxes=np.array([*boxes, [1, 1, 9, 9]], dtype=np.float64),
            labels=np.zeros(count + 1, dtype=np.int64),
            areas=np.array([*flags["areas"], 81.0]) if "areas" in flags else None,
            ignore=np.array([*flags["ignore"], 0], dtype=bool) if "ignore" in flags else None,
        ),
    )


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([0, 0, 10, 10], True),
        ([0, 0, 1, 1], True),
        ([0, 0, 0.99, 10], False),
        ([0, 0, 10, 0.99], False),
        ([60, 5, 10, 10], False),  # touches the border from outside
        ([59.5, 5, 10, 10], True),
        ([-10, 5, 10, 10], False),
        ([-9.5, 5, 10, 10], True),
        ([5, 40, 10, 10], False),
        ([5, -3, 10, 10], True),
    ],
)
def test_which_boxes_are_trained_on(box: list[float], kept: bool) -> None:
    assert training_view(dataset_of([box])).counts.tolist() == [int(kept)]


def test_marked_objects_and_those_without_area_are_left_out_but_their_picture_stays() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    view = training_view(dataset_of([box, box], areas=[0.0, 100.0], ignore=[0, 1]))
    assert view.ids.tolist() == [1]
    assert view.counts.tolist() == [0]


def test_empty_pictures_only_where_asked_for_and_small_ones_never() -> None:
    dataset = dataset_of([[0, 0, 10, 10]])
    assert training_view(dataset).ids.tolist() == [1]
    assert training_view(dataset, empty_pictures=True).ids.tolist() == [1, 2]
    crowded = replace(dataset, crowd=np.ones(2, dtype=bool))
    assert training_view(crowded).counts.tolist() == [1]


# --- rotated objects ---
THIN = [5.0, 5.0, 30.0, 5.0, 30.0, 6.5, 5.0, 6.5]
FAT = [5.0, 5.0, 30.0, 5.0, 30.0, 25.0, 5.0, 25.0]
OUTSIDE = [-30.0, 5.0, -10.0, 5.0, -10.0, 25.0, -30.0, 25.0]
SLANTED = [0.0, 0.0, 30.0, 0.0, 34.0, 1.5, 4.0, 1.5]
"""A parallelogram: its least-area rectangle is 1.5 high, its second side 4.3 long."""


def rotated_set(polygons: list[list[float]], size: tuple[int, int] = (40, 60)) -> Dataset:
    """A picture for each polygon."""
    corners = np.array(polygons).reshape(-1, 4, 2)
    return build_dataset(
        classes=["thing"],
        format="dota",
        split="train",
        source=Path("made"),
        folder=Path(),
        names=[str(number) for number in range(len(polygons))],
        sizes=np.tile(size, (len(polygons), 1)),
        objects=Objects(
            pictures=np.arange(len(polygons)),
            boxes=None,
            labels=np.zeros(len(polygons), dtype=np.int64),
            polygons=corners,
        ),
    )


def test_rows_of_dota_train_on_every_object() -> None:
    dataset = rotated_set([THIN, FAT, OUTSIDE], size=(20, 60))
    assert len(training_view(dataset, min_picture=0, min_side=None)) == 3


def test_pictures_without_fit_objects_are_empty() -> None:
    dataset = rotated_set([THIN, FAT, OUTSIDE])
    assert training_view(dataset, min_side=1.0).ids.tolist() == dataset.ids[:2].tolist()
    assert training_view(dataset, min_side=2.0).ids.tolist() == dataset.ids[1:2].tolist()
    assert training_view(dataset, min_side=2.0, empty_pictures=True).counts.tolist() == [0, 1, 0]


def test_the_side_is_that_of_the_rectangle_which_is_trained_on() -> None:
    dataset = rotated_set([SLANTED])
    assert len(training_view(dataset, min_side=2.0)) == 0
    assert len(training_view(dataset, min_side=2.0, rectangle="by-sides")) == 1
