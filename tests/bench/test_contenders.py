"""What is counted and how random networks are made to look trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from focaldet.bench.contenders import (
    CALIBRATION_SIZE,
    DELTA_DEVIATION,
    PASSING_SHARE,
    SCORE,
    count_gmac,
    imitate_training,
    our_outputs,
    random_picture,
    random_truth,
)
from focaldet.models.retinanet import build_retinanet


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
    imitate_training(model.head.logits, model.head.deltas, model)
    with torch.inference_mode():
        (stage,) = model(random_picture(CALIBRATION_SIZE))
        logits, deltas, _ = stage.flat()
        other = model(random_picture((320, 320)))[0].flat()[0]
    passing = float((logits.sigmoid() > SCORE).float().mean())
    assert passing == pytest.approx(PASSING_SHARE, rel=0.02)  # a few logits lie at the threshold itself
    assert PASSING_SHARE / 4 < float((other.sigmoid() > SCORE).float().mean()) < 4 * PASSING_SHARE
    assert float(deltas.std()) == pytest.approx(DELTA_DEVIATION, rel=0.01)


def test_truth_lies_within_the_picture() -> None:
    truth = random_truth((200, 300), 500)
    x1, y1, x2, y2 = truth.boxes.unbind(1)
    assert bool((x1 >= 0).all() and (y1 >= 0).all() and (x2 <= 300).all() and (y2 <= 200).all())
    assert bool((x2 > x1).all() and (y2 > y1).all())
    assert torch.equal(truth.boxes, random_truth((200, 300), 500).boxes)
