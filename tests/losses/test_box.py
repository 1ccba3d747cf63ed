from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from focaldet.geometry.coders import decode_hbox, encode_hbox
from focaldet.losses.box import giou_loss, l1_loss, smooth_l1_loss


def test_smooth_l1_bends_at_beta() -> None:
    deltas = torch.tensor([[0.05, -0.1, 0.3, -2.0]])
    expected = 0.05**2 / 0.2 + 0.1 / 2 + 0.3 - 0.05 + 2.0 - 0.05
    assert smooth_l1_loss(deltas, torch.zeros(1, 4), 0.1).item() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(smooth_l1_loss(deltas, torch.zeros(1, 4), 0.0), l1_loss(deltas, torch.zeros(1, 4)))


def test_giou_equals_an_independent_library() -> None:
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(9, 2, generator=generator, dtype=torch.float64) * 90
    anchors = torch.cat([corner, corner + 20], 1)
    deltas, targets = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64).mul(0.5).unbind()
    expected = generalized_box_iou_loss(decode_hbox(deltas, anchors), decode_hbox(targets, anchors), "sum")
    torch.testing.assert_close(
        giou_loss(deltas, targets, anchors), expected
    )  # its 1e-7 in the denominator is no matter
    assert torch.autograd.gradcheck(lambda d: giou_loss(d, targets, anchors), (deltas.requires_grad_(),))


def test_a_right_answer_costs_nothing() -> None:
    anchors, boxes = torch.tensor([[0.0, 0.0, 32.0, 32.0]]), torch.tensor([[4.0, 2.0, 40.0, 30.0]])
    targets = encode_hbox(boxes, anchors)
    assert (
        l1_loss(targets, targets) == smooth_l1_loss(targets, targets, 0.1) == giou_loss(targets, targets, anchors) == 0
    )


def test_without_positives_the_loss_is_zero_and_in_the_graph() -> None:
    deltas, none = torch.zeros(0, 4, requires_grad=True), torch.zeros(0, 4)
    for loss in (l1_loss(deltas, none), smooth_l1_loss(deltas, none, 0.1), giou_loss(deltas, none, none)):
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
