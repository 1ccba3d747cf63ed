from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.iou import hbox_iou_aligned
from focaldet.geometry.rbox import rbox_to_hbox
from focaldet.models.anchors import TurnedShapes, original_upright
from focaldet.structures import AnchorGrid, Size
from focaldet.targets.assign import AssignRule, assign, assign_boxes

Dense = Callable[..., tuple[torch.Tensor, torch.Tensor]]
Back = Callable[[], AbstractContextManager[None]]
MakeGrid = Callable[[Size, float], AnchorGrid]
CLAIMS = ("none", "ties", "ties-overwrite", "ties-zero")
PUBLISHED = AssignRule(0.5, 0.4, "ties-overwrite")

SIZE = (160, 224)
quarter = st.integers(-200, 1200).map(lambda number: number / 4)
anywhere = st.floats(-100, 300, width=32)
side = st.one_of(
    st.integers(0, 320).map(float), st.floats(2.0**-13, 400, width=32), st.sampled_from([1e-3, 0.25, 1024.0])
)
plain_box = st.tuples(st.one_of(quarter, anywhere), st.one_of(quarter, anywhere), side, side).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
nasty_box = st.one_of(
    plain_box,
    plain_box,
    st.integers(0, 10_000),  # stands for the anchor of that number (modulo all), or a box of exactly its size
    st.sampled_from(
        [
            (0.0, 0.0, 224.0, 160.0),  # the whole picture
            (-500.0, -500.0, 900.0, 900.0),
            (4.0, 4.0, 12.0, 12.0),  # between four places
            (100.0, 50.0, 100.0, 70.0),  # no area
            (60.0, 60.0, 40.0, 40.0),  # inside out
            (3000.0, 3000.0, 3100.0, 3100.0),  # touches no anchor
            (100.001, 60.001, 100.002, 60.002),
            (1e7, 0.0, 1e20, 1e20),
        ]
    ),
)
turn = st.one_of(
    st.integers(-24, 24).map(lambda step: step * math.pi / 12),
    st.floats(-7, 7, width=32),
    st.sampled_from([1e-4, -1e-7]),
)
nasty_rbox = st.one_of(
    st.tuples(st.one_of(quarter, anywhere), st.one_of(quarter, anywhere), side, side, turn),
    st.integers(0, 10_000),
    st.sampled_from(
        [
            (112.0, 80.0, 224.0, 160.0, 0.0),
            (200.0, 200.0, 1000.0, 1000.0, 0.8),
            (4.0, 4.0, 0.0, 20.0, 0.3),
            (3000.0, 3000.0, 100.0, 100.0, 0.0),
            (-120.0, 300.0, 400.0, 3.0, 0.9),  # passes by the picture, beside the place nearest to its centre
            (100.0, 60.0, 1e-3, 1e-3, 0.4),
            (80.0, 80.0, 2000.0, 0.5, math.pi / 4),
        ]
    ),
)
rules = st.builds(
    lambda low, gap, claim, iof, inclusive: AssignRule(min(1.0, low + gap), low, claim, iof, inclusive),
    st.sampled_from([0.4, 0.3, 0.05, 0.9]),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from(CLAIMS),
    st.sampled_from([0.5, 0.1, 1.0]),
    st.booleans(),
)
valid_sizes = st.one_of(st.none(), st.tuples(st.integers(0, 200), st.integers(1, 230)))


def _boxes(rows: list[tuple[float, ...] | int], grid: AnchorGrid) -> torch.Tensor:
    anchors = torch.cat(grid.levels())
    boxes = [anchors[row % len(anchors)] if isinstance(row, int) else torch.tensor(row) for row in rows]
    return torch.stack(boxes) if boxes else torch.zeros(0, anchors.shape[1])


@given(
    rows=st.lists(nasty_box, max_size=12),
    copies=st.integers(0, 3),
    crowds=st.lists(nasty_box, max_size=3),
    rule=rules,
    own_size=valid_sizes,
    offset=st.sampled_from([0.0, 0.5, 0.3]),
)
def test_equals_the_dense_matrix_in_every_anchor(
    rows: list[tuple[float, ...] | int],
    copies: int,
    crowds: list[tuple[float, ...] | int],
    rule: AssignRule,
    own_size: Size | None,
    offset: float,
    make_grid: MakeGrid,
    dense: Dense,
    without_numba: Back,
) -> None:
    grid = make_grid(SIZE, offset)
    _compare(grid, _boxes(rows + rows[:copies], grid), _boxes(crowds, grid), rule, own_size, dense, without_numba)


def _compare(
    grid: AnchorGrid,
    truths: torch.Tensor,
    ignored: torch.Tensor,
    rule: AssignRule,
    own_size: Size | None,
    dense: Dense,
    without_numba: Back,
) -> None:
    valid = grid.places_within(own_size) if own_size else None
    owners, iou = dense(grid, truths, rule, valid, ignored)
    for back_end in (nullcontext, without_numba):
        with back_end():
            found = assign(grid, truths, rule, valid=valid, ignored_boxes=ignored)
        assert torch.equal(found.owners(), owners)
        assert torch.equal(found.ious, iou[found.positives])
        assert (found.positives.diff() > 0).all() and (found.ignored.diff() > 0).all()


@given(
    rows=st.lists(nasty_box, max_size=8),
    copies=st.integers(0, 3),
    crowds=st.lists(nasty_box, max_size=2),
    rule=rules,
    own_size=valid_sizes,
)
def test_the_old_pixel_convention_equals_the_dense_matrix(
    rows: list[tuple[float, ...] | int],
    copies: int,
    crowds: list[tuple[float, ...] | int],
    rule: AssignRule,
    own_size: Size | None,
    dense: Dense,
    without_numba: Back,
) -> None:
    grid, rule = original_upright().grid_for(SIZE), replace(rule, pixels="plus_one")
    _compare(grid, _boxes(rows + rows[:copies], grid), _boxes(crowds, grid), rule, own_size, dense, without_numba)


@given(
    anchors=st.lists(nasty_rbox, max_size=70),
    rows=st.lists(nasty_rbox, max_size=8),
    copies=st.integers(0, 3),
    crowds=st.lists(nasty_rbox, max_size=2),
    rule=rules,
    kind=st.sampled_from(["rotated", "upright", "plus_one"]),
    left_out=st.integers(0, 5),
)
def test_listed_anchors_equal_the_dense_matrix(
    anchors: list[tuple[float, ...] | int],
    rows: list[tuple[float, ...] | int],
    copies: int,
    crowds: list[tuple[float, ...] | int],
    rule: AssignRule,
    kind: str,
    left_out: int,
    dense_list: Dense,
    without_numba: Back,
) -> None:
    sets = [_boxes(some, FEW.grid_for(SIZE)) for some in (anchors, rows + rows[:copies], crowds)]
    if kind != "rotated":
        sets = [rbox_to_hbox(some) for some in sets]
        rule = replace(rule, pixels="plus_one" if kind == "plus_one" else "continuous")
    listed, truths, ignored = sets
    valid = torch.arange(len(listed)) % 6 >= left_out
    owners, iou = dense_list(listed, truths, rule, valid, ignored)
    for back_end in (nullcontext, without_numba):
        with back_end():
            found = assign_boxes(listed, truths, rule, valid=valid, ignored_boxes=ignored)
        assert torch.equal(found.owners(), owners)
        assert torch.equal(found.ious, iou[found.positives])


FEW = TurnedShapes((2.5, 4.0), (1.0, 1 / 3, 4.0), (8, 16, 32), offset=0.5, angles=(-90, -75, 0, 30))


@given(
    rows=st.lists(nasty_rbox, max_size=8),
    copies=st.integers(0, 3),
    crowds=st.lists(nasty_rbox, max_size=2),
    rule=rules,
    own_size=valid_sizes,
    kind=st.sampled_from(["rotated", "rotated", "upright anchors", "upright truth"]),
)
def test_rotated_boxes_equal_the_dense_matrix_in_every_anchor(
    rows: list[tuple[float, ...] | int],
    copies: int,
    crowds: list[tuple[float, ...] | int],
    rule: AssignRule,
    own_size: Size | None,
    kind: str,
    make_grid: MakeGrid,
    dense: Dense,
    without_numba: Back,
) -> None:
    grid = make_grid(SIZE, 0.5) if kind == "upright anchors" else FEW.grid_for(SIZE)
    boxed = FEW.grid_for(SIZE)
    truths, ignored = _boxes(rows + rows[:copies], boxed), _boxes(crowds, boxed)
    if kind == "upright truth":
        truths, ignored = rbox_to_hbox(truths), rbox_to_hbox(ignored)
    _compare(grid, truths, ignored, rule, own_size, dense, without_numba)


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("smallest", [0.5, 8.0])
def test_equals_the_dense_matrix_with_many_truths(
    claim: str, smallest: float, make_grid: MakeGrid, dense: Dense
) -> None:
    grid, generator = make_grid((512, 640), 0.0), np.random.default_rng(7)
    size = np.exp(generator.uniform(np.log(smallest), np.log(300), (150, 2)))
    centre = generator.uniform(0, (640, 512), (150, 2))
    truths = torch.tensor(np.concatenate([centre - size / 2, centre + size / 2], 1), dtype=torch.float32)
    truths[::5] = truths[::5].round()
    rule = AssignRule(0.5, 0.4, claim)
    assert torch.equal(assign(grid, truths, rule).owners(), dense(grid, truths, rule)[0])


def test_far_from_the_origin_rounding_is_still_the_dense_one(make_grid: MakeGrid, dense: Dense) -> None:
    grid = make_grid((64, 12_000), 0.3)  # coordinates where a float32 step is 1/1024 pixel
    places = torch.arange(40)[:, None] * torch.tensor([8.0, 0, 8, 0]) + torch.tensor([11_600.0, 40, 11_600, 40])
    truths = places + torch.tensor([-3.3, -3.3, 3.3, 3.3])
    for claim in CLAIMS:
        rule = AssignRule(0.5, 0.4, claim)
        assert torch.equal(assign(grid, truths, rule).owners(), dense(grid, truths, rule)[0])


def test_no_truth_leaves_only_background(make_grid: MakeGrid) -> None:
    found = assign(make_grid(SIZE, 0.0), torch.zeros(0, 4), PUBLISHED)
    assert len(found.positives) == len(found.ignored) == 0
    assert (found.owners() == -1).all()


def test_faults_are_said(make_grid: MakeGrid) -> None:
    grid = make_grid(SIZE, 0.0)
    with pytest.raises(FocaldetError, match=r"truths has shape \(3, 6\)"):
        assign(grid, torch.zeros(3, 6), PUBLISHED)
    with pytest.raises(FocaldetError, match=r"truths\[1\] is \[0.0, nan"):
        assign(grid, torch.tensor([[0.0, 0, 9, 9], [0.0, float("nan"), 9, 9]]), PUBLISHED)
    with pytest.raises(FocaldetError, match=r"truths\[0\] is \[1.0, 1.0, -2.0.*negative side"):
        assign(grid, torch.tensor([[1.0, 1, -2, 3, 0]]), PUBLISHED)
    with pytest.raises(FocaldetError, match='pixels="plus_one" is a convention of hboxes'):
        assign(grid, torch.zeros(3, 5), replace(PUBLISHED, pixels="plus_one"))
    with pytest.raises(FocaldetError, match=r"anchors has shape \(7,\)"):
        assign_boxes(torch.zeros(7), torch.zeros(3, 5), PUBLISHED)
    with pytest.raises(FocaldetError, match=r"negative=0\.6"):
        AssignRule(0.5, 0.6)
    with pytest.raises(FocaldetError, match="ignored_iof=0"):
        AssignRule(0.5, 0.4, ignored_iof=0)


def test_boxes_that_only_touch_claim_nothing(without_numba: Back) -> None:
    anchors = torch.tensor([[10.0, 10.0, 20.0, 10.0, 0.7], [90.0, 90.0, 9.0, 9.0, 0.1]])
    step = 20 * torch.tensor([math.cos(0.7), math.sin(0.7)], dtype=torch.float64)
    truth = torch.tensor([[10.0, 10.0, 20.0, 10.0, 0.7]], dtype=torch.float64)
    truth[:, :2] += step  # shares the short side of the first anchor, to rounding
    for back_end in (nullcontext, without_numba):
        with back_end():
            assert len(assign_boxes(anchors, truth, AssignRule(0.5, 0.4, "ties")).positives) == 0


def test_the_same_box_written_otherwise_is_assigned_alike() -> None:
    grid, generator = FEW.grid_for(SIZE), torch.Generator().manual_seed(3)
    boxes = torch.rand(40, 5, generator=generator, dtype=torch.float64) * torch.tensor([224, 160, 90, 90, 3]) + 4
    turned = boxes[:, [0, 1, 3, 2, 4]] + torch.tensor([0, 0, 0, 0, math.pi / 2])
    for claim in CLAIMS:
        one, other = (assign(grid, some, AssignRule(0.5, 0.4, claim)) for some in (boxes, turned))
        assert torch.equal(one.owners(), other.owners())


@pytest.mark.golden
@pytest.mark.parametrize("case", ["a", "c", "empty", "nasty"])
def test_equals_the_stored_outputs(case: str, units: dict[str, np.ndarray], stored_grid: AnchorGrid) -> None:
    truth = {"a": "gt.a", "c": "gt.c", "nasty": "assign.nasty.gt"}
    rows = units[truth[case]][:, :4] if case in truth else np.zeros((0, 4))
    found = assign(stored_grid, torch.tensor(rows, dtype=torch.float32), PUBLISHED)
    stored = units[f"assign.{case}.gt_inds"].astype(np.int64)
    owners = np.where(stored > 0, stored - 1, np.where(stored == 0, -1, -2))
    assert np.array_equal(found.owners().numpy(), owners)
    overlaps = torch.from_numpy(units[f"assign.{case}.max_overlaps"])[found.positives]
    assert (found.ious <= overlaps).all()  # the stored one is the anchor's best, whoever claimed it
    boxes, anchors = torch.tensor(rows, dtype=torch.float32)[found.truths], torch.cat(stored_grid.levels())
    assert torch.equal(found.ious, hbox_iou_aligned(boxes, anchors[found.positives]))
    if case == "a":
        assert (found.ious < overlaps).any()  # here a truth box did take an anchor from a better owner
