"""The made-up boxes: as many as asked for, always the same, and in need of what is done with them."""

from __future__ import annotations

import numpy as np

from focaldet.bench.scenes import DIFFICULT, SIDES, TILE, boxes_on_tile, contest, crowd
from focaldet.geometry import batched_rotated_nms
from focaldet.metrics.dota import rotated_scores


def test_boxes_on_a_tile() -> None:
    for spread, median in (("logarithm", 57), ("pixels", 204)):
        boxes = boxes_on_tile(4_000, spread=spread)  # type: ignore[arg-type]
        assert boxes.shape == (4_000, 5) and boxes.dtype == np.float32
        assert boxes[:, :2].min() >= 0 and boxes[:, :2].max() <= TILE
        assert boxes[:, 2:4].min() >= SIDES[0] and boxes[:, 2:4].max() <= SIDES[1]
        assert abs(np.median(boxes[:, 2:4]) / median - 1) < 0.05
    assert np.array_equal(boxes_on_tile(9), boxes_on_tile(9)) and not np.array_equal(
        boxes_on_tile(9, 1), boxes_on_tile(9)
    )


def test_a_crowd_shrinks_to_about_its_objects() -> None:
    scene = crowd(2_000, 20)
    assert [len(part) for part in scene] == [2_000] * 3
    assert len(np.unique(scene.scores)) == 2_000 and set(scene.labels) == set(range(15))
    kept = batched_rotated_nms(*scene, 0.1)
    assert 100 < len(kept) < 400  # of 100 objects; some boxes have another label
    assert all(np.array_equal(*parts) for parts in zip(scene, crowd(2_000, 20), strict=True))


def test_a_contest_can_be_scored() -> None:
    made = contest(5, 40, 160, num_classes=3)
    truth, found = made.truth, made.found
    assert (len(truth), len(found)) == (120, 480)
    assert np.bincount(truth.labels).tolist() == [40] * 3 and np.bincount(found.labels).tolist() == [160] * 3
    assert len(np.unique(found.scores)) == 480 and 0 < truth.difficult.mean() < 4 * DIFFICULT
    assert made.truth_boxes.shape == (120, 5) and made.found_boxes.shape == (480, 5)
    figure = rotated_scores(truth, found)["AP50"]
    assert figure is not None and 0.5 < figure < 0.95
