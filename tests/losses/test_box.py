from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import decode_hbox, encode_hbox
from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.geometry.rotated_iou import rotated_iou_aligned
from focaldet.losses.box import (
    OVERLAPS,
    iou_smooth_l1_loss,
    l1_loss,
    overlap_loss,
    smooth_l1_atan_loss,
    smooth_l1_loss,
    smooth_l1_one_sided_loss,
)

BETA = 1 / 9  # the original's sigma is 3


def test_smooth_l1_bends_at_beta() -> None:
    deltas = torch.tensor([[0.05, -0.1, 0.3, -2.0]])
    expected = 0.05**2 / 0.2 + 0.1 / 2 + 0.3 - 0.05 + 2.0 - 0.05
    assert smooth_l1_loss(deltas, torch.zeros(1, 4), 0.1).item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(smooth_l1_loss(deltas, torch.zeros(1, 4), 0.0), l1_loss(deltas, torch.zeros(1, 4)))


def test_one_sided_smooth_l1_is_a_square_for_answers_that_are_too_small() -> None:
    deltas = torch.tensor([[0.05, 0.3, 2.0, -0.05, -2.0]])
    expected = 0.05**2 / 0.2 + 0.3 - 0.05 + 2.0 - 0.05 + 0.05**2 / 0.2 + 2.0**2 / 0.2
    assert smooth_l1_one_sided_loss(deltas, torch.zeros(1, 5), 0.1).item() == pytest.approx(expected, rel=1e-6)
    large = deltas.abs()
    assert torch.allclose(
        smooth_l1_one_sided_loss(large, torch.zeros(1, 5), 0.1), smooth_l1_loss(large, torch.zeros(1, 5), 0.1)
    )


def test_atan_bounds_the_angle_and_nothing_else() -> None:
    none = torch.zeros(1, 5)
    turned, moved = torch.tensor([[0, 0, 0, 0, -1e6]]), torch.tensor([[0, 0, 0, -1e6, 0]])
    assert smooth_l1_atan_loss(turned, none, BETA).item() == pytest.approx(np.pi / 2 - BETA / 2, rel=1e-5)
    assert torch.equal(smooth_l1_atan_loss(moved, none, BETA), smooth_l1_loss(moved, none, BETA))
    with pytest.raises(FocaldetError, match="five numbers"):
        smooth_l1_atan_loss(none[:, :4], none[:, :4], BETA)


def test_iou_smooth_l1_follows_the_iou_in_size_and_smooth_l1_in_direction() -> None:
    deltas = torch.tensor([[0.3, -0.2, 0.05, 0.0, 1.0], [1.0, 0, 0, 0, 0]], dtype=torch.float64, requires_grad=True)
    targets, ious = torch.zeros(2, 5, dtype=torch.float64), torch.tensor([0.4, 0.9], dtype=torch.float64)
    loss = iou_smooth_l1_loss(deltas, targets, BETA, ious)
    assert loss.item() == pytest.approx(-np.log(0.4) - np.log(0.9), rel=1e-4)  # the 1e-5 beside L
    loss.backward()
    plain = deltas.detach().requires_grad_()
    smooth_l1_loss(plain, targets, BETA).backward()
    assert deltas.grad is not None and plain.grad is not None
    torch.testing.assert_close(
        torch.cosine_similarity(deltas.grad, plain.grad), torch.ones(2, dtype=torch.float64), rtol=1e-12, atol=0
    )


LIBRARY = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


@pytest.mark.parametrize("form", ["giou", "diou", "ciou"])
def test_overlaps_equal_an_independent_library(form: Literal["giou", "diou", "ciou"]) -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(9, 2, generator=generator, dtype=torch.float64) * 90
    anchors = torch.cat([corner, corner + 20], 1)
    deltas, targets = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64).mul(0.5).unbind()
    boxes, truths = decode_hbox(deltas, anchors), decode_hbox(targets, anchors)
    expected = LIBRARY[form](boxes, truths, "sum")
    torch.testing.assert_close(overlap_loss(boxes, truths, form), expected)  # its 1e-7 in denominators is no matter
    if form != "ciou":  # whose weight is taken for a constant
        assert torch.autograd.gradcheck(lambda some: overlap_loss(some, truths, form), (boxes.requires_grad_(),))
    boxes = boxes.detach().requires_grad_()
    (ours,) = torch.autograd.grad(overlap_loss(boxes, truths, form), boxes)
    (theirs,) = torch.autograd.grad(LIBRARY[form](boxes, truths, "sum"), boxes)
    torch.testing.assert_close(ours, theirs)


def test_a_right_answer_costs_nothing() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[4.0, 2.0, 40.0, 30.0]])
    targets = encode_hbox(boxes, anchors)
    assert l1_loss(targets, targets) == smooth_l1_loss(targets, targets, 0.1) == 0
    assert overlap_loss(boxes, boxes, "giou") == overlap_loss(boxes, boxes, "ciou") == 0


def test_without_positives_the_loss_is_zero_and_in_the_graph() -> None:
    deltas, none = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4)
    for loss in (
        l1_loss(deltas, none),
        smooth_l1_loss(deltas, none, 0.1),
        smooth_l1_one_sided_loss(deltas, none, 0.1),
        iou_smooth_l1_loss(deltas, none, 0.1, none[:, 0]),
        *(overlap_loss(deltas, none, form) for form in OVERLAPS),
    ):
        assert loss.item() == 0 and loss.requires_grad


def test_never_in_half_precision() -> None:
    deltas = torch.full((1, 4), 1000.0, dtype=torch.float16)
    assert l1_loss(deltas * 60, torch.zeros(1, 4)).item() == 240_000  # float16 ends at 65,504
    with torch.autocast("cpu", torch.bfloat16):
        assert smooth_l1_loss(deltas, torch.zeros(1, 4), 0.0).dtype == torch.float32


@pytest.mark.golden
def test_l1_equals_the_stored_output(units: dict[str, np.ndarray]) -> None:
    said, asked, weight = (torch.from_numpy(units[f"l1.{name}"]) for name in ("pred", "target", "weight"))
    rows = weight.bool().any(1)
    assert torch.equal(weight[rows], torch.ones_like(weight[rows]))
    loss = l1_loss(said[rows], asked[rows]) / (5 + torch.finfo(torch.float32).eps)
    assert loss.item() == pytest.approx(units["l1.avg5"].item(), rel=1e-6)  # float32 sums


def stored_case(tf_units: dict[str, np.ndarray], name: str) -> list[Tensor]:
    """Deltas, targets, anchors, truth boxes and the stored gradient of positives, and their number, at least 1."""
    rows = torch.from_numpy(tf_units[f"{name}.in.state"]) == 1
    parts = [f"{name}.{part}" for part in ("in.preds", "in.targets", "in.anchors", "in.target_boxes", "out.grad")]
    found = [torch.from_numpy(tf_units[part])[rows] if part in tf_units else torch.empty(0) for part in parts]
    return [*found, rows.sum().clamp(min=1)]


def check_stored(tf_units: dict[str, np.ndarray], name: str, loss: Tensor, deltas: Tensor, expected: Tensor) -> None:
    """Hold a loss and its gradient to the stored ones: float32 sums, and an IoU that OpenCV took in float32."""
    loss.backward()
    assert loss.item() == pytest.approx(tf_units[f"{name}.out.loss"].item(), rel=1e-5)
    torch.testing.assert_close(deltas.grad, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.golden
@pytest.mark.parametrize(
    "name", ["smooth_l1_loss", "smooth_l1_loss_nopos", "smooth_l1_loss_atan", "smooth_l1_loss_atan_big"]
)
def test_smooth_l1_equals_the_original_rotated_programs(tf_units: dict[str, np.ndarray], name: str) -> None:
    deltas, targets, _, _, gradient, normalizer = stored_case(tf_units, name)
    lost_its_absolute_value = str(tf_units["program"]) in ("rtr_2019", "r3d_2020")
    plain = smooth_l1_one_sided_loss if lost_its_absolute_value else smooth_l1_loss
    loss = smooth_l1_atan_loss if "atan" in name else plain
    check_stored(tf_units, name, loss(deltas.requires_grad_(), targets, BETA) / normalizer, deltas, gradient)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["H", "R", "R_zero_overlap", "exp_H", "exp_R", "exp_R_zero_overlap", "exp_refine"])
def test_iou_smooth_l1_equals_the_original_rotated_programs(tf_units: dict[str, np.ndarray], name: str) -> None:
    if f"iou_smooth_l1_loss_{name}.out.loss" not in tf_units:
        assert "exp" in name  # only the last state of one program has this form
        return
    deltas, targets, anchors, boxes, gradient, normalizer = stored_case(tf_units, f"iou_smooth_l1_loss_{name}")
    coder = RboxCoder("tf90", max_log_scale=None)
    anchors = coder.from_hbox(anchors, plus_one=True) if anchors.shape[1] == 4 else in_radians(anchors)
    pair = [coder.decode(deltas, anchors), in_radians(boxes[:, :5])]
    if str(tf_units["program"]) == "r3d":  # measures with sides + 1
        pair = [torch.cat([each[:, :2], each[:, 2:4] + 1, each[:, 4:]], 1) for each in pair]
    ious = rotated_iou_aligned(pair[0].double(), pair[1].double())
    form = "exp" if name.startswith("exp") else "log"
    loss = iou_smooth_l1_loss(deltas.requires_grad_(), targets, BETA, ious, form, floor=0.0) / normalizer
    assert loss.isinf() == (name == "R_zero_overlap")
    check_stored(tf_units, f"iou_smooth_l1_loss_{name}", loss, deltas, gradient)


def in_radians(boxes: Tensor) -> Tensor:
    return torch.cat([boxes[:, :4], boxes[:, 4:].double().deg2rad().float()], 1)
