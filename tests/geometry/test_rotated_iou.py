"""Exact IoU of rboxes: stored truth, properties, gradients, export, faults."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from focaldet.geometry.rotated_iou import rotated_iou


@pytest.mark.golden
def test_equals_the_stored_truth(golden: Path) -> None:
    stored = np.load(golden / "rotated" / "iou.npz")
    iou = rotated_iou(stored["boxes1"].astype(np.float64), stored["boxes2"].astype(np.float64))
    np.testing.assert_allclose(iou, stored["iou_shapely"], rtol=0, atol=2e-12)  # shapely's own error is 1e-12
