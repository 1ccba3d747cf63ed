"""Horizontal boxes, (x1, y1, x2, y2) in continuous pixels without "+1": convert, area, clip, flip."""

from __future__ import annotations

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.structures import Size


def in_full_precision(boxes: Tensor) -> Tensor:
    """Return boxes as they are in float32 or float64, else as float32: geometry never runs in half precision."""
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def check_hboxes(boxes: Tensor, name: str) -> None:
    """Raise FocaldetError unless the last axis of `boxes` has four numbers."""
    if boxes.ndim == 0 or boxes.shape[-1] != 4:
        shape = tuple(boxes.shape)
        raise FocaldetError(f"{name} has shape {shape}; give hboxes (x1, y1, x2, y2) of shape (..., 4)")


def area_hbox(boxes: Tensor) -> Tensor:
    """Return the area (...,) of hboxes (..., 4); negative where one side is, as in the published IoU.

    >>> area_hbox(torch.tensor([[10.0, 20.0, 40.0, 40.0]]))
    tensor([600.])
    """
    boxes = in_full_precision(boxes)
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def clip_hbox(boxes: Tensor, size: Size) -> Tensor:
    """Cut hboxes (..., 4) at the border of a picture of (height, width) pixels.

    >>> clip_hbox(torch.tensor([[-5.0, 8.0, 40.0, 20.0]]), (16, 32))
    tensor([[ 0.,  8., 32., 16.]])
    """
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)


def flip_hbox(boxes: Tensor, size: Size, horizontal: bool = False, vertical: bool = False) -> Tensor:
    """Mirror hboxes (..., 4) with a picture of (height, width) pixels: left to right, upside down, or both.

    >>> flip_hbox(torch.tensor([[2.0, 1.0, 5.0, 3.0]]), (8, 10), horizontal=True)
    tensor([[5., 1., 8., 3.]])
    """
    x1, y1, x2, y2 = boxes.unbind(-1)
    x1, x2 = (size[1] - x2, size[1] - x1) if horizontal else (x1, x2)
    y1, y2 = (size[0] - y2, size[0] - y1) if vertical else (y1, y2)
    return torch.stack([x1, y1, x2, y2], dim=-1)


def xyxy_to_xywh(boxes: Tensor) -> Tensor:
    """Turn (..., 4) hboxes into COCO's left, top, width, height.

    >>> xyxy_to_xywh(torch.tensor([2.0, 1.0, 5.0, 3.0]))
    tensor([2., 1., 3., 2.])
    """
    return torch.cat([boxes[..., :2], boxes[..., 2:] - boxes[..., :2]], dim=-1)


def xywh_to_xyxy(boxes: Tensor) -> Tensor:
    """Turn COCO's (..., 4) left, top, width, height into hboxes.

    >>> xywh_to_xyxy(torch.tensor([2.0, 1.0, 3.0, 2.0]))
    tensor([2., 1., 5., 3.])
    """
    return torch.cat([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], dim=-1)


def hbox_to_corners(boxes: Tensor) -> Tensor:
    """Return the corners (..., 4, 2) of hboxes (..., 4) in the order (x1, y1) (x2, y1) (x2, y2) (x1, y2)."""
    return boxes[..., [0, 1, 2, 1, 2, 3, 0, 3]].reshape(*boxes.shape[:-1], 4, 2)


def corners_to_hbox(corners: Tensor) -> Tensor:
    """Return the enclosing hboxes (..., 4) of polygons (..., N, 2)."""
    return torch.cat([corners.amin(dim=-2), corners.amax(dim=-2)], dim=-1)
