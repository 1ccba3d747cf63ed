"""What public geometry says about bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.check import check_numbers, check_rboxes, check_together, numbers_are_known, takes_numpy


@takes_numpy
def twice(boxes: Tensor, other: Tensor | None = None) -> Tensor:
    """Twice the boxes."""
    check_rboxes(boxes, "boxes")
    return 2 * boxes


def changed(row: int, column: int, value: float) -> Tensor:
    boxes = torch.ones(4, 5)
    boxes[row, column] = value
    return boxes


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        pytest.param(changed(2, 0, float("nan")), r"boxes\[2\] is \[nan, 1.0, .*; give finite numbers", id="nan"),
        pytest.param(changed(1, 4, float("inf")), r"boxes\[1\] is .*inf\]; give finite numbers", id="inf"),
        pytest.param(changed(3, 1, -float("inf")), r"boxes\[3\] is \[1.0, -inf, .*; give finite numbers", id="-inf"),
        pytest.param(changed(3, 3, -0.5), r"boxes\[3\] is .*, with a negative side; give w >= 0 and h >= 0", id="h"),
        pytest.param(changed(0, 2, -1e-9), r"boxes\[0\] is .*, with a negative side", id="w"),
        pytest.param(torch.ones(4, 4), r"boxes has shape \(4, 4\); give rboxes .* of shape \(N, 5\)", id="four"),
        pytest.param(torch.ones(5), r"boxes has shape \(5,\); give rboxes", id="one axis"),
        pytest.param(torch.ones(1, 4, 5), r"boxes has shape \(1, 4, 5\); give rboxes", id="three axes"),
        pytest.param(torch.ones(4, 5, dtype=torch.int64), r"boxes holds torch.int64; .* by .float\(\)", id="ints"),
        pytest.param([[1.0] * 5], r"boxes is a list; give rboxes .* as a tensor or numpy array", id="list"),
        pytest.param(np.ones((2, 5), int), r"boxes holds torch.int64; give rboxes", id="array of ints"),
        pytest.param(np.full((2, 5), "1"), r"an array holds <U1, unknown to torch; give float32 or", id="text"),
    ],
)
def test_faults(boxes: Any, message: str) -> None:
    with pytest.raises(FocaldetError, match=message):
        twice(boxes)


def test_the_first_bad_row_is_named() -> None:
    boxes = torch.ones(1000, 5)
    boxes[[7, 900], [0, 1]] = float("nan")
    boxes[3, 2] = -1  # not finite comes first: a NaN side is no negative one
    with pytest.raises(FocaldetError, match=r"boxes\[7\] "):
        check_rboxes(boxes, "boxes")


@pytest.mark.parametrize("boxes", [torch.zeros(0, 5), torch.zeros(3, 5), torch.full((2, 5), 3e38)])
def test_no_fault(boxes: Tensor) -> None:
    """None; sides of 0; numbers whose sum is too large for their type."""
    check_rboxes(boxes, "boxes")
    assert torch.equal(twice(boxes), 2 * boxes)


def test_other_columns() -> None:
    with pytest.raises(FocaldetError, match=r"polygons has shape \(2, 5\); give polygons of shape \(N, 8\)"):
        check_numbers(torch.ones(2, 5), "polygons", 8, "polygons")


def test_together() -> None:
    boxes = torch.ones(1, 5)
    check_together(boxes=boxes, scores=boxes[:, 0])
    with pytest.raises(FocaldetError, match="boxes is on cpu and scores on meta; bring them to one device"):
        check_together(boxes=boxes, scores=boxes[:, 0].to("meta"))
    with pytest.raises(FocaldetError, match=r"boxes holds torch.float32 and scores torch.float16; give both the same"):
        check_together(boxes=boxes, scores=boxes[:, 0].half())


def test_numpy_in_numpy_out() -> None:
    boxes = np.arange(10.0).reshape(2, 5)
    for one in (boxes, boxes.astype(np.float32), boxes[::-1], np.asfortranarray(boxes)):
        answer = twice(one)
        assert isinstance(answer, np.ndarray)
        assert answer.dtype == one.dtype
        np.testing.assert_array_equal(answer, 2 * one)
    assert isinstance(twice(boxes=boxes), np.ndarray)
    with pytest.raises(FocaldetError, match="twice got tensors and numpy arrays in one call; give one kind"):
        twice(boxes, other=torch.ones(1))


@pytest.mark.filterwarnings("error")  # torch warns of an array that it shares and must not write
def test_numpy_that_torch_cannot_share() -> None:
    frozen = np.ones((2, 5))
    frozen.setflags(write=False)
    np.testing.assert_array_equal(twice(frozen), 2 * frozen)
    with pytest.raises(FocaldetError, match="an array holds >f8, unknown to torch"):
        twice(np.ones((2, 5), ">f8"))


def test_numbers_are_not_looked_at_where_there_are_none() -> None:
    assert numbers_are_known(torch.ones(1))
    assert not numbers_are_known(torch.ones(1, device="meta"))
    check_rboxes(torch.ones(3, 5, device="meta"), "boxes")
    with pytest.raises(FocaldetError, match="boxes has shape"):
        check_rboxes(torch.ones(3, 4, device="meta"), "boxes")
    exported = torch.export.export(Twice(), (torch.ones(2, 5),))
    assert torch.equal(exported.module()(torch.ones(2, 5)), torch.full((2, 5), 2.0))


class Twice(torch.nn.Module):
    def forward(self, boxes: Tensor) -> Tensor:
        return twice(boxes)
