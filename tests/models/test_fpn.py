from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from focaldet.models.fpn import FPN


def maps(*sides: tuple[int, int], channels: tuple[int, ...] = (4, 6, 8)) -> list[torch.Tensor]:
    torch.manual_seed(0)
    return [torch.randn(2, count, *side) for count, side in zip(channels, sides, strict=True)]


C345 = ((13, 11), (7, 6), (4, 3))


def test_levels_have_their_sizes_also_where_they_do_not_halve_evenly() -> None:
    pyramid = FPN((4, 6, 8), 16)(maps(*C345))
    assert [tuple(level.shape) for level in pyramid] == [
        (2, 16, *size) for size in ((13, 11), (7, 6), (4, 3), (2, 2), (1, 1))
    ]


def test_a_coarser_sum_is_enlarged_to_its_nearest_neighbours() -> None:
    neck, inputs = FPN((4, 6, 8), 16), maps(*C345)
    laterals = [conv(level) for conv, level in zip(neck.lateral, inputs, strict=True)]
    rows, columns = torch.arange(7) * 4 // 7, torch.arange(6) * 3 // 6
    expected = neck.output[1](laterals[1] + laterals[2][:, :, rows][:, :, :, columns])
    torch.testing.assert_close(neck(inputs)[1], expected)


def test_p6_and_p7_come_from_where_they_are_said_to() -> None:
    inputs = maps(*C345)
    for p6_from, p7_relu in (("c5", False), ("p5", False), ("c5", True)):
        neck = FPN((4, 6, 8), 16, p6_from=p6_from, p7_relu=p7_relu)  # type: ignore[arg-type]
        _, _, p5, p6, p7 = neck(inputs)
        torch.testing.assert_close(p6, neck.output[3](inputs[-1] if p6_from == "c5" else p5))
        torch.testing.assert_close(p7, neck.output[4](F.relu(p6) if p7_relu else p6))


@pytest.mark.parametrize(
    ("levels", "channels", "sizes"),
    [
        ((3, 4, 5), (4, 6, 8), [(16, 16), (8, 8), (4, 4)]),
        ((3, 4, 5, 6), (4, 6, 8), [(16, 16), (8, 8), (4, 4), (2, 2)]),
        ((3, 4), (4, 6), [(16, 16), (8, 8)]),
        ((4, 5, 6, 7), (6, 8), [(8, 8), (4, 4), (2, 2), (1, 1)]),
        ((2, 3, 4, 5, 6), (2, 4, 6, 8), [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]),
    ],
)
def test_any_levels_that_rise_by_one(
    levels: tuple[int, ...], channels: tuple[int, ...], sizes: list[tuple[int, int]]
) -> None:
    inputs = maps(*((2 ** (7 - level),) * 2 for level in levels if level <= 5), channels=channels)
    pyramid = FPN(channels, 16, levels)(inputs)
    assert [tuple(level.shape[2:]) for level in pyramid] == sizes


def test_convolutions_start_xavier_uniform_without_bias() -> None:
    neck = FPN((64, 128, 256), 128)
    for conv in [*neck.lateral, *neck.output]:
        area = conv.kernel_size[0] ** 2
        bound = math.sqrt(6 / (area * (conv.in_channels + conv.out_channels)))
        largest = conv.weight.abs().max().item()
        assert 0.99 * bound < largest <= bound
        assert not conv.bias.any()
