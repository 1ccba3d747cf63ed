"""Training R3Det beside the original program: loss terms, gradients, weight decay, two optimizer steps.

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
    build_stage_targets,
    build_update_rule,
)
from focaldet.engine.optimizer import Gradients
from focaldet.models.retinanet import RetinaNet
from focaldet.recipes.dota import ROWS
from focaldet.structures import Batch, Truth
from focaldet.targets.encode import build_targets, enclosing_hboxes
from tf_training import PICTURE_SIZES, assert_variables, assert_weight_decay, stored_truth

pytestmark = pytest.mark.golden

ROW = {row.row: row.at("fixed") for row in ROWS}
RECIPES = {
    "r3det_v1": ROW[11],
    "r3det_2stage_v2": ROW[12],
    "r3detpp_v2": ROW[16],
    "r3detpp_v3": ROW[16].replace(inld=(1, 1, 1, 1, 1)),
}
CASES = [pytest.param(name, marks=[] if name == "r3det_v1" else [pytest.mark.slow]) for name in RECIPES]
TERMS = {
    "class": "cls_loss",
    "box": "reg_loss",
    "refine1_class": "refine_cls_loss",
    "refine1_box": "refine_reg_loss",
    "refine2_class": "refine_cls_loss_stage3",
    "refine2_box": "refine_reg_loss_stage3",
    "mask": "mask_loss",
}


@cache
def pristine(golden: Path, case: str) -> RetinaNet:
    return tf_rules.tf_network(golden, case)


def batch_of(golden: Path, case: str, tag: str) -> Batch:
    """One picture with its truth as the original fitted it, and what the first stage should say."""
    truth, rboxes = stored_truth(tf_rules.stored_case(golden, case), tag)
    recipe = RECIPES[case]
    size = PICTURE_SIZES[tag]
    first = build_targets(
        build_anchors(recipe).grid_for(size),
        [truth],
        build_assign_rule(recipe),
        to_assign=enclosing_hboxes,
        to_regress=lambda _: rboxes,
        encode=build_coder(recipe).encode,
    )
    images, truths = tf_rules.tf_input(golden, tag), [Truth(rboxes, truth.labels)]
    return Batch(images, truths, [size], [size], torch.ones(1, 2), [size], [0], [0], [tag], first)


def losses_of(network: RetinaNet, case: str, batch: Batch) -> dict[str, Tensor]:
    stages = network(batch.images)
    return build_criterion(RECIPES[case])(stages, build_stage_targets(RECIPES[case])(stages, batch))


def assert_losses(stored: Any, tag: str, losses: Mapping[str, Tensor]) -> None:
    names = {ours for ours, theirs in TERMS.items() if f"{tag}.loss.{theirs}" in stored}
    assert set(losses) == names | {"loss"}
    for name in names:
        assert losses[name].item() == pytest.approx(stored[f"{tag}.loss.{TERMS[name]}"].item(), rel=1e-5), (tag, name)


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradients(golden: Path, case: str) -> None:
    stored, network = tf_rules.stored_case(golden, case), copy.deepcopy(pristine(golden, case)).train()
    losses = losses_of(network, case, batch_of(golden, case, "a"))
    assert_losses(stored, "a", losses)
    losses["loss"].backward()
    gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    assert_variables(golden, case, stored, "a.grad", gradients, norm=2e-3, sample=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "tag"), [("r3det_v1", "b"), ("r3det_v1", "c"), ("r3det_2stage_v2", "b"), ("r3detpp_v2", "b")]
)
def test_losses_of_other_pictures(golden: Path, case: str, tag: str) -> None:
    with torch.no_grad():
        losses = losses_of(pristine(golden, case), case, batch_of(golden, case, tag))
    assert_losses(tf_rules.stored_case(golden, case), tag, losses)


@pytest.mark.parametrize("case", CASES)
def test_weight_decay(golden: Path, case: str) -> None:
    stored, rule = tf_rules.stored_case(golden, case), build_update_rule(RECIPES[case])
    assert_weight_decay(golden, case, stored, pristine(golden, case), rule)


@pytest.mark.slow
def test_two_optimizer_steps(golden: Path, case: str = "r3det_v1") -> None:
    """The stored norm to clip to is small, so that many variables reach it."""
    stored, network = tf_rules.stored_case(golden, case), copy.deepcopy(pristine(golden, case)).train()
    rate, clip = stored["step.args"].tolist()
    recipe, batch = RECIPES[case].replace(clip=clip), batch_of(golden, case, "a")
    optimizer, gradients = build_optimizer(recipe, network), Gradients(network, build_update_rule(recipe))
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    figures = []
    for step in range(3):
        losses = losses_of(network, case, batch)
        figures.append([losses[name].item() for name in sorted(TERMS, key=TERMS.__getitem__) if name in losses])
        if step < 2:
            optimizer.zero_grad()
            gradients.add(losses["loss"], last=True)
            optimizer.step()
    np.testing.assert_allclose(figures, stored["step.losses"], rtol=1e-5)
    before = {name: p.detach() for name, p in pristine(golden, case).named_parameters()}
    changes = {name: p.detach() - before[name] for name, p in network.named_parameters() if p.requires_grad}
    assert_variables(golden, case, stored, "step.change", changes, norm=1e-3, sample=1e-3, weights=before)
