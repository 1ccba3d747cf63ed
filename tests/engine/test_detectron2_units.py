"""The parts by themselves beside detectron2's: anchors, matcher, coder, box losses, NMS, padding."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focaldet.engine.build import build_anchors, build_assign_rule, build_decode
from focaldet.geometry.coders import MAX_LOG_SCALE, encode_hbox
from focaldet.geometry.nms import nms_hbox
from focaldet.losses.box import OVERLAPS, OverlapForm
from focaldet.recipes import get_recipe
from focaldet.structures import IGNORED, round_up
from focaldet.targets import assign
from focaldet.targets.overlap import Maxima, Measure

pytestmark = pytest.mark.golden

RECIPE = get_recipe("retinanet_r50_detectron2")


@pytest.fixture(scope="module")
def units(golden: Path) -> Any:
    return np.load(golden / "detectron2" / "units.npz")


def test_anchors(units: Any) -> None:
    shapes, p = build_anchors(RECIPE), units["permutation"]
    assert p[p].tolist() == list(range(9))
    for level, stride in enumerate(shapes.strides, 3):
        assert torch.equal(shapes.level_shapes(stride)[p], torch.from_numpy(units[f"anchors.cell.p{level}"]))
    for size, index in (((256, 320), None), ((800, 1344), units["anchors.800x1344.index"])):
        name = f"anchors.{size[0]}x{size[1]}"
        grid = shapes.grid_for(size)
        assert [len(level) for level in grid.levels()] == units[f"{name}.counts"].tolist()
        anchors = torch.cat(grid.levels()).unflatten(0, (-1, 9))[:, p].flatten(0, 1)
        assert torch.equal(anchors if index is None else anchors[index], torch.from_numpy(units[name]))


def test_the_coder(units: Any) -> None:
    boxes, deltas, truths = (torch.from_numpy(units[f"coder.{name}"]) for name in ("boxes", "deltas", "gt"))
    assert float(units["coder.scale_clamp"]) == MAX_LOG_SCALE
    np.testing.assert_allclose(build_decode(RECIPE)(deltas, boxes), units["coder.decoded"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(encode_hbox(truths, boxes), units["coder.encoded"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", OVERLAPS)
def test_losses_of_boxes(units: Any, form: OverlapForm) -> None:
    said, truths = (torch.from_numpy(units[f"coder.{name}"])[2:] for name in ("decoded", "gt"))
    np.testing.assert_allclose(1 - OVERLAPS[form](said, truths), units[f"boxloss.{form}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.1, 1.0])
def test_smooth_l1(units: Any, beta: float) -> None:
    said, truths = torch.from_numpy(units["smooth.pred"]), torch.from_numpy(units["smooth.target"])
    found = F.smooth_l1_loss(said, truths, beta=beta, reduction="none")
    np.testing.assert_allclose(found, units[f"smooth.{beta}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["nms", "nms_negative", "nms_many"])
def test_nms_of_each_class_by_itself(units: Any, case: str) -> None:
    boxes, scores, labels = (torch.from_numpy(units[f"{case}.{name}"]) for name in ("boxes", "scores", "labels"))
    kept = nms_hbox(boxes, scores, labels.long(), RECIPE.nms, RECIPE.nms_labels)
    assert kept.tolist() == units[f"{case}.apart"].tolist()


def test_padding(units: Any) -> None:
    padded = [round_up(size, RECIPE.pad) for size in units["pad.single.in"].tolist()]
    assert [list(size) for size in padded] == units["pad.single.out"].tolist()
    largest = units["pad.batch.in"].max(axis=0).tolist()
    assert list(round_up(largest, RECIPE.pad)) == units["pad.batch.out"].tolist()


@dataclass(frozen=True)
class MatrixSearch:
    """A search whose overlaps are given: those of a stored matrix (truths x anchors)."""

    ious: Any
    measure: Measure

    def numbers(self) -> Any:
        return np.arange(self.ious.shape[1])

    def maxima(self, boxes: Any, least: float, *, over_anchor: bool = False, climb: bool = False) -> Maxima:
        best = self.ious.max(axis=0, initial=0)
        anchors = np.flatnonzero(best >= np.float32(least))
        of_truth = self.ious.max(axis=1, keepdims=True, initial=0)
        tie_truths, tie_anchors = np.nonzero((self.ious == of_truth) & (self.ious > 0))
        owners = self.ious.argmax(axis=0) if len(self.ious) else np.zeros(0, np.int64)
        return Maxima(
            anchors, owners[anchors], best[anchors], tie_truths, tie_anchors, self.ious[tie_truths, tie_anchors]
        )


def matched(ious: Any, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Owners of anchors by our rule, where the overlaps are those of the matrix."""

    def owners_of(anchors: Any, boxes: Any, measure: Any, reached: Any) -> Any:
        if not len(ious):
            return np.zeros(0, np.int64), reached
        return ious[:, anchors].argmax(axis=0), ious[:, anchors].max(axis=0)

    monkeypatch.setattr(assign, "owners_of", owners_of)
    found = assign._decide(
        MatrixSearch(ious, Measure(rotated=False)),
        lambda numbers: numbers,
        np.zeros((len(ious), 4)),
        None,
        build_assign_rule(RECIPE),
        ious.shape[1],
    )
    return found.owners()


@pytest.mark.parametrize("case", ["nasty", "zero_row", "empty"])
def test_the_matcher(units: Any, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = matched(units[f"matcher.{case}.iou"], monkeypatch)
    labels = torch.where(owners == IGNORED, -1, (owners >= 0).long())
    assert labels.tolist() == units[f"matcher.{case}.labels"].tolist()
    positive = owners >= 0
    assert owners[positive].tolist() == units[f"matcher.{case}.matches"][positive.numpy()].tolist()
