"""Feature refinement beside the stored operators of mmcv and of the original program; and against the plain rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.refine import FeatureRefinement, Points, RefineConvs, Sampling, align_features

# sums of at most five float32 values of about 1; gradients gather dozens of them at popular places
FORWARD, BACKWARD = 1e-5, 1e-4
TWO_LEVELS = ((5, 7), (3, 4))


def boxes_at(points: Tensor) -> Tensor:
    """Boxes (B, places, 5) with the given centres (B, places, 2) and hardly any size."""
    return torch.cat([points, points.new_tensor([0.01, 0.01, 0.3]).expand(*points.shape[:-1], 3)], dim=-1)


@pytest.mark.golden
@pytest.mark.parametrize("sampling", ["true", "transposed"])
@pytest.mark.parametrize("points", get_args(Points))
@pytest.mark.parametrize("case", ["square", "wide"])
def test_equals_the_stored_operator_of_mmcv(golden: Path, case: str, points: Points, sampling: Sampling) -> None:
    with np.load(golden / "rotated" / "feature_align.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name.startswith(case)}
    suffix = "" if sampling == "transposed" else "_xyswapped"
    features, boxes = arrays[f"{case}_features"].requires_grad_(), arrays[f"{case}_boxes"].flatten(1, 2)
    (out,) = align_features([features], [boxes], [int(arrays[f"{case}_stride"])], points, sampling)
    torch.testing.assert_close(out, arrays[f"{case}_out_p{points}{suffix}"], atol=FORWARD, rtol=FORWARD)
    out.backward(arrays[f"{case}_grad_out"])
    torch.testing.assert_close(features.grad, arrays[f"{case}_gradin_p{points}{suffix}"], atol=BACKWARD, rtol=BACKWARD)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("file", "sampling", "case"),
    [
        ("r3d", "original", "6x6"),
        ("r3d", "original", "4x7"),
        ("r3d_2020", "original-transposed", "6x6"),
    ],
)
def test_equals_the_original_programs_operation(golden: Path, file: str, sampling: Sampling, case: str) -> None:
    with np.load(golden / "tf" / "unit" / f"{file}.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if "refine_feature_op." in name}
    given = f"refine_feature_op.{case}"
    module = FeatureRefinement(8, [1], sampling=sampling)
    for name in ("1x5", "5x1", "1x1"):
        conv = module.convs[0].get_submodule(f"conv_{name}")
        conv.weight.data = arrays[f"refine_feature_op.var.refine_{name}_P3.weights"].permute(3, 2, 0, 1)
        conv.bias.data = arrays[f"refine_feature_op.var.refine_{name}_P3.biases"]
    features = arrays[f"{given}.in.feature"].permute(0, 3, 1, 2).requires_grad_()
    points = arrays[f"{given}.in.points"].requires_grad_()
    (out,) = module([features], [boxes_at(points[None])])
    torch.testing.assert_close(out.permute(0, 2, 3, 1), arrays[f"{given}.out"], atol=FORWARD, rtol=FORWARD)
    out.backward(arrays[f"{given}.in.cotangent"].permute(0, 3, 1, 2))
    for ours, name in ((features.grad, "feature"), (points.grad, "points")):
        assert ours is not None
        ours = ours.permute(0, 2, 3, 1) if name == "feature" else ours
        torch.testing.assert_close(ours, arrays[f"{given}.grad.{name}"], atol=BACKWARD, rtol=BACKWARD)


def plain_sample(rows: Tensor, x: float, y: float, sampling: Sampling) -> Tensor:
    """What a map [H, W, C] holds at a point, by the sentences of the specification."""
    height, width = rows.shape[:2]
    if sampling == "transposed":
        x, y = y, x
    if sampling in ("true", "transposed"):
        if not (-1 <= x <= width and -1 <= y <= height):
            return torch.zeros(rows.shape[2])
        x, y = min(max(x, 0), width - 1), min(max(y, 0), height - 1)
        corners = [(a, b) for a in (int(y), min(int(y) + 1, height - 1)) for b in (int(x), min(int(x) + 1, width - 1))]
        factors = [a * b for a in (1 - (y - int(y)), y - int(y)) for b in (1 - (x - int(x)), x - int(x))]
        return sum((rows[corner] * factor for corner, factor in zip(corners, factors, strict=True)), torch.zeros(1))
    low_x, high_x = max(0, int(np.floor(x))), min(width - 1, int(np.ceil(x)))
    low_y, high_y = max(0, int(np.floor(y))), min(height - 1, int(np.ceil(y)))
    if sampling == "original":
        low_x, high_x, low_y, high_y = min(low_x, width - 1), max(0, high_x), min(low_y, height - 1), max(0, high_y)
    total = torch.zeros(rows.shape[2])
    for place_x, weight_x in ((low_x, abs(high_x - x)), (high_x, abs(x - low_x))):
        for place_y, weight_y in ((low_y, abs(high_y - y)), (high_y, abs(y - low_y))):
            row, column = (place_x, place_y) if sampling == "original-transposed" else (place_y, place_x)
            if 0 <= row < height and 0 <= column < width:
                total = total + rows[row, column] * weight_x * weight_y
    return total


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_all_levels_and_pictures_follow_the_plain_rule(sampling: Sampling) -> None:
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, *size) for size in TWO_LEVELS]
    strides = (8, 16)
    boxes = [boxes_at(torch.randn(2, h * w, 2) * 60 + 20) for h, w in TWO_LEVELS]
    boxes[0][0, :4, :2] = torch.tensor([[16.0, 8.0], [-8.0, 0.0], [56.0, 40.0], [-8.5, 8.0]])  # whole numbers, the rim
    out = align_features(maps, boxes, strides, sampling=sampling)
    for level, (height, width) in enumerate(TWO_LEVELS):
        for picture in range(2):
            rows = maps[level][picture].permute(1, 2, 0)
            points = (boxes[level][picture, :, :2] / strides[level]).tolist()
            samples = torch.stack([plain_sample(rows, x, y, sampling) for x, y in points]).view(height, width, 3)
            torch.testing.assert_close(out[level][picture].permute(1, 2, 0), rows + samples, rtol=1e-5, atol=1e-4)


def test_five_points_are_the_centre_and_the_corners() -> None:
    features = torch.zeros(1, 1, 6, 6)
    features[0, 0, [1, 1, 3, 3, 2], [1, 3, 1, 3, 2]] = torch.tensor([1.0, 10.0, 100.0, 1000.0, 10000.0])
    boxes = torch.tensor([20.0, 20.0, 20.0, 20.0, 0.0]).expand(1, 36, 5)
    one, five = (align_features([features], [boxes], [10], points)[0] - features for points in get_args(Points))
    assert one.eq(10000).all() and five.eq(11111).all()


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_gradients_reach_features_and_boxes(sampling: Sampling) -> None:
    torch.manual_seed(0)
    features = [torch.randn(2, 2, *size, dtype=torch.float64, requires_grad=True) for size in ((3, 4), (2, 2))]
    centres = [torch.rand(2, count, 2, dtype=torch.float64) * 1.7 + 0.07 for count in (12, 4)]
    boxes = [boxes_at(level).requires_grad_() for level in centres]

    def aligned(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(align_features(tensors[:2], tensors[2:], (1, 1), 5, sampling))

    assert torch.autograd.gradcheck(aligned, (*features, *boxes))


def test_far_outside_is_zero_and_the_rim_is_the_border() -> None:
    features = torch.arange(6.0).view(1, 1, 2, 3)
    points = torch.tensor([[-1.5, 0.0], [-0.5, 0.0], [2.5, 1.0], [1.0, 2.0], [1.0, 2.5], [0.5, 0.5]])
    (out,) = align_features([features], [boxes_at(points[None])], [1])
    assert (out - features).flatten().tolist() == [0.0, 0.0, 5.0, 4.0, 0.0, 2.0]


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_enormous_boxes_and_no_numbers_fetch_no_other_memory(sampling: Sampling) -> None:
    """A network that has diverged must reach its loss, which says so, instead of stopping in the sampling."""
    boxes = boxes_at(torch.tensor([[1e6, -1e6], [float("nan"), 3.0], [float("inf"), 0.0], [0.3, 0.4]])[None])
    (out,) = align_features([torch.ones(1, 2, 2, 2)], [boxes], [1], 5, sampling)
    assert out.shape == (1, 2, 2, 2)
    assert out[0, :, 0, 0].isfinite().all() and out[0, :, 1, 1].isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_maps_are_sampled_at_full_precision_places(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    features, boxes = torch.randn(1, 8, 30, 30), boxes_at(torch.rand(1, 900, 2) * 240)
    (expected,) = align_features([features], [boxes], [8])
    (out,) = align_features([features.to(dtype)], [boxes], [8])
    assert out.dtype == dtype
    # roundings of 8 bits: of the map, of the weights, of the sum
    torch.testing.assert_close(out.float(), expected, rtol=0.02, atol=0.04)


def test_a_refined_map_lies_in_memory_as_the_head_reads_it() -> None:
    features = torch.randn(2, 4, 3, 5).contiguous(memory_format=torch.channels_last)
    (out,) = align_features([features], [boxes_at(torch.rand(2, 15, 2))], [8])
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_convolutions_are_each_levels_own_or_shared_and_the_pyramid_is_added_on_demand() -> None:
    torch.manual_seed(0)
    pyramid = [torch.randn(1, 8, *size) for size in TWO_LEVELS]
    boxes = [boxes_at(torch.rand(1, h * w, 2) * 30) for h, w in TWO_LEVELS]
    own, shared = FeatureRefinement(8, (8, 16)), FeatureRefinement(8, (8, 16), convs="shared", output="p+f+sample")
    assert len(own.convs) == 2 and len(shared.convs) == 1
    for convs in own.convs:
        convs.load_state_dict(shared.convs[0].state_dict())
    for without, added, level in zip(own(pyramid, boxes), shared(pyramid, boxes), pyramid, strict=True):
        torch.testing.assert_close(added, without + level)


def test_initialization() -> None:
    torch.manual_seed(0)
    normal, kaiming = RefineConvs(64), RefineConvs(64, init="kaiming")
    assert all(conv.bias.eq(0).all() for convs in (normal, kaiming) for conv in convs.children())
    assert all(abs(conv.weight.std() - 0.01) < 1e-3 for conv in normal.children())
    # each path keeps the scale of what it gets, so the sum of the two grows by the root of 2
    assert kaiming(torch.randn(1, 64, 24, 24)).detach().std() == pytest.approx(2**0.5, rel=0.1)


@pytest.mark.golden
def test_parameters_are_those_of_the_specification() -> None:
    module = FeatureRefinement(256, (8, 16, 32, 64, 128))
    assert sum(item.numel() for item in module.parameters()) == 3_608_320


def test_it_can_be_exported() -> None:
    class Aligned(torch.nn.Module):
        def forward(self, features: Tensor, boxes: Tensor) -> Any:
            return align_features([features], [boxes], [8])[0]

    given = torch.randn(2, 4, 3, 5), boxes_at(torch.rand(2, 15, 2) * 30)
    exported = torch.export.export(Aligned(), given).module()
    torch.testing.assert_close(exported(*given), Aligned()(*given))


def test_another_number_of_boxes_is_refused() -> None:
    with pytest.raises(FocaldetError, match=r"shapes \[\(1, 5, 5\)\]; give one a place: \[\(1, 6, 5\)\]"):
        align_features([torch.zeros(1, 4, 2, 3)], [torch.zeros(1, 5, 5)], [8])
