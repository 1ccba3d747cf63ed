from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.ops import box_iou, generalized_box_iou

from focaldet.errors import FocaldetError
from focaldet.geometry.iou import hbox_giou_aligned, hbox_iou, hbox_iou_aligned

whole = st.integers(0, 40).map(float)  # whole numbers share edges, touch and coincide often
boxes = st.lists(st.tuples(whole, whole, whole, whole), min_size=1, max_size=8).map(
    lambda rows: torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in rows])
)


@given(boxes, boxes)
def test_symmetric_in_range_and_unmoved_by_shifts(first: torch.Tensor, second: torch.Tensor) -> None:
    iou = hbox_iou(first, second)
    assert ((iou >= 0) & (iou <= 1)).all()
    assert torch.equal(iou, hbox_iou(second, first).T)
    assert torch.equal(iou, hbox_iou(first + 64, second + 64))


@given(boxes, boxes)
def test_equals_an_independent_library(first: torch.Tensor, second: torch.Tensor) -> None:
    expected = box_iou(first, second).nan_to_num(0)  # 0 / 0 there
    torch.testing.assert_close(hbox_iou(first, second), expected, rtol=1e-6, atol=0)


@given(boxes)
def test_aligned_is_the_diagonal(hboxes: torch.Tensor) -> None:
    other = hboxes.roll(1, 0) + 0.5
    assert torch.equal(hbox_iou_aligned(hboxes, other), hbox_iou(hboxes, other).diagonal())
    has_area = (hboxes[:, 2:] > hboxes[:, :2]).all(1) & (other[:, 2:] > other[:, :2]).all(1)
    expected = generalized_box_iou(hboxes, other).diagonal()
    torch.testing.assert_close(hbox_giou_aligned(hboxes, other)[has_area], expected[has_area], rtol=1e-5, atol=1e-6)


def test_boxes_without_area_have_iou_zero() -> None:
    point = torch.tensor([[5.0, 5.0, 5.0, 5.0]], requires_grad=True)
    assert hbox_iou(point, point).item() == 0
    assert hbox_iou(point, point, over="first").item() == 0
    hbox_giou_aligned(point, point).sum().backward()
    assert point.grad is not None and point.grad.isfinite().all()


def test_over_first_divides_by_the_first_set() -> None:
    anchor, crowd = torch.tensor([[0.0, 0.0, 4.0, 4.0]]), torch.tensor([[2.0, 0.0, 100.0, 100.0]])
    assert hbox_iou(anchor, crowd, over="first").item() == 0.5


@pytest.mark.parametrize("function", [hbox_iou_aligned, hbox_giou_aligned])
def test_gradients(function: object) -> None:
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(6, 2, generator=generator, dtype=torch.float64)
    first = torch.cat([corner, corner + 2], 1).requires_grad_()
    second = (first.detach() + torch.rand(6, 4, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(function, (first, second))


def test_faults_are_said() -> None:
    with pytest.raises(FocaldetError, match="boxes2 has shape"):
        hbox_iou(torch.zeros(2, 4), torch.zeros(2, 3))
    with pytest.raises(FocaldetError, match="same length"):
        hbox_iou_aligned(torch.zeros(2, 4), torch.zeros(3, 4))


@pytest.mark.golden
def test_equals_the_stored_outputs(units: dict[str, np.ndarray]) -> None:
    boxes = torch.from_numpy(units["iou.boxes"])
    assert torch.equal(hbox_iou(boxes, boxes), torch.from_numpy(units["iou.matrix"]))
    assert torch.equal(hbox_iou(boxes, boxes, over="first"), torch.from_numpy(units["iof.matrix"]))
