"""Targets of refine stages: the stored ones of the original program, and what a batch may bring."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.structures import StageTargets, Truth
from focaldet.targets.assign import AssignRule
from focaldet.targets.refine import build_refine_targets

ORIGINAL = RboxCoder("tf90", max_log_scale=None, anchor_sides="plus-one")
CODER = RboxCoder("le90", edge_swap=True, proj_xy=True)
RULE = AssignRule(0.6, 0.5, "none", negative_inclusive=True)
CASES = [("r3det_v1", "abc", 1), ("r3det_2stage_v2", "ab", 2), ("r3detpp_v2", "ab", 1), ("r3detpp_v3", "a", 1)]
PICTURES = [(case, tag, stages) for case, tags, stages in CASES for tag in tags]


def built(
    anchors: list[Tensor],
    truths: list[Truth],
    rule: AssignRule = RULE,
    valid: Tensor | None = None,
    coder: RboxCoder = CODER,
) -> StageTargets:
    return build_refine_targets(anchors, truths, rule, valid, to_rbox=coder.to_rbox, encode=coder.encode)


def radians(boxes: np.ndarray) -> Tensor:
    boxes = boxes[:, :5].astype(np.float64)
    boxes[:, 4] = np.radians(boxes[:, 4])
    return torch.from_numpy(boxes).float()


@pytest.mark.golden
@pytest.mark.parametrize(("case", "tag", "stages"), PICTURES)
def test_stored_boxes_get_the_stored_targets(golden: Path, case: str, tag: str, stages: int) -> None:
    with np.load(golden / "tf" / "net" / f"{case}.npz") as file:
        stored = {name[2:]: file[name] for name in file.files if name[0] == tag and ("target" in name or "box" in name)}
        truth = Truth(radians(file[f"{tag}.gt_r"]), torch.from_numpy(file[f"{tag}.gt_r"][:, 5]).long() - 1)
    for stage in range(1, stages + 1):
        rule = AssignRule(0.5 + 0.1 * stage, 0.4 + 0.1 * stage, "none", negative_inclusive=True)
        boxes, name = radians(stored[f"s{stage}.boxes"])[None], f"s{stage}.target"
        targets = built([boxes[:, :100], boxes[:, 100:]], [truth], rule, coder=ORIGINAL)
        assert targets.num_anchors == stored[f"{name}.n"]
        assert np.array_equal(targets.positives.numpy(), stored[f"{name}.pos"])
        assert np.array_equal(targets.ignored.numpy(), stored[f"{name}.ignore"])
        assert np.array_equal(targets.labels.numpy() + 1, stored[f"{name}.pos_class"])
        # theta is stored in degrees, in float32: steps of 8e-6 near -90 make 1.3e-7 of a radian; sides round likewise
        np.testing.assert_allclose(targets.deltas.numpy(), stored[f"{name}.pos_delta"], rtol=0, atol=3e-6)


TRUTH = Truth(torch.tensor([[20.0, 20.0, 16.0, 8.0, 0.3], [60.0, 20.0, 16.0, 8.0, 0.0]]), torch.tensor([4, 7]))
NOBODY = Truth(torch.zeros(0, 5), torch.zeros(0, dtype=torch.int64))
ANCHORS = torch.tensor(
    [
        [20.0, 20.0, 16.0, 8.0, 0.3],  # the first truth itself
        [61.0, 20.0, 16.0, 8.0, 0.0],  # IoU 15/17 with the second
        [64.0, 20.0, 16.0, 8.0, 0.0],  # 12/20: at the threshold
        [64.5, 20.0, 16.0, 8.0, 0.0],  # 11.5/20.5: between
        [70.0, 20.0, 16.0, 8.0, 0.0],  # 6/26
        [20.0, 20.0, 8.0, 16.0, 0.3],  # across the first
    ]
)


def test_pictures_are_numbered_one_after_the_other() -> None:
    levels = [torch.stack([ANCHORS[:4], ANCHORS[:4].flip(0)]), torch.stack([ANCHORS[4:], ANCHORS[4:]])]
    targets = built(levels, [TRUTH, TRUTH])
    assert targets.num_anchors == 6
    assert targets.positives.tolist() == [0, 1, 2, 7, 8, 9]
    assert targets.truths.tolist() == [0, 1, 1, 1, 1, 0]
    assert targets.labels.tolist() == [4, 7, 7, 7, 7, 4]
    assert targets.ignored.tolist() == [3, 6]
    assert targets.num_positives.tolist() == [3, 3]
    decoded = CODER.decode(targets.deltas, ANCHORS[[0, 1, 2, 2, 1, 0]])
    torch.testing.assert_close(decoded, TRUTH.boxes[targets.truths], atol=1e-5, rtol=0)


def test_no_truth_makes_all_background() -> None:
    targets = built([ANCHORS.expand(3, -1, -1)], [NOBODY, TRUTH, NOBODY])
    assert targets.num_positives.tolist() == [0, 3, 0]
    assert targets.positives.tolist() == [6, 7, 8] and targets.ignored.tolist() == [9]
    nothing = built([ANCHORS.expand(2, -1, -1)], [NOBODY, NOBODY])
    assert nothing.num_positives.tolist() == [0, 0] and nothing.deltas.shape == (0, 5)


def test_places_beyond_a_picture_own_nothing() -> None:
    valid = torch.ones(2, 6, dtype=torch.bool)
    valid[1, 1:] = False
    targets = built([ANCHORS.expand(2, -1, -1)], [TRUTH, TRUTH], valid=valid)
    assert targets.positives.tolist() == [0, 1, 2, 6] and targets.ignored.tolist() == [3]
    assert targets.valid is not None and torch.equal(targets.valid, valid)


def test_ignored_objects_own_nothing_and_keep_anchors_out() -> None:
    truth = Truth(TRUTH.boxes, TRUTH.labels, torch.tensor([False, True]))
    without, kept_out = (
        built([ANCHORS[None]], [truth], AssignRule(0.6, 0.5, "none", ignored_iof=share)) for share in (None, 0.5)
    )
    assert without.positives.tolist() == kept_out.positives.tolist() == [0]
    assert without.ignored.tolist() == [] and kept_out.ignored.tolist() == [1, 2, 3]


@pytest.mark.parametrize("angle", ["tf90", "tf180", "oc", "oc-negative", "le135"])
def test_anchors_are_read_in_the_form_of_the_coder(angle: str) -> None:
    coder = RboxCoder(angle)  # type: ignore[arg-type]
    targets = built([coder.from_rbox(ANCHORS)[None]], [TRUTH], coder=coder)
    assert targets.positives.tolist() == [0, 1, 2]
    decoded = coder.to_rbox(coder.decode(targets.deltas, coder.from_rbox(ANCHORS)[targets.positives]))
    torch.testing.assert_close(decoded, TRUTH.boxes[targets.truths], atol=1e-4, rtol=0)


def test_polygons_are_taken_as_rectangles() -> None:
    corners = torch.tensor([[[52.0, 16.0], [68.0, 16.0], [68.0, 24.0], [52.0, 24.0]]])
    targets = built([ANCHORS[None]], [Truth(corners, torch.tensor([7]))])
    assert targets.positives.tolist() == [1, 2]


def test_boxes_of_zero_or_enormous_size_are_background() -> None:
    odd = torch.tensor([[20.0, 20.0, 0.0, 0.0, 0.3], [20.0, 20.0, 1e6, 1e6, 0.0], [1e6, -1e6, 1e-3, 1e6, 2.0]])
    targets = built([torch.cat([odd, ANCHORS[:1]])[None]], [TRUTH])
    assert targets.positives.tolist() == [3] and targets.ignored.tolist() == []
    assert bool(targets.deltas.isfinite().all())


def test_no_gradient_goes_into_targets() -> None:
    anchors = ANCHORS[None].clone().requires_grad_()
    assert not built([anchors], [TRUTH]).deltas.requires_grad


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(FocaldetError, match=r"1 truths come with the boxes of 2 pictures; give one each"):
        built([ANCHORS.expand(2, -1, -1)], [TRUTH])
    with pytest.raises(FocaldetError, match="2 truth boxes come with 1 labels"):
        built([ANCHORS[None]], [Truth(TRUTH.boxes, torch.tensor([1]))])
    with pytest.raises(FocaldetError, match="give finite numbers"):
        built([torch.full((1, 1, 5), torch.nan)], [TRUTH])
