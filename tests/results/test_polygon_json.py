"""Json with rotated boxes, ours and COCO's: which outline counts, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from focaldet.errors import FocaldetError
from focaldet.results.polygon_json import coco_outline, is_rotated, read_coco_entries, read_own_entries, to_polygons

RBOX = [30, 20, 20, 10, math.pi / 2]
TURNED = [35, 10, 35, 30, 25, 30, 25, 10]  # its corners
OTHER = [0, 0, 4, 0, 4, 4, 0, 4]
OWN: dict[str, Any] = {"image": "a/P1.png", "label": 0, "class": "ship", "score": 0.5, "box": RBOX}
COCO: dict[str, Any] = {"image_id": 7, "category_id": 3, "score": 0.5, "bbox": RBOX}


def test_which_entries_are_rotated() -> None:
    assert is_rotated(OWN) and is_rotated(COCO) and is_rotated({"poly": OTHER})
    assert not is_rotated({"bbox": [1, 2, 3, 4], "segmentation": [OTHER]})
    assert not is_rotated("bbox")


def test_our_entries() -> None:
    entries = [OWN, OWN | {"polygon": OTHER, "class": "plane"}, OWN | {"box": [1, 2, 3, 5], "image": "P2"}]
    table = read_own_entries(entries, "x.json")
    assert (table.pictures, table.classes) == (("P1", "P2"), ("ship", "plane"))
    assert table.owners.tolist() == [0, 0, 1]
    assert table.polygons.reshape(-1, 8) == pytest.approx(np.array([TURNED, OTHER, [1, 2, 3, 2, 3, 5, 1, 5]]))
    assert len(read_own_entries([], "x.json")) == 0


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (1, "entry 1 should be an object with image, class, score and box or polygon"),
        ({"image": 3}, "entry 1 should be an object with image"),
        (OWN | {"score": "x"}, "entry 1 has the score 'x', which should be a number"),
        (OWN | {"box": [1, 2, 3]}, r"entry 1 has the box \[1, 2, 3\], which should be 4 or 5 numbers"),
        (OWN | {"polygon": [1, 2]}, r"entry 1 has the polygon \[1, 2\], which should be 8 numbers"),
        (OWN | {"box": None}, "entry 1 has neither polygon nor box"),
        (OWN | {"box": [1, 2, -3, 4, 0]}, "entry 1 has the box .* with a negative side"),
        (OWN | {"box": [1, 2, 3, 4, 45]}, "entry 1 has the box .*, whose angle is beyond a full turn: give radians"),
    ],
)
def test_entries_of_ours_that_are_wrong(entry: Any, words: str) -> None:
    with pytest.raises(FocaldetError, match=rf"x\.json: {words}"):
        read_own_entries([OWN, entry], "x.json")


def test_coco_entries_by_the_truths_names() -> None:
    table = read_coco_entries([COCO, COCO | {"image_id": 8, "category_id": 4}], {7: "P7"}, {3: "ship"}, "x.json")
    assert (table.pictures, table.classes) == (("P7", "id 8"), ("ship", "id 4"))
    assert table.polygons[0].ravel() == pytest.approx(TURNED)
    for entry, words in (
        ({"score": 1}, "should be an object with image_id"),
        (COCO | {"score": None}, "the score None"),
    ):
        with pytest.raises(FocaldetError, match=rf"x\.json: entry 0 .*{words}|x\.json: entry 0 {words}"):
            read_coco_entries([entry], {}, {}, "x.json")


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"poly": OTHER, "segmentation": [TURNED], "bbox": RBOX}, OTHER),
        ({"segmentation": [OTHER], "bbox": RBOX}, OTHER),
        ({"segmentation": OTHER, "bbox": RBOX}, OTHER),
        ({"segmentation": [[*OTHER, 2, 5]], "bbox": RBOX}, TURNED),
        ({"segmentation": [OTHER, OTHER], "bbox": RBOX}, TURNED),
        ({"segmentation": {"counts": "x"}, "bbox": [0, 0, 4, 4]}, OTHER),
    ],
)
def test_the_most_faithful_outline_counts(entry: dict[str, Any], expected: list[float]) -> None:
    assert to_polygons([coco_outline(entry, "here")]).ravel() == pytest.approx(expected)


def test_no_outline() -> None:
    with pytest.raises(FocaldetError, match="annotation 3 has no outline: give poly or segmentation with 8 numbers"):
        coco_outline({"bbox": [1, 2, None, 4]}, "annotation 3")
