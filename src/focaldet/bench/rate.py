"""What this machine computes at best, measured by the convolution that a RetinaNet mostly consists of."""

from __future__ import annotations

import torch
from torch import nn

from focaldet.bench.clock import Task
from focaldet.structures import Size

CHANNELS = 256
KERNEL = 3
P3_SIZE = (100, 168)
"""(height, width) of the finest map of an 800 x 1344 input, where a RetinaNet spends most of its time."""
CALLS = 4
"""Convolutions timed in one go."""


def rate_task(dtype: torch.dtype, size: Size = P3_SIZE) -> tuple[Task, float]:
    """Return a task of `CALLS` 3x3 convolutions, 256 to 256 channels, NHWC, and its billions of operations.

    A multiply-add counts as two operations, and padding is counted too, as is usual.
    """
    conv = nn.Conv2d(CHANNELS, CHANNELS, KERNEL, padding=1).to(dtype).to(memory_format=torch.channels_last)
    image_map = torch.randn(1, CHANNELS, *size).to(dtype=dtype, memory_format=torch.channels_last)

    @torch.inference_mode()
    def convolve() -> None:
        for _ in range(CALLS):
            conv(image_map)

    return convolve, CALLS * 2 * size[0] * size[1] * CHANNELS**2 * KERNEL**2 / 1e9
