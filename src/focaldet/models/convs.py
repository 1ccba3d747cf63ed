"""What neck and head are made of: a convolution, a norm if the recipe wants one, a ReLU if the place wants one."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from focaldet.errors import FocaldetError

ConvNorm = Literal["none", "group", "group-no-bias"]
"""What stands behind a convolution: nothing, or a group norm; with the latter the convolution may have no bias."""

GROUP_CHANNELS = 8
"""Channels that a group norm takes together: 32 groups of 256 channels, as in Wu and He 2018, arXiv:1803.08494."""


class ConvReLU(nn.Conv2d):
    """A convolution of odd kernel size with a ReLU behind it; the map keeps its size."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation)

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return F.relu_(super().forward(input))


class NormedConv2d(nn.Conv2d):
    """A convolution with a group norm and perhaps a ReLU behind it, whatever the scale of its input.

    Args:
        in_channels: channels of the input.
        out_channels: a multiple of GROUP_CHANNELS.
        kernel_size: odd; the map keeps its size but for the stride.
        stride: pixels between places.
        relu: end with a ReLU.
        bias: add one a channel, which the norm takes away again but for the mean of a group.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        relu: bool = False,
        bias: bool = True,
    ) -> None:
        if out_channels % GROUP_CHANNELS:
            raise FocaldetError(
                f"a group norm takes {GROUP_CHANNELS} channels together, so {out_channels} channels do not fit; "
                f"give neck_channels and head_channels as multiples of {GROUP_CHANNELS}, or no norm"
            )
        super().__init__(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, bias=bias)
        self.norm = nn.GroupNorm(out_channels // GROUP_CHANNELS, out_channels)
        self.relu = relu

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        result: Tensor = self.norm(super().forward(input))
        return F.relu(result) if self.relu else result


def build_conv(norm: ConvNorm, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1) -> nn.Conv2d:
    """Return a convolution of odd kernel size that keeps the map's size but for the stride, with its norm."""
    if norm != "none":
        return NormedConv2d(in_channels, out_channels, kernel_size, stride, bias=norm == "group")
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
