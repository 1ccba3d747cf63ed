"""Flat tables of polygons: what does not fit together is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from focaldet.errors import FocaldetError
from focaldet.results.tables import PolygonTable, picture_key, places_in

GOOD: dict[str, Any] = {
    "pictures": ("a",),
    "classes": ("ship",),
    "polygons": np.zeros((2, 4, 2)),
    "owners": np.zeros(2, np.int64),
    "labels": np.zeros(2, np.int64),
}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"polygons": np.zeros((2, 8))}, r"polygons have shape \(2, 8\)"),
        ({"owners": np.zeros(3, np.int64)}, "owners should be 2 numbers from 0 to 0"),
        ({"labels": np.array([0, 1])}, "labels should be 2 numbers from 0 to 0"),
        ({"labels": np.array([-1, 0])}, "labels should be 2 numbers"),
    ],
)
def test_arrays_that_do_not_fit(changes: dict[str, Any], words: str) -> None:
    assert len(PolygonTable(**GOOD)) == 2
    with pytest.raises(FocaldetError, match=words):
        PolygonTable(**GOOD | changes)


def test_names() -> None:
    assert picture_key("C:\\data\\P1.TIFF") == "P1"
    assert picture_key("P1.v2") == "P1.v2"  # no suffix of a picture
    assert places_in(("b", "x"), ("a", "b")).tolist() == [1, -1]
