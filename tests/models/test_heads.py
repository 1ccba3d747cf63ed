from __future__ import annotations

import torch
import torch.nn.functional as F

from focaldet.models.heads import Head


def test_rows_hold_the_anchors_of_a_place_together_and_classes_last() -> None:
    torch.manual_seed(0)
    head = Head(8, channels=6, num_convs=2, num_anchors=3, num_classes=5)
    level = torch.randn(2, 8, 4, 7)
    (logits,), (deltas,) = head([level])
    assert logits.shape == (2, 4 * 7 * 3, 5) and deltas.shape == (2, 4 * 7 * 3, 4)
    tower = level
    for conv in head.class_tower:
        tower = F.relu(F.conv2d(tower, conv.weight, conv.bias, padding=1))
    channels = F.conv2d(tower, head.logits.weight, head.logits.bias, padding=1)
    y, x, anchor = 2, 5, 1
    expected = channels[:, anchor * 5 : anchor * 5 + 5, y, x]
    torch.testing.assert_close(logits[:, (y * 7 + x) * 3 + anchor], expected)


def test_rows_of_channels_last_maps_are_views() -> None:
    head = Head(8, channels=8, num_convs=1).to(memory_format=torch.channels_last)
    level = torch.randn(2, 8, 4, 7).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        (logits,), (deltas,) = head([level])
    assert logits._base is not None and deltas._base is not None


def test_every_class_starts_near_its_prior() -> None:
    torch.manual_seed(0)
    head = Head(16, channels=16, prior=0.05)
    (logits,), (deltas,) = head([torch.randn(1, 16, 8, 8)])
    assert (logits.sigmoid() - 0.05).abs().max() < 0.005
    assert deltas.abs().max() < 0.1
    weights = torch.cat(
        [conv.weight.flatten() for conv in (*head.class_tower, *head.box_tower, head.logits, head.deltas)]
    )
    assert abs(weights.std().item() - 0.01) < 2e-4
    assert not any(conv.bias.any() for conv in (*head.class_tower, *head.box_tower, head.deltas))


def test_a_box_has_as_many_numbers_as_it_is_said_to() -> None:
    _, (deltas,) = Head(8, num_convs=0, num_anchors=3, num_classes=2, box_numbers=5)([torch.randn(2, 8, 4, 7)])
    assert deltas.shape == (2, 4 * 7 * 3, 5)


def test_a_head_without_towers_is_a_head() -> None:
    (logits,), _ = Head(8, num_convs=0, num_classes=2)([torch.randn(1, 8, 2, 2)])
    assert logits.shape == (1, 36, 2)
