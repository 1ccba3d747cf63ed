"""The losses of mmrotate's stored RetinaNets and R3Dets, level by level, by the registered recipes.

The networks were recorded with mmrotate 1.x, whose anchors the recipes take as their notes say.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.engine.build import (
    build_anchors,
    build_assign_rule,
    build_coder,
    build_criterion,
    build_model,
    build_stage_targets,
    build_truth_forms,
)
from focaldet.geometry.rotated_iou import rotated_iou
from focaldet.models.anchors import AnchorShapes
from focaldet.models.weights import load_strict
from focaldet.recipes import get_recipe
from focaldet.structures import Batch, StageTargets, Truth
from focaldet.targets.encode import build_targets
from rotated_rules import CLASSES, rotated_entry, rotated_network, stored_network

pytestmark = pytest.mark.golden

SIZE = (128, 128)
NEWER_OC = {"angle": "oc-negative", "anchor_angle": "oc-negative"}
RECIPES = {
    "retinanet_hbox_oc": get_recipe("rotated_retinanet_hbb_r50_fpn_1x_dota_oc").replace(**NEWER_OC),
    "retinanet_rbox_oc": get_recipe("rotated_retinanet_obb_r50_fpn_1x_dota_oc").replace(**NEWER_OC),
    "retinanet_rbox_le90": get_recipe("rotated_retinanet_obb_r50_fpn_1x_dota_le90").replace(anchor_angle="le90"),
}
CLAIMS = {
    "retinanet_rbox_oc": {3: [1110, 1116, 1119, 1128, 1260], 4: [556], 7: [1242]},
    "retinanet_rbox_le90": {3: [1110, 1116, 1119, 1128, 1260], 4: [556, 700], 7: [1242]},
}
"""By truth box: the anchors below 0.5 that claimed it there. Found by trying all sets of anchors that tie."""


def targets_of(model: str, truth: Truth) -> StageTargets:
    recipe = RECIPES[model]
    shapes, rule, forms = build_anchors(recipe), build_assign_rule(recipe), build_truth_forms(recipe)
    claimed = model in CLAIMS
    targets = build_targets(
        shapes.grid_for(SIZE),
        [truth],
        replace(rule, claim="none") if claimed else rule,
        to_assign=forms.to_assign,
        to_regress=forms.to_regress,
        encode=forms.encode,
    )
    return with_claims(targets, model, truth, shapes) if claimed else targets


def with_claims(targets: StageTargets, model: str, truth: Truth, shapes: AnchorShapes) -> StageTargets:
    """Add the claims that were recorded.

    A truth box claims all anchors that tie for its best IoU, and of anchors on a lattice several have the same one. Its
    IoU is in float32, where some of these ties are none, and two that differ by 1e-8 are one.
    """
    anchors = torch.cat(shapes.grid_for(SIZE).levels())
    ious = rotated_iou(anchors.double(), truth.boxes.double())
    for owner, claimed in CLAIMS[model].items():
        numbers = torch.tensor(claimed)
        assert (ious[numbers, owner] > ious[:, owner].max() - 1e-7).all()
        boxes = truth.boxes[owner].expand(len(numbers), -1)
        order = torch.cat([targets.positives, numbers]).argsort()

        def joined(ours: Tensor, more: Tensor, order: Tensor = order) -> Tensor:
            return torch.cat([ours, more])[order]

        targets = replace(
            targets,
            positives=joined(targets.positives, numbers),
            labels=joined(targets.labels, truth.labels[owner].expand(len(numbers))),
            deltas=joined(targets.deltas, build_coder(RECIPES[model]).encode(boxes, anchors[numbers])),
            truths=joined(targets.truths, torch.full_like(numbers, owner)),
            num_positives=targets.num_positives + len(numbers),
        )
    return targets


@pytest.mark.parametrize("model", list(RECIPES))
def test_losses_of_each_level(golden: Path, model: str) -> None:
    stored, recipe = stored_network(golden, model), RECIPES[model]
    image, boxes, labels = (torch.from_numpy(stored[name]) for name in ("image", "gt_boxes", "gt_labels"))
    assert recipe.classes == CLASSES
    network = build_model(recipe)
    network.load_state_dict(rotated_network(model).state_dict())
    with torch.no_grad():
        stage = network.eval()(image)[0]
        losses = build_criterion(recipe).per_level(stage, targets_of(model, Truth(boxes, labels.long())))
    for ours, name in zip(losses, ("loss__loss_cls", "loss__loss_bbox"), strict=True):
        # sums of float32 answers, which differ by up to 6e-6 between machines
        np.testing.assert_allclose(ours.numpy(), stored[name], rtol=5e-6, atol=1e-9)


@pytest.mark.parametrize("model", ["retinanet_hbox_oc", "retinanet_rbox_oc"])
def test_anchors_are_those_of_the_version(golden: Path, model: str) -> None:
    """Of 0.x, as published, they stand unturned; of 1.x they are written in the recipe's form."""
    with np.load(golden / "rotated" / "anchors.npz") as stored:
        sizes = [(int(height), int(width)) for height, width in stored["featmap_sizes"]]
        for recipe, version in ((RECIPES[model], "oc"), (get_recipe(RECIPES[model].name), "none")):
            for level, anchors in enumerate(build_anchors(recipe).grid(sizes).as_coded().levels()):
                np.testing.assert_allclose(anchors, stored[f"{version}_level{level}"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        pytest.param("r3det_oc", "r3det_r50_fpn_1x_dota_oc", marks=pytest.mark.slow),
        ("r3det_refine_oc", "r3det_refine_r50_fpn_1x_dota_oc"),
    ],
)
def test_losses_of_each_level_of_r3det(golden: Path, model: str, name: str) -> None:
    """Recorded by 1.x, where the first stage compares rboxes, and boxes are in the form "oc-negative"."""
    recipe = get_recipe(name).replace(**NEWER_OC, assign="rbox")
    network, stored = build_model(recipe).eval(), stored_network(golden, model)
    keys = json.loads((golden / "rotated" / f"model_{model}_keys.json").read_text())
    load_strict(network, {entry["key"]: rotated_entry(entry["key"], entry["shape"]) for entry in keys}, CLASSES)
    image, boxes, labels = (torch.from_numpy(stored[name]) for name in ("image", "gt_boxes", "gt_labels"))
    truth = Truth(boxes, labels.long())
    first = targets_of("retinanet_rbox_oc", truth)  # the same anchors and truth
    batch = Batch(image, [truth], [SIZE], [SIZE], torch.ones(1, 2), [SIZE], [0], [0], ["it"], first)
    with torch.no_grad():
        stages = network(image)
        for number, targets in enumerate(build_stage_targets(recipe)(stages, batch)):
            losses = build_criterion(recipe).per_level(stages[number], targets)
            stage = f"refine_{number - 1}" if number else "init"
            for ours, kind in zip(losses, ("cls", "bbox"), strict=True):
                expected = stored[f"loss__loss_{kind}_{stage}"]
                np.testing.assert_allclose(ours.numpy(), expected, rtol=1e-5, atol=1e-9, err_msg=f"{kind} {stage}")
