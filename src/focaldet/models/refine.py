"""Feature alignment: every place of a map gets features from where its box lies (Yang et al. 2019, arXiv:1908.05612).

The sampling of R3Det's feature refinement, section 3.2 of the paper. The networks that refine are built on it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.rbox import rbox_to_polygon

Points = Literal[1, 5]
Place = Literal["true", "transposed"]


def align_features(features: Tensor, boxes: Tensor, stride: int, points: Points = 1, place: Place = "true") -> Tensor:
    """Add to every place of a map what the map holds at the centre, or centre and corners, of the place's box.

    Args:
        features: (B, C, H, W).
        boxes: (B, H, W, 5) rboxes in the frame `input`, one a place.
        stride: pixels of `input` between places; a point is its coordinates divided by this, without half a place.
        points: 1, the centre; or 5, the corners too, their samples summed.
        place: "true"; or "transposed", a quirk: x and y of the centre are exchanged, as in mmcv's operator and the
            networks that were trained with it.

    Returns:
        (B, C, H, W), with a gradient to the features and, through the weights of neighbours, to the boxes.
    """
    batch, _, height, width = features.shape
    if boxes.shape != (batch, height, width, 5):
        raise FocaldetError(f"boxes have shape {tuple(boxes.shape)}; give one a place: {(batch, height, width, 5)}")
    if place == "transposed":
        boxes = boxes[..., [1, 0, 2, 3, 4]]
    spots = boxes[..., None, :2]
    if points == 5:
        corners = rbox_to_polygon(boxes.reshape(-1, 5)).view(batch, height, width, 4, 2)
        spots = torch.cat([spots, corners], dim=3)
    return features + sample_bilinear(features, spots / stride)


def sample_bilinear(features: Tensor, spots: Tensor) -> Tensor:
    """Return the sum of a map's values at some spots of each place, between four neighbours each.

    A spot outside of [-1, size] has the value 0; one between the border and there that of the border.

    Args:
        features: (B, C, H, W).
        spots: (B, H', W', P, 2) x, y in places of the map.

    Returns:
        (B, C, H', W').
    """
    batch, channels, height, width = features.shape
    x, y = spots.unbind(-1)
    inside = (x >= -1) & (x <= width) & (y >= -1) & (y <= height)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    rows = features.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    total: Tensor | None = None
    for column, row, weight in (
        (left, top, (1 - (x - left)) * (1 - (y - top))),
        (right, top, (x - left) * (1 - (y - top))),
        (left, bottom, (1 - (x - left)) * (y - top)),
        (right, bottom, (x - left) * (y - top)),
    ):
        index = (row * width + column).long().flatten(1)
        found = rows.gather(1, index[..., None].expand(-1, -1, channels)).view(*spots.shape[:-1], channels)
        part = (found * (weight * inside)[..., None]).sum(dim=3)
        total = part if total is None else total + part
    assert total is not None
    return total.permute(0, 3, 1, 2)
