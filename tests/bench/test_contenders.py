"""What is counted and how random networks are made to look trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from focaldet.bench.contenders import (
    CALIBRATION_SIZE,
    CONTENDERS,
    DELTA_DEVIATION,
    SCORE,
    Ours,
    count_gmac,
    heads_of,
    imitate_training,
    our_outputs,
)
from focaldet.bench.networks import COCO, R3DET, RETINANET_R, ROTATED, Network, random_picture, rotated_truth
from focaldet.engine.build import build_model
from focaldet.engine.optimizer import Gradients
from focaldet.models.retinanet import build_retinanet
from focaldet.recipes import get_recipe

PASSING_SHARE = 3e-4
TINY = Network("tiny", "retinanet-h-small", rotated_truth, 1e-3)


def test_multiply_adds_equal_the_tables_figure() -> None:
    # shared/spec/horizontal.md section 2
    assert count_gmac(build_retinanet(), our_outputs, (800, 1344), backward=False) == pytest.approx(250.49, abs=0.005)


def test_backward_counts_what_learns() -> None:
    frozen, first, second = (nn.Conv2d(4, 4, 3, padding=1, bias=False) for _ in range(3))
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), frozen, first, second)
    network[:2].requires_grad_(False)
    own = 8 * 8 * 4 * 4 * 9 / 1e9
    stem = 8 * 8 * 3 * 4 / 1e9
    counted = count_gmac(network, lambda model, images: [model(images)], (8, 8), backward=True)
    # Forward of all; gradients of both learning weights; of the one map between the two.
    assert counted == pytest.approx(stem + 3 * own + 2 * own + own)


def test_scores_and_deltas_look_trained() -> None:
    torch.manual_seed(0)
    model = build_retinanet(backbone="resnet18", head_convs=1, neck_channels=32, head_channels=32).eval()
    imitate_training(model.head.logits, model.head.deltas, model, PASSING_SHARE)
    with torch.inference_mode():
        (stage,) = model(random_picture(CALIBRATION_SIZE))
        logits, deltas, _ = stage.flat()
        other = model(random_picture((320, 320)))[0].flat()[0]
    passing = float((logits.sigmoid() > SCORE).float().mean())
    assert passing == pytest.approx(PASSING_SHARE, rel=0.02)  # a few logits lie at the threshold itself
    assert PASSING_SHARE / 4 < float((other.sigmoid() > SCORE).float().mean()) < 4 * PASSING_SHARE
    assert float(deltas.std()) == pytest.approx(DELTA_DEVIATION, rel=0.01)


@pytest.mark.parametrize("network", [ROTATED, RETINANET_R])
def test_a_thousand_pairs_of_a_tile_are_meant_to_pass(network: Network) -> None:
    recipe = get_recipe(network.recipe)
    with torch.device("meta"):
        model = build_model(recipe)
    pairs = sum(model.anchors.grid_for((1024, 1024)).counts) * len(recipe.classes)
    assert network.passing_share * pairs == pytest.approx(1000, rel=0.01)


def test_detections_and_steps_are_those_of_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    contender = Ours(TINY)
    detection = contender.inference((64, 96), torch.float32)
    (found,) = detection.run()  # type: ignore[misc]
    assert found.boxes.shape[1] == 5
    step = contender.training((64, 64))
    rules = []

    def spied(self: Gradients, loss: torch.Tensor, *, last: bool) -> None:
        rules.append((self.rule.clip, last))
        loss.backward()  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Gradients, "add", spied)
    step.run()
    assert rules == [(get_recipe(TINY.recipe).clip, True)]
    assert step.count() > 0 < detection.count()


def test_every_network_has_contenders_and_names_are_theirs_alone() -> None:
    assert [who.network for who in CONTENDERS if who.name == "focaldet"] == [COCO, ROTATED, RETINANET_R, R3DET]
    keys = [(who.name, who.network.name) for who in CONTENDERS]
    assert len({*keys}) == len(keys)
    assert len(heads_of(build_retinanet(backbone="resnet18"))) == 1
