"""Polygons of four corners, (N, 8): x1, y1, ..., x4, y4 as annotated, in continuous pixels, in any order or shape.

The rectangles that stand for them, their area and order, and which of them are no objects at all.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.geometry.angles import ANGLE_FORMS, RADIANS, rewrite, wide_type
from focaldet.geometry.check import check_numbers, takes_numpy
from focaldet.geometry.kernels.choose import numba_fits
from focaldet.geometry.quads import cross_themselves, quad_areas

_FROM, _TO = (0, 1, 2, 3, 0, 1), (1, 2, 3, 0, 2, 3)
"""The six lines through two corners: the sides in order, then the diagonals."""
_LINES = tuple(range(6))
_ROUNDING = 1e-14
"""Areas closer than this share of the squared diameter are equal: float64's rounding of what is subtracted."""
_SAME_ANGLE = 1e-9
MANY = 1000
"""Polygons from which on the compiled text pays for being loaded."""


@takes_numpy
def polygon_to_rbox(polygons: Tensor) -> Tensor:
    """Return the least-area rectangles around quadrilaterals, whether convex, dented, crossing themselves or flat.

    Rotating calipers (Freeman and Shapira 1975): a side of the least rectangle lies along a side of the convex hull,
    and so along the line of two corners. Of four corners there are six such lines; every one of them gives a
    rectangle that encloses the corners, so the least of the six is the least of all, and no hull is needed. Of
    rectangles with equal area, the one turned least from the picture's axes is taken, and of two turned equally the
    counter-clockwise one: the answer does not depend on where the corners start or which way round they go.

    Args:
        polygons: (N, 8).

    Returns:
        (N, 5) rboxes in the form "le90", with the dtype of `polygons`, computed in float64; differentiable as long as
        the same two corners stay chosen. Corners on a line give h = 0, corners in one place w = h = theta = 0.

    >>> polygon_to_rbox(torch.tensor([[10.0, 15.0, 110.0, 15.0, 110.0, 65.0, 10.0, 65.0]]))
    tensor([[ 60.,  40., 100.,  50.,   0.]])
    """
    check_polygon_numbers(polygons, "polygons")
    return rewrite(least_area_rectangle(polygons), RADIANS, ANGLE_FORMS["le90"], polygons.dtype)


@takes_numpy
def polygon_to_rbox_by_sides(polygons: Tensor) -> Tensor:
    """Return the rectangles that mmrotate trains its le135 models on, which need not enclose the polygons.

    Centre: the middle of the first diagonal; sides: the lengths of the first and second side; direction: that of the
    longer of the two, of equal ones the fourth side. The same as `polygon_to_rbox` for rectangles only.

    Args:
        polygons: (N, 8), corners in order.

    Returns:
        (N, 5) rboxes in the form "le90", with the dtype of `polygons`.
    """
    check_polygon_numbers(polygons, "polygons")
    corners = polygons.to(wide_type(polygons)).reshape(-1, 4, 2)
    centre = (corners[:, 0] + corners[:, 2]) / 2
    first, second, fourth = (corners[:, i] - corners[:, j] for i, j in ((1, 0), (2, 1), (3, 0)))
    w, h = torch.linalg.vector_norm(first, dim=1), torch.linalg.vector_norm(second, dim=1)
    along = torch.where((w > h)[:, None], first, fourth)
    theta = torch.atan2(along[:, 1], along[:, 0])
    boxes = torch.stack([centre[:, 0], centre[:, 1], torch.maximum(w, h), torch.minimum(w, h), theta], dim=1)
    return rewrite(boxes, RADIANS, ANGLE_FORMS["le90"], polygons.dtype)


@takes_numpy
def polygon_to_rbox_truncated(polygons: Tensor) -> Tensor:
    """Return the rectangles (N, 5), in the form "le90", that the original program fits to polygons (N, 8).

    Quirks: it truncates the corners to whole pixels before it looks for the least-area rectangle (`backward_convert`),
    which moves boxes by up to a pixel. Between whole pixels several rectangles often have the same least area; then it
    takes the one that OpenCV's rotating calipers meet last, by areas in float32.
    """
    check_polygon_numbers(polygons, "polygons")
    return rewrite(_truncated_rectangle(polygons), RADIANS, ANGLE_FORMS["le90"], polygons.dtype)


@takes_numpy
def polygon_to_tf90_truncated(polygons: Tensor) -> Tensor:
    """Return what `polygon_to_rbox_truncated` does, in the form "tf90".

    >>> polygon_to_tf90_truncated(torch.tensor([[10.9, 20.2, 50.0, 20.7, 50.9, 35.1, 10.0, 35.9]]))
    tensor([[ 30.0000,  27.5000,  15.0000,  40.0000, -90.0000]])
    """
    check_polygon_numbers(polygons, "polygons")
    return rewrite(_truncated_rectangle(polygons), RADIANS, ANGLE_FORMS["tf90"], polygons.dtype)


@takes_numpy
def polygon_area(polygons: Tensor) -> Tensor:
    """Return the signed area (N,) of polygons (N, 8): positive where the corners run clockwise on the screen.

    Parts that the corners of a polygon which crosses itself run round in opposite directions cancel.

    >>> polygon_area(torch.tensor([[0.0, 0.0, 4.0, 0.0, 4.0, 2.0, 0.0, 2.0]]))
    tensor([8.])
    """
    check_polygon_numbers(polygons, "polygons")
    return _signed_area(polygons.to(wide_type(polygons)).reshape(-1, 4, 2)).to(polygons.dtype)


@takes_numpy
def order_corners(polygons: Tensor) -> Tensor:
    """Return the same polygons (N, 8), clockwise on the screen, from the upper left corner on.

    The upper left corner is that with the least x + y, of equal ones the highest. The corners keep their neighbours:
    a polygon that crosses itself still does.

    >>> order_corners(torch.tensor([[4.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 2.0]]))
    tensor([[0., 0., 4., 0., 4., 2., 0., 2.]])
    """
    check_polygon_numbers(polygons, "polygons")
    corners = polygons.reshape(-1, 4, 2)
    turned = _signed_area(corners.to(wide_type(polygons))) < 0
    corners = torch.where(turned[:, None, None], corners.flip(1), corners)
    sums = corners.sum(dim=2)
    least = sums == sums.amin(dim=1, keepdim=True)
    start = torch.where(least, corners[..., 1], math.inf).argmin(dim=1)
    order = (start[:, None] + torch.arange(4, device=polygons.device)) % 4
    ordered: Tensor = corners.gather(1, order[..., None].expand(-1, -1, 2))
    return ordered.flatten(-2)


def check_polygons(polygons: Tensor | npt.NDArray[np.floating[Any]]) -> dict[int, str]:
    """Say which polygons (N, 8) are no objects, and why, for readers to report and leave out.

    Returns:
        By row, rising: "crosses itself" or "has no area", where sides that only touch do not cross, and an area that
        is nothing but rounding is none.

    >>> check_polygons(torch.tensor([[0.0, 0, 4, 0, 4, 2, 0, 2], [0, 0, 4, 0, 0, 2, 4, 2], [0, 0, 1, 1, 2, 2, 3, 3]]))
    {1: 'crosses itself', 2: 'has no area'}
    """
    if isinstance(polygons, np.ndarray):
        polygons = torch.from_numpy(np.ascontiguousarray(polygons))
    check_polygon_numbers(polygons, "polygons")
    quads = polygons.detach().cpu().double().reshape(-1, 4, 2).numpy()
    crossing = cross_themselves(quads)
    flat = ~crossing & (quad_areas(quads) == 0)
    return {int(row): "crosses itself" if crossing[row] else "has no area" for row in np.flatnonzero(crossing | flat)}


def check_polygon_numbers(polygons: Tensor, name: str) -> None:
    """Raise FocaldetError unless `polygons` are (N, 8) finite floating-point numbers."""
    check_numbers(polygons, name, 8, "polygons (x1, y1, ..., x4, y4)")


def least_area_rectangle(polygons: Tensor) -> Tensor:
    """Return the least-area rectangles (N, 5) in float64, theta as it falls; see `polygon_to_rbox`."""
    corners = polygons.to(wide_type(polygons)).reshape(-1, 4, 2)
    start = corners[:, :1].detach()
    corners = corners - start  # so that far from the origin no digits are lost
    return _rectangle_along(corners, _least_line(corners.detach()), start)


def _truncated_rectangle(polygons: Tensor) -> Tensor:
    """Return the rectangles (N, 5) of `polygon_to_rbox_truncated` in float64, theta as it falls."""
    corners = polygons.to(wide_type(polygons)).trunc().reshape(-1, 4, 2)
    start = corners[:, :1].detach()
    corners = corners - start
    return _rectangle_along(corners, _last_least_side(corners.detach()), start)


def _rectangle_along(corners: Tensor, line: Tensor, start: Tensor) -> Tensor:
    """Return the rectangles (N, 5) around corners (N, 4, 2), along lines (N, 2) of two of them, moved by `start`."""
    ends = corners.gather(1, line[..., None].expand(-1, -1, 2))
    along = _unit(ends[:, 1] - ends[:, 0])[:, None]
    low, high = _extents(corners, along)
    sides, middle = (high - low)[:, 0], ((high + low) / 2)[:, 0]
    cos, sin = along[:, 0].unbind(-1)
    centre = torch.stack([middle[:, 0] * cos - middle[:, 1] * sin, middle[:, 0] * sin + middle[:, 1] * cos], dim=1)
    return torch.cat([centre + start[:, 0], sides, torch.atan2(sin, cos)[:, None]], dim=1)


def _last_least_side(corners: Tensor) -> Tensor:
    """Return which two of whole-numbered corners (N, 4, 2) the calipers choose, as numbers (N, 2)."""
    if len(corners) >= MANY and numba_fits(corners):
        from focaldet.geometry.kernels.rectangles import last_least_lines

        return _ends_of(torch.from_numpy(last_least_lines(corners.numpy())))
    return _ends_of(_last_least_torch(corners))


def _last_least_torch(corners: Tensor) -> Tensor:
    """Return the line (N,) of the last of the least rectangles.

    The calipers start level and turn counter-clockwise on the screen over a quarter turn, from side to side of the
    convex hull. Every product of whole numbers is exact here; only the areas are rounded as they are there.
    """
    sides = corners[:, _TO] - corners[:, _FROM]
    normals = torch.stack([-sides[..., 1], sides[..., 0]], dim=-1)
    along, across = (axis @ corners.transpose(1, 2) for axis in (sides, normals))  # (N, 6, 4)
    on_hull = ~((across < across[:, _LINES, _FROM, None]).any(2) & (across > across[:, _LINES, _FROM, None]).any(2))
    lengths = torch.linalg.vector_norm(sides, dim=2, keepdim=True)
    unit = sides.float() * (1 / lengths).float()
    turned = torch.stack([-unit[..., 1], unit[..., 0]], dim=-1)
    area = _span(corners, along, unit) * _span(corners, across, turned)
    area = torch.where(on_hull & (lengths[..., 0] > 0), area, math.inf)
    x, y = sides.abs().unbind(-1)
    falls = (sides.prod(dim=2) > 0) | (x == 0)  # to the right on the screen: the calipers come to it by its normal
    turn = torch.where(falls, torch.atan2(x, y), torch.atan2(y, x))
    return torch.where(area == area.amin(dim=1, keepdim=True), turn, -1.0).argmax(dim=1)


def _span(corners: Tensor, places: Tensor, axis: Tensor) -> Tensor:
    """Return how far corners (N, 4, 2) reach along unit axes (N, 6, 2), in float32; `places` (N, 6, 4) orders them."""
    ends = [choice.unsqueeze(-1).expand(-1, -1, 2) for choice in (places.argmax(dim=2), places.argmin(dim=2))]
    high, low = (corners.gather(1, end) for end in ends)
    difference = (high - low).float()
    return difference[..., 0] * axis[..., 0] + difference[..., 1] * axis[..., 1]


def _ends_of(line: Tensor) -> Tensor:
    """Return the numbers (N, 2) of the corners that lines (N,) go through."""
    ends: Tensor = torch.tensor([_FROM, _TO], device=line.device).T[line]
    return ends


def _least_line(corners: Tensor) -> Tensor:
    """Return, of (N, 4, 2) corners, the numbers (N, 2) of the two along whose line the least rectangle lies."""
    if len(corners) >= MANY and numba_fits(corners):
        from focaldet.geometry.kernels.rectangles import least_lines

        return _ends_of(torch.from_numpy(least_lines(corners.numpy(), _ROUNDING, _SAME_ANGLE)))
    return _ends_of(_least_line_torch(corners))


def _least_line_torch(corners: Tensor) -> Tensor:
    """Return the line (N,) of the least rectangle, of several that which is turned least from the axes."""
    difference = corners[:, _TO] - corners[:, _FROM]
    squared = difference.square().sum(dim=2)
    along = _unit(difference)
    low, high = _extents(corners, along)
    area = torch.where(squared > 0, (high - low).prod(dim=2), math.inf)
    slack = _ROUNDING * squared.amax(dim=1)
    least = area <= (area.amin(dim=1) + slack)[:, None]
    return torch.where(least, _turn_from_axes(along), math.inf).argmin(dim=1)


def _unit(vectors: Tensor) -> Tensor:
    """Return vectors (..., 2) with length 1; (1, 0) where they have none."""
    nothing = (vectors == 0).all(dim=-1, keepdim=True)
    vectors = torch.where(nothing, vectors.new_tensor([1.0, 0.0]), vectors)
    unit: Tensor = vectors / torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
    return unit


def _extents(corners: Tensor, along: Tensor) -> tuple[Tensor, Tensor]:
    """Return the least and largest coordinate (N, K, 2), along and across, of corners (N, 4, 2) on K axes (N, K, 2)."""
    x, y = corners[:, None, :, 0], corners[:, None, :, 1]
    cos, sin = along[..., :1], along[..., 1:]
    coordinates = torch.stack([x * cos + y * sin, y * cos - x * sin], dim=-1)
    return coordinates.amin(dim=2), coordinates.amax(dim=2)


def _turn_from_axes(along: Tensor) -> Tensor:
    """Return how far rectangles along unit vectors are turned from the axes, a little less where counter-clockwise."""
    theta = torch.atan2(along[..., 1], along[..., 0])
    turn = theta - (theta / (math.pi / 2)).round() * (math.pi / 2)
    return turn.abs() + _SAME_ANGLE * (turn > 0)


def _signed_area(corners: Tensor) -> Tensor:
    one, other = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    return (one[:, 0] * other[:, 1] - one[:, 1] * other[:, 0]) / 2
