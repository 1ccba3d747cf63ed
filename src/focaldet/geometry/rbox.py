"""Rotated boxes, (x, y, w, h, theta) in continuous pixels and radians clockwise on the screen.

Their corners and hull, how they move with the picture, which part of them a picture shows, and the forms in
which other programs write them. theta is the direction of the w side; any theta is understood.
"""

from __future__ import annotations

import torch
from torch import Tensor

from focaldet.errors import FocaldetError, did_you_mean
from focaldet.geometry.angles import ANGLE_FORMS, RADIANS, AngleForm, direction, rewrite, wide_type
from focaldet.geometry.check import check_numbers, check_rboxes, check_together, takes_numpy
from focaldet.geometry.hbox import corners_to_hbox, hbox_to_corners
from focaldet.geometry.polygon import least_area_rectangle
from focaldet.structures import Size

FORMS = (*ANGLE_FORMS, "polygon", "hbox")
"""What `convert_boxes` knows; docs/conventions.md shows one box in each."""
_RADIANS = ("le90", "le135", "oc", "oc-negative")


@takes_numpy
def convert_boxes(boxes: Tensor, source: str, target: str) -> Tensor:
    """Write boxes in another form: the same rectangles where the form can, else the nearest that it can.

    A polygon becomes its least-area rectangle, and any box that becomes an hbox its upright hull. Where the form
    leaves a choice, of equal sides for instance, docs/conventions.md says what is chosen.

    Args:
        boxes: (N, 5), (N, 8) or (N, 4) as `source` says; sides need not be in order, nor angles in their range.
        source: "le90", "le135", "oc", "oc-negative", "degrees-ccw", "tf90", "tf180", "polygon" or "hbox".
        target: one of the same names; where it is `source`, boxes are brought into the form's range and order.

    Returns:
        (N, 5), (N, 8) or (N, 4) as `target` says, with the dtype of `boxes`; differentiable.

    Raises:
        FocaldetError: an unknown form; numbers that are not finite, a negative side, or the wrong shape.

    >>> convert_boxes(torch.tensor([[60.0, 40.0, 100.0, 50.0, 0.0]]), "le90", "tf90")
    tensor([[ 60.,  40.,  50., 100., -90.]])
    """
    for name in (source, target):
        if name not in FORMS:
            raise FocaldetError(f"no form of a box is called {name!r}{did_you_mean(name, FORMS)}; {_KNOWN}")
    if source == "polygon":
        return _from_polygon(boxes, target)
    if source == "hbox":
        return _from_hbox(boxes, target)
    check_rboxes(boxes, "boxes")
    return _from_angle_form(boxes, ANGLE_FORMS[source], target, boxes.dtype)


_KNOWN = f"known are {', '.join(FORMS)}"


@takes_numpy
def regularize_rbox(boxes: Tensor, form: str = "le90") -> Tensor:
    """Bring rboxes (N, 5), theta in radians and in any range, to one of the forms in radians; "le90" is the public one.

    >>> regularize_rbox(torch.tensor([[0.0, 0.0, 10.0, 30.0, 0.0]], dtype=torch.float64))
    tensor([[ 0.0000,  0.0000, 30.0000, 10.0000, -1.5708]], dtype=torch.float64)
    """
    check_rboxes(boxes, "boxes")
    if form not in _RADIANS:
        raise FocaldetError(f"no form in radians is called {form!r}; give {', '.join(map(repr, _RADIANS))}")
    return rewrite(boxes, RADIANS, ANGLE_FORMS[form])


@takes_numpy
def rbox_to_polygon(boxes: Tensor) -> Tensor:
    """Return the corners (N, 8) of rboxes (N, 5): x1, y1, ..., x4, y4, clockwise on the screen.

    The first corner is behind and left of the centre, seen along theta: -w/2 along the w side, -h/2 along the h side;
    for theta = 0 the upper left. Then follow (+w/2, -h/2), (+w/2, +h/2) and (-w/2, +h/2). Computed in float64.

    >>> rbox_to_polygon(torch.tensor([[60.0, 40.0, 100.0, 50.0, 0.0]]))
    tensor([[ 10.,  15., 110.,  15., 110.,  65.,  10.,  65.]])
    """
    check_rboxes(boxes, "boxes")
    return _corners(boxes, boxes.dtype).flatten(-2)


@takes_numpy
def rbox_to_hbox(boxes: Tensor) -> Tensor:
    """Return the upright hulls (N, 4) of rboxes (N, 5). Computed in float64.

    >>> rbox_to_hbox(torch.tensor([[60.0, 40.0, 50.0, 20.0, torch.pi / 2]]))
    tensor([[50., 15., 70., 65.]])
    """
    check_rboxes(boxes, "boxes")
    return _hull(boxes, boxes.dtype)


@takes_numpy
def flip_rbox(boxes: Tensor, size: Size, horizontal: bool = False, vertical: bool = False) -> Tensor:
    """Mirror rboxes (N, 5) with a picture of (height, width) pixels: left to right, upside down, or both.

    theta is left as it falls: `regularize_rbox` brings it into a range.

    >>> flip_rbox(torch.tensor([[2.0, 1.0, 3.0, 1.0, 0.5]]), (10, 20), horizontal=True)
    tensor([[18.0000,  1.0000,  3.0000,  1.0000, -0.5000]])
    """
    x, y, w, h, theta = boxes.unbind(-1)
    x = size[1] - x if horizontal else x
    y = size[0] - y if vertical else y
    return torch.stack([x, y, w, h, theta if horizontal == vertical else -theta], dim=-1)


@takes_numpy
def scale_rbox(boxes: Tensor, factor: float) -> Tensor:
    """Scale rboxes (N, 5) with their picture, by one factor; two factors would make parallelograms of them."""
    return boxes * boxes.new_tensor([factor, factor, factor, factor, 1.0])


@takes_numpy
def visible_share(boxes: Tensor, size: Size) -> Tensor:
    """Return the share (N,), 0 to 1, of each rbox (N, 5) that lies in a picture of (height, width) pixels; exact.

    The share of a box without area is 0.

    >>> visible_share(torch.tensor([[0.0, 50.0, 20.0, 10.0, 0.3]]), (100, 100))
    tensor([0.5000])
    """
    from focaldet.geometry.rotated_iou import rotated_iou_aligned

    check_rboxes(boxes, "boxes")
    height, width = size
    picture = boxes.new_tensor([width / 2, height / 2, width, height, 0.0])
    return rotated_iou_aligned(boxes, picture.expand(len(boxes), 5), over="first")


def clip_visible(boxes: Tensor, size: Size, min_share: float) -> Tensor:
    """Say which rboxes (N, 5) a picture of (height, width) pixels keeps, (N,) bool: those it shows enough of.

    Boxes are kept whole or not at all, as a rectangle cut by the border of a picture is a rectangle no more.

    Args:
        boxes: (N, 5) rboxes in the frame of the picture.
        size: (height, width).
        min_share: share of a box's area from which on it is kept.
    """
    return visible_share(boxes, size) >= min_share


@takes_numpy
def points_in_rboxes(points: Tensor, boxes: Tensor) -> Tensor:
    """Say which points (P, 2) lie in which rboxes (N, 5), their border included: (P, N) bool. Computed in float64.

    >>> points_in_rboxes(torch.tensor([[12.0, 0.0], [0.0, 9.0]]), torch.tensor([[0.0, 0.0, 24.0, 10.0, 0.0]]))
    tensor([[ True],
            [False]])
    """
    check_numbers(points, "points", 2, "points (x, y)")
    check_rboxes(boxes, "boxes")
    check_together(points=points, boxes=boxes)
    wide = boxes.to(wide_type(boxes))
    cos, sin = direction(boxes[:, 4])
    across = points.to(wide.dtype)[:, None] - wide[:, :2]
    along_w = across[..., 0] * cos + across[..., 1] * sin
    along_h = across[..., 1] * cos - across[..., 0] * sin
    return (along_w.abs() <= wide[:, 2] / 2) & (along_h.abs() <= wide[:, 3] / 2)


def _from_angle_form(boxes: Tensor, form: AngleForm, target: str, dtype: torch.dtype) -> Tensor:
    if target in ANGLE_FORMS:
        return rewrite(boxes, form, ANGLE_FORMS[target], dtype)
    wide = rewrite(boxes, form, RADIANS, wide_type(boxes))
    return _corners(wide, dtype).flatten(-2) if target == "polygon" else _hull(wide, dtype)


def _from_polygon(polygons: Tensor, target: str) -> Tensor:
    check_numbers(polygons, "boxes", 8, "polygons (x1, y1, ..., x4, y4)")
    if target == "polygon":
        return polygons
    if target == "hbox":
        return corners_to_hbox(polygons.reshape(-1, 4, 2))
    return rewrite(least_area_rectangle(polygons), RADIANS, ANGLE_FORMS[target], polygons.dtype)


def _from_hbox(boxes: Tensor, target: str) -> Tensor:
    check_numbers(boxes, "boxes", 4, "hboxes (x1, y1, x2, y2)")
    if target == "hbox":
        return boxes
    if target == "polygon":
        return hbox_to_corners(boxes).flatten(-2)
    wide = boxes.to(wide_type(boxes))
    centres, sides = (wide[:, :2] + wide[:, 2:]) / 2, wide[:, 2:] - wide[:, :2]
    rboxes = torch.cat([centres, sides, torch.zeros_like(sides[:, :1])], dim=1)
    check_rboxes(rboxes, "boxes")
    return rewrite(rboxes, RADIANS, ANGLE_FORMS[target], boxes.dtype)


def _half_sides(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return centre, half w side and half h side of (N, 5) as vectors (N, 2), in float64."""
    cos, sin = direction(boxes[:, 4])
    wide = boxes.to(cos.dtype)
    half_w, half_h = wide[:, 2] / 2, wide[:, 3] / 2
    return wide[:, :2], torch.stack([half_w * cos, half_w * sin], 1), torch.stack([-half_h * sin, half_h * cos], 1)


def _corners(boxes: Tensor, dtype: torch.dtype) -> Tensor:
    centre, w, h = _half_sides(boxes)
    return torch.stack([centre - w - h, centre + w - h, centre + w + h, centre - w + h], dim=1).to(dtype)


def _hull(boxes: Tensor, dtype: torch.dtype) -> Tensor:
    centre, w, h = _half_sides(boxes)
    extent = w.abs() + h.abs()
    return torch.cat([centre - extent, centre + extent], dim=1).to(dtype)
