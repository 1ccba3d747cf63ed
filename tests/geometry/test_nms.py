from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.iou import hbox_iou
from focaldet.geometry.nms import nms_hbox

APART: tuple[Literal["separate", "offset"], ...] = ("separate", "offset")
whole = st.integers(0, 12).map(float)
side = st.integers(1, 12).map(float)
item = st.tuples(whole, whole, side, side, st.sampled_from([0.1, 0.2, 0.3, 0.9]), st.integers(0, 2))
items = st.lists(item, min_size=1, max_size=20)


def _split(rows: list[tuple[float, ...]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    table = torch.tensor(rows)
    boxes = torch.cat([table[:, :2], table[:, :2] + table[:, 2:4]], dim=1)
    return boxes, table[:, 4], table[:, 5].long()


def _plain(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor, threshold: float) -> list[int]:
    kept: list[int] = []
    iou = hbox_iou(boxes, boxes)
    for index in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):
        if not any(labels[index] == labels[k] and iou[k, index] > threshold for k in kept):
            kept.append(index)
    return kept


@given(items, st.sampled_from(APART))
def test_equals_the_plain_loop(rows: list[tuple[float, ...]], apart: Literal["separate", "offset"]) -> None:
    boxes, scores, labels = _split(rows)  # whole numbers: the offsets lose no digits
    assert nms_hbox(boxes, scores, labels, 0.5, apart).tolist() == _plain(boxes, scores, labels, 0.5)


@given(items)
def test_twice_is_once(rows: list[tuple[float, ...]]) -> None:
    boxes, scores, labels = _split(rows)
    once = nms_hbox(boxes, scores, labels, 0.4)
    again = nms_hbox(boxes[once], scores[once], labels[once], 0.4)
    assert again.tolist() == list(range(len(once)))


@pytest.mark.parametrize("apart", APART)
def test_nothing_gives_nothing(apart: Literal["separate", "offset"]) -> None:
    kept = nms_hbox(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64), 0.5, apart)
    assert kept.shape == (0,) and kept.dtype == torch.int64


def test_boxes_without_area_suppress_nothing() -> None:
    boxes = torch.tensor([[5.0, 5.0, 5.0, 5.0]] * 3)
    assert nms_hbox(boxes, torch.tensor([0.1, 0.3, 0.2]), torch.zeros(3, dtype=torch.int64), 0.5).tolist() == [1, 2, 0]


def test_lengths_must_agree() -> None:
    with pytest.raises(FocaldetError, match="2 boxes, 1 scores"):
        nms_hbox(torch.zeros(2, 4), torch.zeros(1), torch.zeros(2, dtype=torch.int64), 0.5)


@pytest.mark.golden
@pytest.mark.parametrize("apart", APART)
def test_equals_the_stored_outputs(units: dict[str, np.ndarray], apart: Literal["separate", "offset"]) -> None:
    boxes, scores, labels = (torch.from_numpy(units[f"nms.{name}"]) for name in ("boxes", "scores", "labels"))
    kept = nms_hbox(boxes, scores, labels, 0.5, apart)
    assert kept.tolist() == units["nms.keep"].tolist()
    assert torch.equal(boxes[kept], torch.from_numpy(units["nms.dets"][:, :4]))
