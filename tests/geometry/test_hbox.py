from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import (
    area_hbox,
    check_hboxes,
    clip_hbox,
    corners_to_hbox,
    flip_hbox,
    hbox_to_corners,
    xywh_to_xyxy,
    xyxy_to_xywh,
)

quarters = st.integers(-4000, 4000).map(lambda number: number / 4)  # exact in float32, and so are their sums
boxes = st.lists(st.tuples(quarters, quarters, quarters, quarters), min_size=1, max_size=8).map(
    lambda rows: torch.tensor([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in rows])
)


@given(boxes)
def test_conversions_undo_each_other(hboxes: torch.Tensor) -> None:
    assert torch.equal(xywh_to_xyxy(xyxy_to_xywh(hboxes)), hboxes)
    assert torch.equal(corners_to_hbox(hbox_to_corners(hboxes)), hboxes)


@given(boxes)
def test_flip_twice_is_nothing_and_keeps_areas(hboxes: torch.Tensor) -> None:
    for axes in ((True, False), (False, True), (True, True)):
        flipped = flip_hbox(hboxes, (480, 640), *axes)
        assert torch.equal(flip_hbox(flipped, (480, 640), *axes), hboxes)
        assert torch.equal(area_hbox(flipped), area_hbox(hboxes))


@given(boxes)
def test_clip_stays_inside_and_clips_once(hboxes: torch.Tensor) -> None:
    clipped = clip_hbox(hboxes, (100, 300))
    assert (clipped >= 0).all() and (clipped <= torch.tensor([300, 100, 300, 100])).all()
    assert torch.equal(clip_hbox(clipped, (100, 300)), clipped)


def test_corners_go_round_from_the_upper_left() -> None:
    assert hbox_to_corners(torch.tensor([1.0, 2.0, 5.0, 9.0])).tolist() == [[1, 2], [5, 2], [5, 9], [1, 9]]


def test_area_is_not_taken_in_half_precision() -> None:
    assert area_hbox(torch.tensor([0.0, 0.0, 1000.0, 1000.0]).half()).item() == 1e6  # float16 ends at 65,504


def test_wrong_shape_is_said() -> None:
    with pytest.raises(FocaldetError, match=r"truths has shape \(3, 5\)"):
        check_hboxes(torch.zeros(3, 5), "truths")
