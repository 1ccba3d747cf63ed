"""Training beside the original rotated program: loss terms, gradients, weight decay, two optimizer steps.

Tolerances are those of the README of the stored outputs.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tf_rules
from focaldet.engine.optimizer import Gradients, UpdateRule
from focaldet.geometry.rotated_coders import CoderAngle, RboxCoder
from focaldet.losses.criterion import Criterion
from focaldet.models.anchors import AnchorShapes, TurnedShapes
from focaldet.models.retinanet import RetinaNet
from focaldet.models.tensorflow import our_name
from focaldet.structures import StageTargets, Truth
from focaldet.targets.assign import AssignRule
from focaldet.targets.encode import build_targets, enclosing_hboxes

pytestmark = pytest.mark.golden

LOSSES: dict[str, dict[str, Any]] = {
    "retinanet_h_v4": {"box_weight": 0.2},
    "retinanet_h180_v15": {"box_weight": 0.2},
    "retinanet_h_atan_v16": {"box_weight": 0.2, "box_loss": "smooth_l1_atan"},
    "retinanet_r_v1": {},
    "retinanet_r_iou_v5": {"box_loss": "iou_smooth_l1", "iou_floor": 0.0},
    "retinanet_h_res101_v9": {"box_weight": 0.2},
    "retinanet_h_res152_v12": {},
}
CASES = [pytest.param(name, marks=[pytest.mark.slow] if "_res" in name else []) for name in LOSSES]
SAME_WEIGHTS = {"retinanet_h180_v15": "retinanet_h_v4", "retinanet_h_atan_v16": "retinanet_h_v4"}
PICTURE_SIZES = {"a": (256, 256), "b": (320, 384), "c": (200, 232)}
WEIGHT_DECAY = 1e-4


@cache
def pristine(golden: Path, weights: str) -> RetinaNet:
    return tf_rules.tf_network(golden, weights)


def network_of(golden: Path, case: str) -> RetinaNet:
    """A network of a stored case, in training mode, that may be changed."""
    network = copy.deepcopy(pristine(golden, SAME_WEIGHTS.get(case, case)))
    network.anchors = anchors_of(case)
    return network.train()


def criterion_of(case: str) -> Criterion:
    coder = coder_of(case)
    losses = {"box_loss": "smooth_l1"} | LOSSES[case]
    return Criterion(**losses, decode=lambda deltas, anchors: coder.to_rbox(coder.decode(deltas, anchors)))


def anchors_of(case: str) -> AnchorShapes:
    shapes: AnchorShapes = tf_rules.MODELS[case]["anchors"]
    return shapes if isinstance(shapes, TurnedShapes) else replace(shapes, squares="rounded")


def coder_of(case: str) -> RboxCoder:
    form: CoderAngle = "tf180" if "h180" in case else "tf90"
    return RboxCoder(form, max_log_scale=None)


def targets_of(stored: Any, case: str, tag: str) -> StageTargets:
    """What the anchors of a picture should say.

    H rows assign by the hull of the polygon as annotated. All teach the stored rbox, which the original fitted to the
    polygon in float32.
    """
    polygons = torch.from_numpy(stored[f"{tag}.gt_quad"])
    truth = Truth(polygons[:, :8].reshape(-1, 4, 2).float(), polygons[:, 8].long() - 1)
    degrees = torch.from_numpy(stored[f"{tag}.gt_r"])
    rboxes = torch.cat([degrees[:, :4], degrees[:, 4:5].double().deg2rad().float()], dim=1)
    anchors = anchors_of(case)
    turned = isinstance(anchors, TurnedShapes)
    return build_targets(
        anchors.grid_for(PICTURE_SIZES[tag]),
        [truth],
        AssignRule(0.5, 0.4, "none", negative_inclusive=True, pixels="continuous" if turned else "plus_one"),
        to_assign=(lambda _: rboxes) if turned else enclosing_hboxes,
        to_regress=lambda _: rboxes,
        encode=coder_of(case).encode,
    )


def losses_of(golden: Path, network: RetinaNet, case: str, tag: str) -> dict[str, Tensor]:
    targets = targets_of(tf_rules.stored_case(golden, case), case, tag)
    return criterion_of(case)(network(tf_rules.tf_input(golden, tag)), [targets])


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


def assert_variables(
    golden: Path, case: str, stored: Any, name: str, ours: Mapping[str, Tensor], *, norm: float, sample: float
) -> None:
    """Compare what belongs to each trainable variable; `sample` is relative to the largest element of a variable."""
    variables = described(golden, case)["trainable_order"]
    assert set(ours) == {our_name(variable) for variable in variables}
    for number, variable in enumerate(variables):
        values = in_their_layout(ours[our_name(variable)]).ravel()
        expected = stored[f"{name}.sample"][number][: values.size]
        got = values[(np.arange(len(expected)) * 1000003) % values.size if len(expected) < values.size else slice(None)]
        np.testing.assert_allclose(got, expected, rtol=0, atol=sample * np.abs(values).max(), err_msg=variable)
        length = np.linalg.norm(values.astype(np.float64))
        assert length == pytest.approx(stored[f"{name}.l2"][number], rel=norm), variable


def described(golden: Path, case: str) -> Any:
    return json.loads((golden / "tf" / "vars" / f"{case}.json").read_text())


def in_their_layout(values: Tensor) -> Any:
    """A kernel (out, in, kh, kw) as [kh, kw, in, out]; anything else as it is."""
    return (values.permute(2, 3, 1, 0) if values.ndim == 4 else values).detach().contiguous().numpy()


@pytest.mark.parametrize("case", CASES)
def test_weight_decay(golden: Path, case: str) -> None:
    """It is on the kernels of convolutions; on the frozen ones too, where it is but a number."""
    parameters = dict(pristine(golden, SAME_WEIGHTS.get(case, case)).named_parameters())
    rule = UpdateRule(weight_decay=WEIGHT_DECAY, decay_all=False)
    for variable, entry in described(golden, case)["variables"].items():
        if our_name(variable) in parameters:
            assert rule.decay(parameters[our_name(variable)]) == sum(entry["l2"] or ()), variable
    terms = [rule.decay(p) * p.detach().double().square().sum() / 2 for p in parameters.values()]
    stored = tf_rules.stored_case(golden, case)["reg_loss.total"]
    assert sum(terms).item() == pytest.approx(stored.item(), rel=1e-5)  # type: ignore[union-attr]


@pytest.mark.parametrize("case", ["retinanet_h_v4"])
def test_two_optimizer_steps(golden: Path, case: str) -> None:
    """The stored norm to clip to is small, so that many variables reach it."""
    network, stored = network_of(golden, case), tf_rules.stored_case(golden, case)
    rate, clip = stored["step.args"].tolist()
    rule = UpdateRule(WEIGHT_DECAY, decay_all=False, bias_gradient=2.0, clip=clip, clip_per="variable")
    optimizer, gradients = torch.optim.SGD(rule.groups(network), lr=rate, momentum=0.9), Gradients(network, rule)
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
