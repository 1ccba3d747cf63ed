"""Targets of all stages of a batch, from the recipe to finite losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.engine.build import (
    build_collate,
    build_criterion,
    build_model,
    build_refine_rules,
    build_stage_targets,
)
from focaldet.engine.detector import Detector
from focaldet.models.retinanet import RetinaNet
from focaldet.recipes import Recipe, get_recipe
from focaldet.structures import IGNORED, Batch, Sample, StageOutput, Truth

CLASSES = ("ship", "plane", "bridge")
STAGES = {"once": (1, ()), "twice and denoised": (2, (1, 1, 1, 1, 1))}


def recipe_of(stages: int = 1, inld: tuple[int, ...] = (), **changes: Any) -> Recipe:
    """A row of the table on a network that is small."""
    row = get_recipe("r3det_r50d_2x_dota").at("clean")
    slim = {"backbone": "resnet18d", "neck_channels": 16, "head_channels": 16, "head_convs": 1, "prior": 0.2}
    return row.replace(**slim, classes=CLASSES, refine_stages=stages, inld=inld, **changes)


def sample(
    quads: list[Any], *, size: tuple[int, int] = (96, 128), crowd: list[bool] | None = None, index: int = 0
) -> Sample:
    image = np.random.default_rng(index).integers(0, 255, (*size, 3), dtype=np.uint8)
    return Sample(
        image=image,
        corners=np.array(quads, np.float32).reshape(-1, 4, 2),
        labels=np.arange(len(quads), dtype=np.int64) % len(CLASSES),
        crowd=np.array(crowd if crowd is not None else [False] * len(quads), bool),
        difficult=np.zeros(len(quads), bool),
        id=index,
        index=index,
        name=f"picture {index}",
        original=size,
        rotated=True,
    )


SHIP = [[8, 8], [40, 24], [32, 40], [0, 24]]
PLANE = [[60, 20], [100, 20], [100, 60], [60, 60]]


def losses_of(recipe: Recipe, network: RetinaNet, batch: Batch) -> tuple[dict[str, Tensor], list[StageOutput]]:
    stages = network(batch.images)
    return build_criterion(recipe)(stages, build_stage_targets(recipe)(stages, batch)), stages


def assert_finite(losses: dict[str, Tensor], network: RetinaNet) -> None:
    assert all(bool(value.isfinite()) for value in losses.values()), losses
    losses["loss"].backward()
    assert all(bool(p.grad.isfinite().all()) for p in network.parameters() if p.grad is not None)


@pytest.mark.parametrize(("stages", "inld"), STAGES.values(), ids=STAGES)
@pytest.mark.parametrize("quads", [[[SHIP, PLANE], []], [[], []]], ids=["one empty", "all empty"])
def test_losses_are_finite_whatever_the_truth(stages: int, inld: tuple[int, ...], quads: list[list[Any]]) -> None:
    recipe = recipe_of(stages, inld)
    torch.manual_seed(0)
    network = build_model(recipe)
    batch = build_collate(recipe, network.anchors)([sample(some, index=index) for index, some in enumerate(quads)])
    losses, outputs = losses_of(recipe, network, batch)
    assert len(outputs) == 1 + stages and ("mask" in losses) == bool(inld)
    if not any(quads):
        assert all(value.item() == 0 for name, value in losses.items() if name.endswith("box"))
    assert_finite(losses, network)


def test_places_beyond_a_smaller_picture_take_no_part_in_any_stage() -> None:
    recipe = recipe_of(2, (1, 1, 1, 1, 1), pad=32)
    torch.manual_seed(0)
    network = build_model(recipe).eval()
    pictures = [sample([SHIP], size=(64, 64), index=0), sample([PLANE], index=1)]
    batch = build_collate(recipe, network.anchors)(pictures)
    with torch.no_grad():
        stages = network(batch.images)
    first, *refined = build_stage_targets(recipe)(stages, batch)
    assert first.valid is not None
    for targets in refined:
        assert targets.valid is not None and torch.equal(targets.valid, first.valid[:, ::21])
        assert not bool((~targets.valid).flatten()[targets.positives].any())
    assert refined[0].masks is not None and refined[1].masks is None
    masks = refined[0].masks[0]
    assert masks.shape == (2, 12, 16) and (masks[0, :8, :8] >= 0).all() and (masks[1] >= 0).all()
    assert (masks[0, 8:] == IGNORED).all() and (masks[0, :, 8:] == IGNORED).all()
    with torch.no_grad():
        criterion = build_criterion(recipe)
        before = criterion(stages, [first, *refined])
        for stage in stages[1:]:
            stage.logits[0].view(2, 12, 16, -1)[0, 8:] = 50.0
        stages[1].extra["mask_logits"][0][0, :, 8:] = 50.0
        after = criterion(stages, [first, *refined])
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("delta", [1e4, -1e4])
def test_boxes_of_zero_or_enormous_size_leave_losses_finite(delta: float) -> None:
    recipe = recipe_of(2)
    torch.manual_seed(0)
    network = build_model(recipe)
    torch.nn.init.constant_(network.head.deltas.bias, delta)  # sides times e^delta, far away
    batch = build_collate(recipe, network.anchors)([sample([SHIP, PLANE])])
    losses, stages = losses_of(recipe, network, batch)
    assert all(bool(level.isfinite().all()) for stage in stages for level in stage.anchors)
    assert_finite(losses, network)


def test_crowds_follow_the_rule_of_the_first_stage() -> None:
    pictures = [sample([SHIP, PLANE], crowd=[False, True])]
    for crowd, painted in (("background", False), ("ignored", True)):
        recipe = recipe_of(1, (1, 1, 1, 1, 1), crowd=crowd)
        network = build_model(recipe)
        batch = build_collate(recipe, network.anchors)(pictures)
        with torch.no_grad():
            targets = build_stage_targets(recipe)(network(batch.images), batch)[1]
        assert targets.masks is not None
        assert bool((targets.masks[0] == IGNORED).any()) == painted
        assert set(targets.labels.tolist()) <= {0}


def test_thresholds_are_those_of_the_stage_and_the_rest_that_of_the_first() -> None:
    rules = build_refine_rules(recipe_of(2, crowd="ignored"))
    assert [(rule.positive, rule.negative) for rule in rules] == [(0.6, 0.5), (0.7, 0.6)]
    assert all(rule.pixels == "continuous" and rule.negative_inclusive and rule.ignored_iof for rule in rules)
    assert build_refine_rules(recipe_of(0)) == ()


def test_a_detector_gives_the_losses_of_all_stages() -> None:
    recipe = recipe_of(1, (1, 1, 1, 1, 1))
    torch.manual_seed(0)
    detector = Detector(recipe, build_model(recipe).eval())
    image = np.zeros((96, 128, 3), np.uint8)
    losses = detector.losses([image], [Truth(torch.tensor([[80.0, 40.0, 40.0, 40.0, 0.0]]), torch.tensor([1]))])
    assert list(losses) == ["class", "box", "refine1_class", "refine1_box", "mask", "loss"]
    assert losses["loss"].requires_grad
