"""The assignment and encoding of the original rotated programs, held to what they answered."""

from __future__ import annotations

import pickle
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.models.anchors import original_turned, original_upright
from focaldet.structures import Truth
from focaldet.targets.assign import Assignment, AssignRule, assign, assign_boxes
from focaldet.targets.encode import build_targets, enclosing_hboxes, enclosing_rboxes

pytestmark = pytest.mark.golden

Stored = dict[str, np.ndarray]

UPRIGHT = AssignRule(0.5, 0.4, "none", negative_inclusive=True, pixels="plus_one")
TURNED = AssignRule(0.5, 0.4, "none", negative_inclusive=True)
SIZES = {"a": (256, 256), "b": (320, 384), "c": (200, 232)}
CASES = {  # (pictures, refine stages)
    "retinanet_h_v4": ("abc", 0),
    "retinanet_h180_v15": ("ab", 0),
    "retinanet_h_atan_v16": ("ab", 0),
    "retinanet_h_res101_v9": ("a", 0),
    "retinanet_r_v1": ("ab", 0),
    "retinanet_r_iou_v5": ("a", 0),
    "r3det_v1": ("abc", 1),
    "r3det_2stage_v2": ("ab", 2),
    "r3detpp_v2": ("ab", 1),
    "r3detpp_v3": ("a", 1),
}
PICTURES = [(case, picture) for case, (pictures, _) in CASES.items() for picture in pictures]
TARGETS = ("target", "gt_", "boxes")


@cache
def _load(path: Path) -> Stored:
    with np.load(path) as file:
        return {name: file[name] for name in file.files if any(part in name for part in TARGETS)}


def _radians(boxes: np.ndarray) -> torch.Tensor:
    boxes = boxes[:, :5].astype(np.float64)
    boxes[:, 4] = np.radians(boxes[:, 4])
    return torch.from_numpy(boxes)


def _coder(program: str, degrees: str) -> RboxCoder:
    sides = "plus-one" if program == "r3d" else "exact"
    return RboxCoder(f"tf{degrees}", max_log_scale=None, anchor_sides=sides)


def _check_states(found: Assignment, stored: np.ndarray) -> None:
    states = found.owners().clamp(-2, 0) + 1  # positive 1, background 0, ignored -1
    assert np.array_equal(states.numpy(), stored)


@pytest.mark.parametrize("program", ["rtr", "r3d"])
@pytest.mark.parametrize("degrees", ["90", "180"])
def test_upright_targets_of_the_layer_by_itself(program: str, degrees: str, golden: Path) -> None:
    stored = _load(golden / "tf" / "unit" / f"{program}.npz")
    anchors, truth = torch.from_numpy(stored["target.in.anchors_h"]), torch.from_numpy(stored["target.in.gt_h"])
    found = assign_boxes(anchors, truth[:, :4], UPRIGHT)
    _check_states(found, stored[f"target.H{degrees}.state"])
    coder = _coder(program, degrees)
    _check_layer(stored, f"target.H{degrees}", found, coder, coder.from_hbox(anchors.double(), plus_one=True))


@pytest.mark.parametrize("program", ["rtr", "r3d"])
def test_turned_targets_of_the_layer_by_itself(program: str, golden: Path) -> None:
    stored = _load(golden / "tf" / "unit" / f"{program}.npz")
    anchors, truth = _radians(stored["target.in.anchors_r"]), _radians(stored["target.in.gt_r"])
    found = assign_boxes(anchors, truth, TURNED)
    for degrees in ("90", "180"):
        _check_states(found, stored[f"target.R{degrees}.state"])
        coder = _coder(program, degrees)
        _check_layer(
            stored, f"target.R{degrees}", found, coder, anchors if degrees == "90" else coder.from_rbox(anchors)
        )
    none = assign_boxes(anchors, truth[:0], TURNED)
    _check_states(none, stored["target.R90_nogt.state"])


def _check_layer(stored: Stored, name: str, found: Assignment, coder: RboxCoder, anchors: torch.Tensor) -> None:
    labels = stored["target.in.gt_r"][found.truths, 5]
    assert np.array_equal(stored[f"{name}.labels"][found.positives].argmax(1) + 1, labels)
    deltas = coder.encode(_radians(stored["target.in.gt_r"])[found.truths], anchors[found.positives])
    expected = stored[f"{name}.delta"][found.positives]
    np.testing.assert_allclose(deltas.numpy(), expected, rtol=0, atol=2e-6)  # the original computes in float32


@pytest.mark.parametrize(("positive", "negative"), [(0.6, 0.5), (0.7, 0.6)])
def test_refine_targets_of_the_layer_by_itself(positive: float, negative: float, golden: Path) -> None:
    stored = _load(golden / "tf" / "unit" / "r3d.npz")
    anchors, truth = _radians(stored["target.in.anchors_r"]), _radians(stored["target.in.gt_r"])
    found = assign_boxes(anchors, truth, AssignRule(positive, negative, "none", negative_inclusive=True))
    name = f"target.refine_{positive}_{negative}"
    _check_states(found, stored[f"{name}.state"])
    _check_layer(stored, name, found, _coder("r3d", "90"), anchors)


@pytest.mark.parametrize(("case", "picture"), PICTURES)
def test_whole_pictures_are_assigned_as_stored(case: str, picture: str, golden: Path) -> None:
    stored = {
        name[2:]: array for name, array in _load(golden / "tf" / "net" / f"{case}.npz").items() if name[0] == picture
    }
    if case.startswith("retinanet_r"):
        grid, truths, rule = original_turned().grid_for(SIZES[picture]), _radians(stored["gt_r"]).float(), TURNED
    else:
        grid, truths = original_upright().grid_for(SIZES[picture]), torch.from_numpy(stored["gt_h"][:, :4])
        rule = UPRIGHT
    _check_picture(stored, "target", assign(grid, truths, rule), sum(grid.counts))
    for stage in range(1, CASES[case][1] + 1):
        rule = AssignRule(0.5 + 0.1 * stage, 0.4 + 0.1 * stage, "none", negative_inclusive=True)
        boxes = _radians(stored[f"s{stage}.boxes"]).float()
        found = assign_boxes(boxes, _radians(stored["gt_r"]).float(), rule)
        _check_picture(stored, f"s{stage}.target", found, len(boxes))


def _check_picture(stored: Stored, name: str, found: Assignment, num_anchors: int) -> None:
    assert num_anchors == stored[f"{name}.n"]
    assert np.array_equal(found.positives.numpy(), stored[f"{name}.pos"])
    assert np.array_equal(found.ignored.numpy(), stored[f"{name}.ignore"])
    assert np.array_equal(stored["gt_r"][found.truths, 5], stored[f"{name}.pos_class"])


@pytest.mark.parametrize(("case", "degrees"), [("retinanet_h_v4", "90"), ("retinanet_h180_v15", "180")])
def test_upright_rows_teach_the_least_rectangle_of_the_polygon(case: str, degrees: str, golden: Path) -> None:
    stored = _load(golden / "tf" / "net" / f"{case}.npz")
    coder = _coder("rtr", degrees)
    grid = original_upright(coded=coder.angle).grid_for(SIZES["a"])
    targets = build_targets(
        grid, [_polygons(stored)], UPRIGHT, to_assign=enclosing_hboxes, to_regress=enclosing_rboxes, encode=coder.encode
    )
    assert np.array_equal(targets.positives.numpy(), stored["a.target.pos"])
    assert np.array_equal(targets.labels.numpy() + 1, stored["a.target.pos_class"])
    difference = targets.deltas.double().numpy() - stored["a.target.pos_delta"]
    if degrees == "180":  # which side of a square anchor is longer, was a matter of rounding at its place
        sides = grid.as_coded().at(targets.positives)[:, 2:4]
        squares = (sides[:, 0] - sides[:, 1]).abs().numpy() < 1e-3
        quarters = difference[squares, 4] / (np.pi / 2)
        assert 0 < (np.rint(quarters) != 0).sum() < 10
        difference[squares, 4] = (quarters - np.rint(quarters)) * np.pi / 2
    # the original fits rectangles in float32 and its theta, in degrees, has steps of 4e-6: 5e-5 of a small anchor
    np.testing.assert_allclose(difference, 0, rtol=0, atol=5e-5)


def test_turned_rows_assign_by_what_they_teach(golden: Path) -> None:
    stored = _load(golden / "tf" / "net" / "retinanet_r_v1.npz")
    coder = _coder("rtr", "90")
    kinds = {"to_assign": enclosing_rboxes, "to_regress": enclosing_rboxes, "encode": coder.encode}
    grid = original_turned().grid_for(SIZES["a"])
    targets = build_targets(grid, [_polygons(stored)], TURNED, **pickle.loads(pickle.dumps(kinds)))  # as to a worker
    assert np.array_equal(targets.positives.numpy(), stored["a.target.pos"])
    assert np.array_equal(targets.ignored.numpy(), stored["a.target.ignore"])
    difference = targets.deltas.double().numpy() - stored["a.target.pos_delta"]
    np.testing.assert_allclose(difference, 0, rtol=0, atol=5e-5)


def _polygons(stored: Stored) -> Truth:
    quads = torch.from_numpy(stored["a.gt_quad"])
    return Truth(quads[:, :8].reshape(-1, 4, 2).float(), quads[:, 8].long() - 1)
