from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import decode_hbox
from focaldet.geometry.hbox import hbox_to_corners
from focaldet.geometry.rbox import rbox_to_hbox, rbox_to_polygon
from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.geometry.rotated_iou import rotated_iou_aligned
from focaldet.models.anchors import AnchorShapes
from focaldet.structures import AnchorGrid, Size, Truth, empty_truth
from focaldet.targets.assign import AssignRule
from focaldet.targets.encode import build_targets, enclosing_rboxes, valid_places

Stored = dict[str, np.ndarray]
MakeGrid = Callable[[Size, float], AnchorGrid]
PUBLISHED = AssignRule(0.5, 0.4, "ties-overwrite")


def _truth(rows: np.ndarray) -> Truth:
    return Truth(torch.tensor(rows[:, :4], dtype=torch.float32), torch.tensor(rows[:, 4], dtype=torch.int64))


def _stored_truths(units: Stored, case: str) -> list[Truth]:
    a, c = _truth(units["gt.a"]), _truth(units["gt.c"])
    return {"train_pair": [a, c], "train_mixed": [a, empty_truth()], "train_empty": [empty_truth()] * 2}[case]


@pytest.mark.golden
@pytest.mark.parametrize("case", ["train_pair", "train_mixed", "train_empty"])
def test_equals_the_stored_outputs(case: str, units: Stored, stored_grid: AnchorGrid) -> None:
    targets = build_targets(stored_grid, _stored_truths(units, case), PUBLISHED, [(256, 320), (224, 320)])
    stored = torch.from_numpy(units[f"targets.{case}.pos"])
    assert torch.equal(targets.positives, stored[:, 0] * 15354 + stored[:, 1])
    expected = torch.from_numpy(units[f"targets.{case}.labels"].astype(np.int64)).flatten()
    assert torch.equal(targets.labels, expected[targets.positives])
    weights = torch.zeros(2, 15354, dtype=torch.bool) if targets.valid is None else targets.valid.clone()
    weights.view(-1)[targets.ignored] = False
    assert torch.equal(weights, torch.from_numpy(units[f"targets.{case}.label_weights"].astype(bool)))
    assert targets.num_positives.clamp(min=1).sum().item() == units[f"targets.{case}.avg_factor"]
    # the logarithm may differ by a unit in the last place between machines
    deltas = torch.from_numpy(units[f"targets.{case}.pos_deltas"])
    torch.testing.assert_close(targets.deltas, deltas, rtol=2e-7, atol=2e-7)


@pytest.mark.golden
def test_anchors_and_valid_places_equal_the_stored_ones(units: Stored, stored_grid: AnchorGrid) -> None:
    assert torch.equal(torch.cat(stored_grid.levels()), torch.from_numpy(units["anchors.256x320"]))
    within = [stored_grid.places_within(size) for size in ((224, 320), (256, 320))]
    packed = [units[f"anchors.valid.{name}"] for name in ("224x320", "256x320")]
    expected = torch.from_numpy(np.stack([np.unpackbits(bits)[:15354] for bits in packed]).astype(bool))
    assert torch.equal(valid_places(stored_grid, within), expected)


def test_deltas_lead_back_to_the_truth_boxes(make_grid: MakeGrid) -> None:
    grid = make_grid((192, 256), 0.5)
    boxes = torch.tensor([[10.3, 20.7, 60.1, 90.9], [100.0, 5.0, 250.0, 180.0], [200.0, 100.0, 206.0, 130.0]])
    targets = build_targets(grid, [empty_truth(), Truth(boxes, torch.tensor([4, 0, 2]))], AssignRule(0.5, 0.4))
    anchors = torch.cat(grid.levels())[targets.positives - targets.num_anchors]
    decoded = decode_hbox(targets.deltas, anchors)
    torch.testing.assert_close(decoded, boxes[targets.truths], rtol=0, atol=1e-3)  # float32 at up to 250 pixels
    assert set(targets.truths.tolist()) == {0, 1, 2}  # every truth box has an anchor
    assert torch.equal(targets.labels, torch.tensor([4, 0, 2])[targets.truths])
    assert targets.valid is None and targets.num_positives.tolist() == [0, len(targets.positives)]


def test_ignored_objects_own_nothing_and_are_kept_out(make_grid: MakeGrid) -> None:
    grid = make_grid((128, 128), 0.0)
    boxes = torch.tensor([[0.0, 0.0, 64.0, 64.0], [64.0, 64.0, 128.0, 128.0]])
    truth = Truth(boxes, torch.tensor([1, 2]), torch.tensor([True, False]))
    quiet = build_targets(grid, [truth], AssignRule(0.5, 0.4))
    loud = build_targets(grid, [truth], AssignRule(0.5, 0.4, ignored_iof=0.5))
    assert quiet.truths.unique().tolist() == [1] and quiet.labels.unique().tolist() == [2]
    assert torch.equal(quiet.positives, loud.positives)
    assert set(quiet.ignored.tolist()) < set(loud.ignored.tolist())
    assert not set(loud.ignored.tolist()) & set(loud.positives.tolist())


def test_polygons_are_taken_by_their_hull(make_grid: MakeGrid) -> None:
    grid, boxes, labels = make_grid((64, 64), 0.0), torch.tensor([[5.0, 6.0, 40.0, 50.0]]), torch.tensor([0])
    upright = build_targets(grid, [Truth(boxes, labels)], PUBLISHED)
    polygon = build_targets(grid, [Truth(hbox_to_corners(boxes), labels)], PUBLISHED)
    assert torch.equal(upright.positives, polygon.positives) and torch.equal(upright.deltas, polygon.deltas)


@pytest.mark.parametrize("annotated", ["polygon", "rbox", "hbox"])
def test_rotated_deltas_lead_back_to_the_truth_boxes(annotated: str) -> None:
    coder = RboxCoder("le90", edge_swap=True, proj_xy=True)
    grid = AnchorShapes((4.0, 6.0), (0.5, 1.0), (8, 16, 32), angle="none").grid_for((192, 256))
    boxes = torch.tensor(
        [[60.3, 70.7, 60.0, 30.0, 0.6], [150.0, 90.0, 120.0, 60.0, -1.2], [30.0, 150.0, 40.0, 20.0, 0]]
    )
    given = {"polygon": rbox_to_polygon(boxes).view(-1, 4, 2), "rbox": boxes, "hbox": rbox_to_hbox(boxes)}[annotated]
    truth = Truth(given, torch.tensor([4, 0, 2]), torch.tensor([False, False, True]))
    kinds = {"to_assign": enclosing_rboxes, "to_regress": enclosing_rboxes, "encode": coder.encode}
    targets = build_targets(grid, [truth], AssignRule(0.5, 0.4), **kinds)
    decoded = coder.decode(targets.deltas, torch.cat(grid.levels())[targets.positives])
    taught = enclosing_rboxes(given)[targets.truths]
    same = rotated_iou_aligned(decoded.double(), taught.double())
    torch.testing.assert_close(same, torch.ones_like(same), rtol=0, atol=1e-5)  # float32 deltas
    assert targets.truths.unique().tolist() == [0, 1]
    assert torch.equal(targets.labels, truth.labels[targets.truths])


def test_faults_are_said(make_grid: MakeGrid) -> None:
    grid = make_grid((64, 64), 0.0)
    with pytest.raises(FocaldetError, match="1 pictures come with 2 padded sizes"):
        build_targets(grid, [empty_truth()], PUBLISHED, [(64, 64), (64, 64)])
    with pytest.raises(FocaldetError, match="2 truth boxes come with 1 labels"):
        build_targets(grid, [Truth(torch.zeros(2, 4), torch.zeros(1, dtype=torch.int64))], PUBLISHED)
