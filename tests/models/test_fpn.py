from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from focaldet.errors import FocaldetError
from focaldet.models.fpn import FPN, AverageFPN, build_neck, resize_legacy


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
    for conv in [item for kind in (FPN, AverageFPN) for item in kind((64, 128, 256), 128).modules()]:
        if not isinstance(conv, torch.nn.Conv2d):
            continue
        area = conv.kernel_size[0] ** 2
        bound = math.sqrt(6 / (area * (conv.in_channels + conv.out_channels)))
        largest = conv.weight.abs().max().item()
        assert 0.99 * bound < largest <= bound
        assert not conv.bias.any()


# --- the pyramid of the original rotated program ---
def sampled_at(count: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Lower and upper neighbour of each of `size` places among `count`, and the share of the upper one."""
    source = np.arange(size) * (count / size)
    low = np.floor(source).astype(int)
    return low, np.minimum(low + 1, count - 1), source - low


@pytest.mark.parametrize(
    ("before", "after"),
    [((4, 6), (8, 12)), ((13, 15), (25, 29)), ((7, 8), (13, 15)), ((1, 3), (2, 5)), ((1, 1), (1, 1)), ((6, 5), (4, 3))],
)
def test_legacy_resizing_samples_without_half_a_pixel(before: tuple[int, int], after: tuple[int, int]) -> None:
    level = torch.randn(2, 3, *before, dtype=torch.float64)
    low, high, share = sampled_at(before[0], after[0])
    rows = level.numpy()[:, :, low] * (1 - share)[:, None] + level.numpy()[:, :, high] * share[:, None]
    low, high, share = sampled_at(before[1], after[1])
    expected = rows[..., low] * (1 - share) + rows[..., high] * share
    np.testing.assert_allclose(resize_legacy(level, after).numpy(), expected, rtol=0, atol=1e-12)


def test_legacy_resizing_has_the_gradient_of_what_it_does() -> None:
    level = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda item: resize_legacy(item, (5, 8)), level)


def test_legacy_resizing_can_be_exported_for_maps_of_any_size() -> None:
    class Resize(torch.nn.Module):
        def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
            return resize_legacy(coarse, (fine.shape[-2], fine.shape[-1]))

    sides = [{axis: torch.export.Dim.AUTO for axis in (2, 3)} for _ in range(2)]
    shapes = [(1, 2, 6, 7), (1, 2, 12, 13)], [(1, 2, 9, 5), (1, 2, 17, 10)]
    first, second = ([torch.randn(shape) for shape in pair] for pair in shapes)
    program = torch.export.export(Resize(), tuple(first), dynamic_shapes=sides).module()
    torch.testing.assert_close(program(*second), Resize()(*second))


def test_the_average_pyramid_is_what_it_is_said_to_be() -> None:
    neck, inputs = AverageFPN((4, 6, 8), 16), maps(*C345)
    laterals = [conv(level) for conv, level in zip(neck.lateral, inputs, strict=True)]
    merged4 = (laterals[1] + resize_legacy(laterals[2], (7, 6))) / 2
    merged3 = (laterals[0] + resize_legacy(merged4, (13, 11))) / 2
    p5 = neck.output[2](laterals[2])
    # (4, 3): an even side is padded behind only, an odd one on both sides; then (2, 2)
    p6 = F.conv2d(F.pad(p5, (1, 1, 0, 1)), neck.output[3].weight, neck.output[3].bias, stride=2)
    p7 = F.conv2d(F.pad(p6.relu(), (0, 1, 0, 1)), neck.output[4].weight, neck.output[4].bias, stride=2)
    expected = [neck.output[0](merged3), neck.output[1](merged4), p5, p6, p7]
    for ours, theirs in zip(neck(inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_average_pyramid_learns_in_place() -> None:
    neck, inputs = AverageFPN((4, 6, 8), 16).double(), [level.double() for level in maps(*C345)]

    def total(*levels: torch.Tensor) -> torch.Tensor:
        return torch.stack([level.square().sum() for level in neck(levels)]).sum()

    inputs = [level[:1, :, :5, :4].clone().requires_grad_() for level in inputs]
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)


def test_a_neck_that_does_not_exist_is_one_sentence() -> None:
    assert isinstance(build_neck("fpn-average", (4, 6, 8), 16, (3, 4, 5), "p5", True, "none"), AverageFPN)
    with pytest.raises(FocaldetError, match=r"goes with p6_from='p5'.* but these are 'c5', False and 'none'"):
        build_neck("fpn-average", (4, 6, 8), 16, (3, 4, 5), "c5", False, "none")
