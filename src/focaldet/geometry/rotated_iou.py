"""Exact IoU of rboxes, pairwise and aligned: the public functions, and the formula in torch with its derivation.

**The formula.** Move box B into the frame of box A, where A is |x| <= a, |y| <= b. Write cl(x) for x clamped to
[-a, a] and cm(y) for y clamped to [-b, b]. By Green's theorem the area of A and B together is the boundary integral

    area = integral over the boundary of B of cm(y) d cl(x), from left to right above, from right to left below

because d cm(y) d cl(x) is the area element dx dy inside A and 0 outside. Mirroring y, which leaves A as it is, and
writing B in other words if need be, B is turned by 0 to 90 degrees. Then its corners are, from left to right, 0, then 1
(the highest y) and 2 (the lowest), then 3; the edges 0-1 and 2-3 rise with slope tan, the edges 1-3 and 0-2 fall with
slope -cot of that turn; and with E for the integral along one edge, from left to right,

    area = E(0, 1) + E(1, 3) - E(0, 2) - E(2, 3)

An edge from (x0, y0) to (x1, y1) moves cl(x) only where |x| <= a: from X0 = cl(x0) to X1 = cl(x1), over the width
X1 - X0. There its heights are Y0 = y0 + (X0 - x0) slope and Y1 = y1 + (X1 - x1) slope. With C = cm(Y),

    E = (X1 - X0) (C0 + C1) / 2  +  free ((Y0 + Y1) - (C0 + C1)) / 2,     free = (C1 - C0) / slope

The first term is the trapezoid as if C ran straight from C0 to C1. It does not where the edge leaves the strip
|y| <= b: the second term corrects that; `free` is the width over which the edge is inside both strips.

**Why it is exact.** Nothing is clipped to a polygon, sorted, or compared with a tolerance. Only the edges of one
polygon are walked, so edges that two boxes share are not counted twice, and the answer is a continuous function of the
boxes. No quotient blows up: `free` is clamped to [0, X1 - X0], where it belongs, and a steep slope multiplies a cut
that is no longer than the edge's own width, unless all of the edge is outside: then X1 = X0, whatever its heights.

**Gradients.** The denominators are guarded before the division, so that axis-parallel edges have finite and right
gradients; pairs outside each other's upright hull are zeros that never enter the graph. The IoU has kinks where edges
coincide, as |x| has one at 0; there, at two equal boxes for instance, the gradient is finite and one of those nearby.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.check import check_rboxes, check_together, numbers_are_known, takes_numpy
from focaldet.geometry.hbox import in_full_precision
from focaldet.geometry.kernels.choose import numba_fits, triton_fits

Over = Literal["union", "first"]

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of device that compute in float32 at most."""
PAIRS_AT_ONCE = {"cpu": (1 << 18, 1 << 13)}
"""How many pairs have their hulls compared at once, and how many are computed: on a CPU, as many as fit its cache."""
MANY_PAIRS_AT_ONCE = (1 << 24, 1 << 20)
"""The same on other devices."""


class RboxTable(NamedTuple):
    """What the formula needs of each rbox, computed once a box; all of one shape.

    Attributes:
        x: centre, in pixels.
        y: centre, in pixels.
        cos: of theta.
        sin: of theta.
        a: half the side w; 1 where that is 0, for it divides.
        b: half the side h; 1 where that is 0.
        area: w * h.
    """

    x: Tensor
    y: Tensor
    cos: Tensor
    sin: Tensor
    a: Tensor
    b: Tensor
    area: Tensor

    def take(self, index: Tensor) -> RboxTable:
        """Return the boxes at `index`."""
        return RboxTable(*(row.index_select(0, index) for row in self))

    def unsqueeze(self, dim: int) -> RboxTable:
        """Return the same with one more axis."""
        return RboxTable(*(row.unsqueeze(dim) for row in self))


@takes_numpy
def rotated_iou(boxes1: Tensor, boxes2: Tensor, over: Over = "union") -> Tensor:
    """Return the exact overlap of every rbox of one set with every rbox of another.

    Right to rounding for any pair: equal boxes in other words, shared edges, sides of 10^4:1. Differentiable. Computes
    in float64 whatever comes in (float32 by Triton and on devices without float64), by numba on a CPU and Triton on
    CUDA where they are installed and no gradient is asked for, else by torch.

    Args:
        boxes1: (N, 5) rboxes.
        boxes2: (M, 5) rboxes in the same frame, on the same device, of the same type.
        over: what the area of the intersection is divided by: the area of the union, or of the box of `boxes1`.

    Returns:
        (N, M) in [0, 1], in the type of the boxes. 0 where a divisor is 0, as for boxes without area.

    Raises:
        FocaldetError: wrong shapes or types, numbers that are not finite, negative sides.

    >>> turned = torch.tensor([[0.0, 0, 2, 2, torch.pi / 4], [9, 9, 2, 2, 0]])
    >>> rotated_iou(torch.tensor([[0.0, 0, 2, 2, 0]]), turned)
    tensor([[0.7071, 0.0000]])
    """
    _check(boxes1, boxes2, over)
    if numba_fits(boxes1, boxes2):
        from focaldet.geometry.kernels import iou

        return _by_numba(iou.pairwise_iou, boxes1, boxes2, over)
    if triton_fits(boxes1, boxes2):
        from focaldet.geometry.kernels import triton

        return _by_triton(triton.pairwise_iou, boxes1, boxes2, over)
    return rotated_iou_torch(boxes1, boxes2, over)


@takes_numpy
def rotated_iou_aligned(boxes1: Tensor, boxes2: Tensor, over: Over = "union") -> Tensor:
    """Return the exact overlap (N,) of each rbox (N, 5) with the one at the same place of the other set.

    Differentiable, so that 1 - IoU is a loss; apart from that as `rotated_iou`.

    >>> rotated_iou_aligned(torch.tensor([[0.0, 0, 4, 2, 0]]), torch.tensor([[0.0, 0, 2, 4, torch.pi / 2]]))
    tensor([1.0000])
    """
    _check(boxes1, boxes2, over)
    if boxes1.shape != boxes2.shape:  # len() would make it a constant of an exported graph
        raise FocaldetError(f"boxes1 has {len(boxes1)} boxes and boxes2 {len(boxes2)}; aligned sets have equally many")
    if numba_fits(boxes1, boxes2):
        from focaldet.geometry.kernels import iou

        return _by_numba(iou.aligned_iou, boxes1, boxes2, over)
    if triton_fits(boxes1, boxes2):
        from focaldet.geometry.kernels import triton

        return _by_triton(triton.aligned_iou, boxes1, boxes2, over)
    return rotated_iou_aligned_torch(boxes1, boxes2, over)


def rotated_iou_torch(boxes1: Tensor, boxes2: Tensor, over: Over = "union") -> Tensor:
    """Return what `rotated_iou` does, by torch alone: on any device, with gradients, in exported graphs.

    Pairs whose upright hulls overlap are listed, then computed element by element; a graph that is being traced
    computes all pairs, for it knows no lists of unknown length.
    """
    first, second = rbox_table(boxes1), rbox_table(boxes2)
    if not numbers_are_known(boxes1):
        rows, columns = first.unsqueeze(1), second.unsqueeze(0)
        near = _hulls_meet(hull_bounds(rows), hull_bounds(columns))
        return torch.where(near, _overlap(rows, columns, over), 0.0).to(boxes1.dtype)
    columns_ = len(boxes2)
    answer = boxes1.new_zeros(len(boxes1) * columns_)
    near_pairs = _near_pairs(hull_bounds(first), hull_bounds(second))
    if torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad):
        near_pairs = iter([torch.cat([answer.new_zeros(0, dtype=torch.int64), *near_pairs])])  # one graph
    for index in near_pairs:
        i = index // columns_
        ratio = _overlap(first.take(i), second.take(index - i * columns_), over)
        answer.scatter_(0, index, ratio.to(answer.dtype))
    return answer.view(len(boxes1), columns_)


def rotated_iou_aligned_torch(boxes1: Tensor, boxes2: Tensor, over: Over = "union") -> Tensor:
    """Return what `rotated_iou_aligned` does, by torch alone: on any device, with gradients, in exported graphs."""
    first, second = rbox_table(boxes1), rbox_table(boxes2)
    near = _hulls_meet(hull_bounds(first), hull_bounds(second))
    if not numbers_are_known(boxes1):
        return torch.where(near, _overlap(first, second, over), 0.0).to(boxes1.dtype)
    index = _places(near)
    ratio = _overlap(first.take(index), second.take(index), over)
    return boxes1.new_zeros(len(boxes1)).index_put((index,), ratio.to(boxes1.dtype))


def rbox_table(boxes: Tensor) -> RboxTable:
    """Compute, of rboxes (..., 5), what the formula needs once a box: in float64 where the device has it."""
    boxes = boxes.float() if boxes.device.type in WITHOUT_FLOAT64 else boxes.double()
    x, y, w, h, theta = boxes.unbind(-1)
    a, b = (torch.where(side > 0, 0.5 * side, 1.0) for side in (w, h))
    return RboxTable(x, y, theta.cos(), theta.sin(), a, b, w * h)


def hull_bounds(boxes: RboxTable) -> Tensor:
    """Return (2, 4, ...): the ends of the boxes' shadows on the directions x, y, x + y and y - x.

    The first two are the upright hull; the others cut off its corners, which a turned box leaves empty. In float32,
    rounded outwards, without gradient.
    """
    x, y, cos, sin, a, b, _ = (row.detach() for row in boxes)
    center = torch.stack([x, y, x + y, y - x])
    along, across = (cos + sin).abs(), (cos - sin).abs()
    cos, sin = cos.abs(), sin.abs()
    half = torch.stack([a * cos + b * sin, a * sin + b * cos, a * along + b * across, a * across + b * along])
    half = half + 1e-6 * (center.abs() + half) + 1e-37  # more than float32 rounds, and where it knows only 0
    # What lies beyond 3e38, where float32 has only infinity, counts as if it began there.
    bounds: Tensor = torch.stack([(center - half).clamp(max=3e38), (center + half).clamp(min=-3e38)])
    return bounds.float()


def _hulls_meet(bounds1: Tensor, bounds2: Tensor) -> Tensor:
    """Whether all shadows overlap: by the widest gap, since torch subtracts ten times as fast as it compares."""
    ends = zip(*bounds1, *bounds2, strict=True)
    gaps = [torch.maximum(low1 - high2, low2 - high1) for low1, high1, low2, high2 in ends]
    return functools.reduce(torch.maximum, gaps) < 0


def _near_pairs(bounds1: Tensor, bounds2: Tensor) -> Iterator[Tensor]:
    """List the pairs whose shadows overlap, each as row * M + column, in portions."""
    columns = bounds2.shape[-1]
    compared, portion = PAIRS_AT_ONCE.get(bounds1.device.type, MANY_PAIRS_AT_ONCE)
    rows = max(1, compared // max(1, columns))
    for start in range(0, bounds1.shape[-1], rows):
        near = _hulls_meet(bounds1[..., start : start + rows, None], bounds2[..., None, :])
        yield from torch.split(_places(near.flatten()).add_(start * columns), portion)


def _places(mask: Tensor) -> Tensor:
    """Return the indices at which a mask (N,) is true; on a CPU by numpy, which is eight times as fast."""
    return torch.from_numpy(np.flatnonzero(mask.numpy())) if mask.device.type == "cpu" else mask.nonzero().squeeze(1)


def _overlap(first: RboxTable, second: RboxTable, over: Over) -> Tensor:
    """Return intersection over union, or over the first area; 0 where that is no area."""
    inter = _intersection(first, second)
    whole = first.area if over == "first" else first.area + second.area - inter
    some = whole > _smallest(whole) ** 3
    return torch.where(some, inter / torch.where(some, whole, 1.0), 0.0).clamp(max=1)


def _intersection(first: RboxTable, second: RboxTable) -> Tensor:
    """Return the area of the intersection of boxes B, `second`, with boxes A, `first`; in the names of the formula."""
    dx, dy = second.x - first.x, second.y - first.y  # first of all: far from the origin the rest would lose digits
    cos = torch.addcmul(first.cos * second.cos, first.sin, second.sin)
    sin = torch.addcmul(first.cos * second.sin, first.sin, second.cos, value=-1)
    x, y = torch.addcmul(first.cos * dx, first.sin, dy), torch.addcmul(first.cos * dy, first.sin, dx, value=-1)
    sign_cos, sign_sin = _sign(cos), _sign(sin)
    y, cos, sin = y * (sign_cos * sign_sin), cos * sign_cos, sin * sign_sin  # abs() has no gradient at 0
    return _mirrored_intersection(x, y, cos, sin, first, second)


def _mirrored_intersection(
    x: Tensor, y: Tensor, cos: Tensor, sin: Tensor, first: RboxTable, second: RboxTable
) -> Tensor:
    """Return the same for the center, cosine and sine of B in the frame of A, where B is turned by 0 to 90 degrees."""
    tan, cot = sin / cos.clamp(min=_smallest(cos)), cos / sin.clamp(min=_smallest(sin))
    run_w, rise_w, run_h, rise_h = second.a * cos, second.a * sin, second.b * sin, second.b * cos
    rising, falling = _Direction(run_w, rise_w, tan, cot), _Direction(run_h, -rise_h, -cot, -tan)
    back, front, lower, upper = x - run_w, x + run_w, y - rise_w, y + rise_w
    upright, strip = (-first.a, first.a), (-first.b, first.b)
    corners = (
        _cut(back - run_h, lower + rise_h, upright),
        _cut(front - run_h, upper + rise_h, upright),
        _cut(back + run_h, lower - rise_h, upright),
        _cut(front + run_h, upper - rise_h, upright),
    )
    twice = _edge(corners[0], corners[1], rising, strip) + _edge(corners[1], corners[3], falling, strip)
    twice = twice - _edge(corners[0], corners[2], falling, strip) - _edge(corners[2], corners[3], rising, strip)
    return torch.minimum(0.5 * twice, torch.minimum(first.area, second.area)).relu()


class _Corner(NamedTuple):
    """A corner of B: its y, its x clamped to A, and by how much that moved it."""

    y: Tensor
    inside: Tensor
    cut: Tensor


class _Direction(NamedTuple):
    """Of two parallel edges: half their run and rise, and the guarded quotients of the two."""

    run: Tensor
    rise: Tensor
    slope: Tensor
    inverse_slope: Tensor


def _cut(x: Tensor, y: Tensor, upright: tuple[Tensor, Tensor]) -> _Corner:
    inside = x.clamp(*upright)
    return _Corner(y, inside, inside - x)


def _edge(left: _Corner, right: _Corner, direction: _Direction, strip: tuple[Tensor, Tensor]) -> Tensor:
    """Return twice the integral E along one edge."""
    y0 = torch.addcmul(left.y, left.cut, direction.slope)
    y1 = torch.addcmul(right.y, right.cut, direction.slope)
    inner0, inner1 = y0.clamp(*strip), y1.clamp(*strip)
    both, width = inner0 + inner1, right.inside - left.inside
    free = _free(inner1 - inner0, width, left, right, direction)
    return torch.addcmul(width * both, free, y0 + y1 - both)


def _free(climb: Tensor, width: Tensor, left: _Corner, right: _Corner, direction: _Direction) -> Tensor:
    """Return the width over which an edge is inside both strips, where it climbs by `climb`.

    A gradient needs it as a share of the edge: that of a vertical edge is well known where the width is lost in
    rounding, and it is the share, not the width, by which turning the edge moves area.
    """
    if not climb.requires_grad:
        return torch.minimum(climb * direction.inverse_slope, width).relu()
    run, rise = (2 * _away_from_0(half) for half in direction[:2])
    within = 1 - (left.cut.relu() + (-right.cut).relu()) / run
    return 2 * direction.run * torch.minimum(climb / rise, within).relu()


def _away_from_0(value: Tensor) -> Tensor:
    """Return `value`, or what is next to nothing in place of less: fit to divide by, also in a gradient."""
    return torch.where(value.abs() > _smallest(value), value, _smallest(value))


def _sign(value: Tensor) -> Tensor:
    """Return 1 or -1, and 1 for what is next to nothing."""
    return (value.detach() + _smallest(value)).sign()


def _smallest(value: Tensor) -> float:
    return float(torch.finfo(value.dtype).tiny ** 0.25)  # its inverse squared is far from overflow


def _by_triton(
    function: Callable[[Tensor, Tensor, bool], Tensor], boxes1: Tensor, boxes2: Tensor, over: Over
) -> Tensor:
    return function(boxes1.float(), boxes2.float(), over == "first").to(boxes1.dtype)


def _by_numba(function: Callable[[Any, Any, bool], Any], boxes1: Tensor, boxes2: Tensor, over: Over) -> Tensor:
    first, second = (in_full_precision(boxes.detach()).numpy() for boxes in (boxes1, boxes2))
    answer: Tensor = torch.from_numpy(function(first, second, over == "first"))
    return answer.to(boxes1.dtype)


def _check(boxes1: Tensor, boxes2: Tensor, over: Over) -> None:
    check_rboxes(boxes1, "boxes1")
    check_rboxes(boxes2, "boxes2")
    check_together(boxes1=boxes1, boxes2=boxes2)
    if over not in ("union", "first"):
        raise FocaldetError(f"over is {over!r}; give 'union' or 'first'")
