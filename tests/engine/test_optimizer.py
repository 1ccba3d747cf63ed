"""What becomes of gradients: groups of parameters, clipping in both ways, decay inside and outside of it, scales."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from focaldet.engine.optimizer import Gradients, LossScale, UpdateRule, clip_to_norm_
from focaldet.errors import FocaldetError


class Network(nn.Module):
    """A convolution, a norm and a frozen part."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.BatchNorm2d(2))
        self.head = nn.Conv2d(2, 1, 3)
        self.frozen = nn.Conv2d(1, 1, 1).requires_grad_(False)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x)).square().sum()  # type: ignore[no-any-return]


PICTURES = torch.randn(3, 1, 1, 5, 5, generator=torch.Generator().manual_seed(1))
LARGE = 1e9


def gathered(rule: UpdateRule) -> tuple[Network, dict[str, Tensor]]:
    """The gradients of an update of three groups."""
    network = Network()
    gradients = Gradients(network, rule)
    for number, picture in enumerate(PICTURES, 1):
        gradients.add(network(picture) / 3, last=number == 3)
    gradients.finish()
    return network, {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def of_groups() -> list[dict[str, Tensor]]:
    """The gradient of each group by itself."""
    answers = []
    for picture in PICTURES:
        network = Network()
        (network(picture) / 3).backward()
        answers.append({name: p.grad for name, p in network.named_parameters() if p.grad is not None})
    return answers


def as_names(network: nn.Module, groups: list[dict[str, Any]]) -> list[tuple[set[str], float, float]]:
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    return [({names[id(p)] for p in group["params"]}, group["weight_decay"], group["scale"]) for group in groups]


def test_groups_by_decay_and_rate() -> None:
    network = Network()
    assert as_names(network, UpdateRule(weight_decay=0.1).groups(network)) == [
        ({"backbone.0.weight", "backbone.1.weight", "backbone.1.bias", "head.weight", "head.bias"}, 0.1, 1.0)
    ]
    rule = UpdateRule(weight_decay=0.1, decay_all=False, backbone_lr=0.5, bias_gradient=2.0)
    assert as_names(network, rule.groups(network)) == [
        ({"backbone.0.weight"}, 0.1, 0.5),
        ({"backbone.1.weight", "backbone.1.bias"}, 0.0, 0.5),  # a norm's bias is none of a convolution
        ({"head.weight"}, 0.1, 1.0),
        ({"head.bias"}, 0.0, 2.0),
    ]
    clipped = UpdateRule(weight_decay=0.1, clip=1.0, clip_per="variable").groups(network)
    assert [group["weight_decay"] for group in clipped] == [0.0]


@pytest.mark.parametrize("clip", [None, 0.1, LARGE])
def test_total_equals_torch(clip: float | None) -> None:
    got = gathered(UpdateRule(weight_decay=0.1, clip=clip))[1]
    plain = Network()
    for picture in PICTURES:
        (plain(picture) / 3).backward()
    if clip is not None:
        clip_grad_norm_(plain.parameters(), clip)
    expected = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    assert got.keys() == expected.keys()
    assert all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize("clip", [0.1, LARGE])
def test_each_variable_of_each_group_is_clipped_before_they_are_summed(clip: float) -> None:
    rule = UpdateRule(weight_decay=0.1, decay_all=False, clip=clip, clip_per="variable")
    network, got = gathered(rule)
    weights, groups = dict(network.named_parameters()), of_groups()
    for name in got:
        expected = torch.zeros_like(got[name])
        for number, group in enumerate(groups):
            part = group[name] + (rule.decay(weights[name]) * weights[name].detach() if number == 2 else 0)
            expected += part * min(1.0, clip / part.norm().item())
        torch.testing.assert_close(got[name], expected)
        assert got[name].norm() <= 3 * clip * (1 + 1e-6)


def test_without_reaching_the_limit_decay_is_the_same_inside_and_outside() -> None:
    """Two steps of momentum beside torch's own decay."""
    states = []
    for rule in (UpdateRule(weight_decay=0.1), UpdateRule(weight_decay=0.1, clip=LARGE, clip_per="variable")):
        network = Network()
        optimizer, gradients = torch.optim.SGD(rule.groups(network), lr=1e-3, momentum=0.9), Gradients(network, rule)
        for _ in range(2):
            optimizer.zero_grad()
            gradients.add(network(PICTURES[0]), last=True)
            gradients.finish()
            optimizer.step()
        states.append(network.state_dict())
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name])


def test_a_doubled_bias_gradient_is_a_doubled_rate_with_momentum() -> None:
    network, twin = Network(), Network()
    optimizer = torch.optim.SGD(UpdateRule(bias_gradient=2.0).groups(network), lr=1e-3, momentum=0.9)
    plain = torch.optim.SGD(twin.parameters(), lr=1e-3, momentum=0.9)
    for _ in range(3):
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * group["scale"]
        for model, steps in ((network, optimizer), (twin, plain)):
            steps.zero_grad()
            model(PICTURES[0]).backward()
        assert twin.head.bias is not None and twin.head.bias.grad is not None
        twin.head.bias.grad *= 2
        optimizer.step()
        plain.step()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


def test_what_has_no_gradient_in_a_group_keeps_that_of_the_others() -> None:
    network = Network()
    gradients = Gradients(network, UpdateRule(weight_decay=0.1, clip=1.0, clip_per="variable"))
    gradients.add(network(PICTURES[0]), last=False)
    assert network.backbone[0].weight.grad is not None
    kept = network.backbone[0].weight.grad.clone()
    gradients.add(network.head.weight.sum(), last=True)
    assert torch.equal(network.backbone[0].weight.grad, kept)
    assert network.frozen.weight.grad is None


def test_a_short_gradient_stays_to_the_bit() -> None:
    gradient = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    kept = gradient.clone()
    clip_to_norm_(gradient, 100.0)
    assert torch.equal(gradient, kept)
    clip_to_norm_(gradient, 10.0)
    assert gradient.norm().item() == pytest.approx(10, rel=1e-6)
    nothing = torch.zeros(3)
    clip_to_norm_(nothing, 10.0)
    assert torch.equal(nothing, torch.zeros(3))


def test_faults_are_said() -> None:
    with pytest.raises(FocaldetError, match=r"clip=0.0 must be above 0"):
        UpdateRule(clip=0.0)
    with pytest.raises(FocaldetError, match="clip_per='tensor' is not one of total, variable"):
        UpdateRule(clip_per="tensor")  # type: ignore[arg-type]
    with pytest.raises(FocaldetError, match="nothing to train"):
        UpdateRule().groups(Network().requires_grad_(False))


def test_a_loss_scale_falls_with_overflow_and_rises_with_patience() -> None:
    scale = LossScale()
    scale.update(finite=False)
    assert scale.value == LossScale.START / 2
    for _ in range(LossScale.PATIENCE):
        scale.update(finite=True)
    assert scale.value == LossScale.START
    other = LossScale()
    other.load_state_dict(scale.state_dict())
    assert (other.value, other.since) == (scale.value, scale.since)
    fixed = LossScale(512.0)
    fixed.update(finite=False)
    assert fixed.value == 512.0 and fixed.exhausted
