"""Whether boxes written in different ways are the same rectangles."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.floating]


def corner_distances(ones: Array, others: Array) -> npt.NDArray[np.float64]:
    """Largest difference (N,) of corners (N, 8), at the order of corners that fits best."""
    one, other = (np.asarray(item, dtype=np.float64).reshape(-1, 4, 2) for item in (ones, others))
    orders = [np.roll(way, shift, axis=1) for way in (other, other[:, ::-1]) for shift in range(4)]
    return np.stack([np.abs(one - order).max(axis=(1, 2)) for order in orders]).min(axis=0)


def corners(boxes: Array | Tensor) -> npt.NDArray[np.float64]:
    """Corners (N, 8) of rboxes (N, 5), in float64 and as a text of their own: what they test must not test itself."""
    x, y, w, h, theta = np.asarray(boxes, dtype=np.float64).T
    along, across = np.stack([np.cos(theta), np.sin(theta)]) * w / 2, np.stack([-np.sin(theta), np.cos(theta)]) * h / 2
    centre = np.stack([x, y])
    return np.concatenate([centre + a * along + b * across for a, b in ((1, 1), (1, -1), (-1, -1), (-1, 1))]).T


def rectangle_distances(ones: Array | Tensor, others: Array | Tensor) -> npt.NDArray[np.float64]:
    """Largest difference (N,) of the corners of rboxes (N, 5)."""
    return corner_distances(corners(ones), corners(others))


def random_rboxes(seed: int, count: int, dtype: torch.dtype = torch.float64, turns: float = 3.0) -> Tensor:
    """Make rboxes of which some have equal sides and some lie on multiples of 45 degrees, as written in `dtype`."""
    generator = torch.Generator().manual_seed(seed)
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    boxes = draw * torch.tensor([1000.0, 1000.0, 150.0, 150.0, 4 * torch.pi * turns], dtype=torch.float64)
    boxes += torch.tensor([-100.0, -100.0, 4.0, 4.0, -2 * torch.pi * turns], dtype=torch.float64)
    kind = torch.randint(4, (count,), generator=generator)
    boxes[:, 3] = torch.where(kind == 0, boxes[:, 2], boxes[:, 3])
    eighths = torch.randint(-8, 9, (count,), generator=generator)
    on_axes = torch.randint(3, (count,), generator=generator) == 0
    boxes[:, 4] = torch.where(on_axes, eighths * (torch.pi / 4), boxes[:, 4])
    return boxes.to(dtype)
