"""Feature alignment beside the stored operator of mmcv, which reads x as y; and against the plain rule."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.models.refine import Place, Points, align_features, sample_bilinear

# sums of at most five float32 values of about 1; gradients gather dozens of them at popular places
FORWARD, BACKWARD = 1e-5, 1e-4


@pytest.mark.golden
@pytest.mark.parametrize("place", get_args(Place))
@pytest.mark.parametrize("points", get_args(Points))
@pytest.mark.parametrize("case", ["square", "wide"])
def test_equals_the_stored_operator(golden: Path, case: str, points: Points, place: Place) -> None:
    with np.load(golden / "rotated" / "feature_align.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name.startswith(case)}
    suffix = "" if place == "transposed" else "_xyswapped"
    features = arrays[f"{case}_features"].requires_grad_()
    stride = int(arrays[f"{case}_stride"])
    out = align_features(features, arrays[f"{case}_boxes"], stride, points, place)
    torch.testing.assert_close(out, arrays[f"{case}_out_p{points}{suffix}"], atol=FORWARD, rtol=FORWARD)
    out.backward(arrays[f"{case}_grad_out"])
    torch.testing.assert_close(features.grad, arrays[f"{case}_gradin_p{points}{suffix}"], atol=BACKWARD, rtol=BACKWARD)


def test_gradients_reach_features_and_boxes() -> None:
    torch.manual_seed(0)
    features = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    spots = (torch.rand(1, 3, 4, 2, 2, dtype=torch.float64) * 1.9 + 0.03).requires_grad_()
    assert torch.autograd.gradcheck(sample_bilinear, (features, spots))


def test_far_outside_is_zero_and_the_rim_is_the_border() -> None:
    features = torch.arange(6.0).view(1, 1, 2, 3)
    spots = torch.tensor([[-1.5, 0.0], [-0.5, 0.0], [2.5, 1.0], [1.0, 2.0], [1.0, 2.5], [0.5, 0.5]]).view(1, 1, 6, 1, 2)
    assert sample_bilinear(features, spots).flatten().tolist() == [0.0, 0.0, 5.0, 4.0, 0.0, 2.0]


def test_another_number_of_boxes_is_refused() -> None:
    with pytest.raises(FocaldetError, match=r"give one a place: \(1, 2, 3, 5\)"):
        align_features(torch.zeros(1, 4, 2, 3), torch.zeros(1, 3, 2, 5), 8)
