"""Exact IoU of rboxes, pairwise and aligned: the public functions, and the formula in torch with its derivation.

**The formula.** Move box B into the frame of box A, where A is |x| <= a, |y| <= b. Write cl(x) for x clamped to
[-a, a] and cm(y) for y clamped to [-b, b]. By Green's theorem the area of A and B together is the boundary integral

    area = - integral over the boundary of B of cm(y) d cl(x)

because d cm(y) d cl(x) is the area element dx dy inside A and 0 outside. The boundary is four straight edges. An edge
from (x0, y0) to (x1, y1), with run = x1 - x0 and rise = y1 - y0, moves cl(x) only where |x| <= a: from X0 = cl(x0) to
X1 = cl(x1), after the share `head` = (X0 - x0) / run of its length and before the last share `tail` = (x1 - X1) / run.
At these places its y is Y0 = y0 + head * rise and Y1 = y1 - tail * rise. With C = cm(Y) its part of the integral is

    (X0 - X1) (C0 + C1) / 2  -  run * free * ((Y0 + Y1) - (C0 + C1)) / 2,     free = (C1 - C0) / rise

The first term is the trapezoid as if C ran straight from C0 to C1. It does not where the edge leaves the strip
|y| <= b: the second term corrects that; `free`, the share of the edge that lies inside both strips, is in [0, 1].

**Why it is exact.** Nothing is clipped to a polygon, sorted, or compared with a tolerance. Only the edges of one
polygon are walked, so edges that two boxes share are not counted twice, and the answer is a continuous function of the
boxes. No quotient blows up: head, tail and free are shares of an edge, and where run or rise vanishes, they multiply
it.

**Gradients.** The denominators are guarded before the division, so that axis-parallel edges have finite and right
gradients; pairs outside each other's upright hull are zeros that never enter the graph. The IoU has kinks where edges
coincide, as |x| has one at 0; there, at two equal boxes for instance, the gradient is finite and one of those nearby.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.check import check_rboxes, check_together, numbers_are_known, takes_numpy
from focaldet.geometry.hbox import in_full_precision
from focaldet.geometry.kernels.choose import numba_fits, triton_fits

Over = Literal["union", "first"]

WITHOUT_FLOAT64 = ("mps",)
"""Kinds of device that compute in float32 at most."""
PAIRS_PER_MASK = 1 << 20
"""So many pairs have their hulls compared at once, which bounds the memory."""
PAIRS_AT_ONCE = 1 << 14
"""So many pairs are computed at once on a CPU: their numbers fit its cache."""


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
        return RboxTable(*(row[index] for row in self))

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
    tensor([1.])
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
    answer, columns_ = boxes1.new_zeros(len(boxes1) * len(boxes2)), len(boxes2)
    near_pairs = _near_pairs(hull_bounds(first), hull_bounds(second))
    if torch.is_grad_enabled() and (boxes1.requires_grad or boxes2.requires_grad):
        index = torch.cat([answer.new_zeros(0, dtype=torch.int64), *near_pairs])
        ratio = _overlap(first.take(index // columns_), second.take(index % columns_), over)
        answer = answer.index_put((index,), ratio.to(answer.dtype))
    else:
        for index in near_pairs:
            ratio = _overlap(first.take(index // columns_), second.take(index % columns_), over)
            answer[index] = ratio.to(answer.dtype)
    return answer.view(len(boxes1), len(boxes2))


def rotated_iou_aligned_torch(boxes1: Tensor, boxes2: Tensor, over: Over = "union") -> Tensor:
    """Return what `rotated_iou_aligned` does, by torch alone: on any device, with gradients, in exported graphs."""
    first, second = rbox_table(boxes1), rbox_table(boxes2)
    near = _hulls_meet(hull_bounds(first), hull_bounds(second))
    if not numbers_are_known(boxes1):
        return torch.where(near, _overlap(first, second, over), 0.0).to(boxes1.dtype)
    index = near.nonzero().squeeze(1)
    ratio = _overlap(first.take(index), second.take(index), over)
    return boxes1.new_zeros(len(boxes1)).index_put((index,), ratio.to(boxes1.dtype))


def rbox_table(boxes: Tensor) -> RboxTable:
    """Compute, of rboxes (..., 5), what the formula needs once a box: in float64 where the device has it."""
    boxes = boxes.float() if boxes.device.type in WITHOUT_FLOAT64 else boxes.double()
    x, y, w, h, theta = boxes.unbind(-1)
    a, b = (torch.where(side > 0, 0.5 * side, 1.0) for side in (w, h))
    return RboxTable(x, y, theta.cos(), theta.sin(), a, b, w * h)


def hull_bounds(boxes: RboxTable) -> Tensor:
    """Return left, top, right and bottom (4, ...) of the upright hulls: float32, rounded outwards, without gradient."""
    x, y, cos, sin, a, b, _ = (row.detach() for row in boxes)
    half = torch.stack([a * cos.abs() + b * sin.abs(), a * sin.abs() + b * cos.abs()])
    centre = torch.stack([x, y])
    half = half + 1e-6 * (centre.abs() + half) + 1e-37  # more than float32 rounds, and where it knows only 0
    bounds: Tensor = torch.cat([centre - half, centre + half])
    return bounds.float()


def _hulls_meet(bounds1: Tensor, bounds2: Tensor) -> Tensor:
    (left1, top1, right1, bottom1), (left2, top2, right2, bottom2) = bounds1, bounds2
    meet: Tensor = (left1 < right2) & (left2 < right1) & (top1 < bottom2) & (top2 < bottom1)
    return meet


def _near_pairs(bounds1: Tensor, bounds2: Tensor) -> Iterator[Tensor]:
    """List the pairs whose hulls overlap, each as row * M + column, in portions."""
    columns = bounds2.shape[1]
    rows = max(1, PAIRS_PER_MASK // max(1, columns))
    portion = PAIRS_AT_ONCE if bounds1.device.type == "cpu" else PAIRS_PER_MASK
    for start in range(0, bounds1.shape[1], rows):
        near = _hulls_meet(bounds1[:, start : start + rows, None], bounds2[:, None])
        index = near.flatten().nonzero().squeeze(1).add_(start * columns)
        yield from torch.split(index, portion)


def _overlap(first: RboxTable, second: RboxTable, over: Over) -> Tensor:
    """Return intersection over union, or over the first area; 0 where that is no area."""
    inter = _intersection(first, second)
    whole = first.area if over == "first" else first.area + second.area - inter
    some = whole > _smallest(whole) ** 3
    return torch.where(some, inter / torch.where(some, whole, 1.0), 0.0).clamp(max=1)


def _intersection(first: RboxTable, second: RboxTable) -> Tensor:
    """Return the area of the intersection of boxes B, `second`, with boxes A, `first`.

    In A's frame with its half sizes as units, so that A is |x| <= 1, |y| <= 1.
    """
    dx, dy = second.x - first.x, second.y - first.y  # first of all: far from the origin the rest would lose digits
    cos = first.cos * second.cos + first.sin * second.sin
    sin = first.cos * second.sin - first.sin * second.cos
    x, y = (first.cos * dx + first.sin * dy) / first.a, (first.cos * dy - first.sin * dx) / first.b
    ux, uy = second.a * cos / first.a, second.a * sin / first.b  # half the w side of B
    vx, vy = -second.b * sin / first.a, second.b * cos / first.b  # half its h side
    lower, upper = (x - vx, y - vy), (x + vx, y + vy)
    x0, y0, x1, y1 = lower[0] - ux, lower[1] - uy, lower[0] + ux, lower[1] + uy
    x3, y3, x2, y2 = upper[0] - ux, upper[1] - uy, upper[0] + ux, upper[1] + uy
    along_w, along_h = _direction(2 * ux, 2 * uy), _direction(2 * vx, 2 * vy)
    twice = _edge(x0, y0, x1, y1, *along_w) + _edge(x1, y1, x2, y2, *along_h)
    twice = twice - _edge(x3, y3, x2, y2, *along_w) - _edge(x0, y0, x3, y3, *along_h)  # these against the sense
    inter = 0.125 * first.area * twice  # the unit is the fourth part of A
    return torch.minimum(inter, torch.minimum(first.area, second.area)).relu()


def _edge(
    x0: Tensor, y0: Tensor, x1: Tensor, y1: Tensor, run: Tensor, rise: Tensor, inverse_run: Tensor, inverse_rise: Tensor
) -> Tensor:
    """Return twice the part that one edge has in the boundary integral, in the names of the formula above."""
    left, right = x0.clamp(-1, 1), x1.clamp(-1, 1)
    head, tail = ((left - x0) * inverse_run).relu(), ((x1 - right) * inverse_run).relu()  # relu: no gradient at 0
    low, high = torch.addcmul(y0, head, rise), torch.addcmul(y1, tail, rise, value=-1)
    inner_low, inner_high = low.clamp(-1, 1), high.clamp(-1, 1)
    both, within = inner_low + inner_high, 1 - head - tail  # within <= 0: all of the edge is outside, and left = right
    free = torch.minimum((inner_high - inner_low) * inverse_rise, within).relu()
    return (left - right) * both - free * run * (low + high - both)


def _direction(run: Tensor, rise: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return run, rise, _inverse(run), _inverse(rise)


def _inverse(value: Tensor) -> Tensor:
    """Return 1 / value, with what is next to nothing replaced first: finite, and so is its gradient."""
    return torch.where(value.abs() > _smallest(value), value, _smallest(value)).reciprocal()


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
