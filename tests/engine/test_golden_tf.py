"""Training beside the original rotated program: loss terms, gradients, weight decay, two optimizer steps.

The recipes are in the state `fixed`, which is the program's that was recorded.

Tolerances are those of the README of the stored outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tf_rules
from focaldet.engine.build import (
    build_anchors,
    build_assign_rule,
    build_coder,
    build_criterion,
    build_optimizer,
    build_update_rule,
)
from focaldet.engine.optimizer import Gradients
from focaldet.models.anchors import AnchorShapes
from focaldet.models.retinanet import RetinaNet
from focaldet.recipes.dota import ROWS
from focaldet.structures import StageTargets
from focaldet.targets.encode import build_targets, enclosing_hboxes
from tf_training import PICTURE_SIZES, assert_variables, assert_weight_decay, stored_truth

pytestmark = pytest.mark.golden

ROW = {row.name: row for row in ROWS}
RECIPES = {
    "retinanet_h_v4": ROW["retinanet-h_r50d_1x_dota"].at("fixed"),
    "retinanet_h180_v15": ROW["retinanet-h_r50d_1x_dota_180"].at("fixed"),
    "retinanet_h_atan_v16": ROW["retinanet-h_r50d_1x_dota_atan"].at("fixed"),
    "retinanet_r_v1": ROW["retinanet-r_r50d_1x_dota"].at("fixed"),
    "retinanet_r_iou_v5": ROW["retinanet-r_r50d_1x_dota_iou"].at("fixed"),
    "retinanet_h_res101_v9": ROW["retinanet-h_r101d_1x_dota"].at("fixed"),
    "retinanet_h_res152_v12": ROW["retinanet-h_r152d_1x_dota"].at("fixed"),
}
CASES = [pytest.param(name, marks=[pytest.mark.slow] if "_res" in name else []) for name in RECIPES]
SAME_WEIGHTS = {"retinanet_h180_v15": "retinanet_h_v4", "retinanet_h_atan_v16": "retinanet_h_v4"}


@cache
def pristine(golden: Path, weights: str) -> RetinaNet:
    return tf_rules.tf_network(golden, weights)


def network_of(golden: Path, case: str) -> RetinaNet:
    """A network of a stored case, in training mode, that may be changed."""
    network = copy.deepcopy(pristine(golden, SAME_WEIGHTS.get(case, case)))
    network.anchors = anchors_of(case)
    return network.train()


def anchors_of(case: str) -> AnchorShapes:
    return build_anchors(RECIPES[case])


def targets_of(stored: Any, case: str, tag: str) -> StageTargets:
    """What the anchors of a picture should say.

    H rows assign by the hull of the polygon as annotated. All teach the stored rbox, which the original fitted to the
    polygon in float32.
    """
    truth, rboxes = stored_truth(stored, tag)
    recipe = RECIPES[case]
    return build_targets(
        anchors_of(case).grid_for(PICTURE_SIZES[tag]),
        [truth],
        build_assign_rule(recipe),
        to_assign=enclosing_hboxes if recipe.assign == "hull" else lambda _: rboxes,
        to_regress=lambda _: rboxes,
        encode=build_coder(recipe).encode,
    )


def losses_of(golden: Path, network: RetinaNet, case: str, tag: str) -> dict[str, Tensor]:
    targets = targets_of(tf_rules.stored_case(golden, case), case, tag)
    return build_criterion(RECIPES[case])(network(tf_rules.tf_input(golden, tag)), [targets])


def assert_losses(stored: Any, tag: str, losses: Mapping[str, Tensor]) -> None:
    for name, theirs in (("class", "cls_loss"), ("box", "reg_loss")):
        assert losses[name].item() == pytest.approx(stored[f"{tag}.loss.{theirs}"].item(), rel=1e-5), (tag, name)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(golden: Path, case: str) -> None:
    network, stored = network_of(golden, case), tf_rules.stored_case(golden, case)
    losses = losses_of(golden, network, case, "a")
    assert_losses(stored, "a", losses)
    losses["loss"].backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert_variables(golden, case, stored, "a.grad", gradients, norm=2e-3, sample=5e-3)
    for tag in ("b", "c"):
        if f"{tag}.loss.cls_loss" in stored:
            with torch.no_grad():
                assert_losses(stored, tag, losses_of(golden, network, case, tag))


@pytest.mark.parametrize("case", CASES)
def test_weight_decay(golden: Path, case: str) -> None:
    stored, network = tf_rules.stored_case(golden, case), pristine(golden, SAME_WEIGHTS.get(case, case))
    assert_weight_decay(golden, case, stored, network, build_update_rule(RECIPES[case]))


@pytest.mark.parametrize("case", ["retinanet_h_v4"])
def test_two_optimizer_steps(golden: Path, case: str) -> None:
    """The stored norm to clip to is small, so that many variables reach it."""
    network, stored = network_of(golden, case), tf_rules.stored_case(golden, case)
    rate, clip = stored["step.args"].tolist()
    recipe = RECIPES[case].replace(clip=clip)
    optimizer, gradients = build_optimizer(recipe, network), Gradients(network, build_update_rule(recipe))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    figures = []
    for step in range(3):
        losses = losses_of(golden, network, case, "a")
        figures.append([losses["class"].item(), losses["box"].item()])
        if step < 2:
            optimizer.zero_grad()
            gradients.add(losses["loss"], last=True)
            optimizer.step()
    np.testing.assert_allclose(figures, stored["step.losses"], rtol=1e-5)
    before = dict(pristine(golden, case).named_parameters())
    changes = {name: p.detach() - before[name].detach() for name, p in network.named_parameters() if p.requires_grad}
    assert_variables(golden, case, stored, "step.change", changes, norm=1e-3, sample=1e-3)
