"""The ways in which programs write the angle of a rotated box, as one table, and the step from one to another.

Whatever the form, a box is centre, two sides and an angle; forms differ in the unit and sense of the angle, in its
range, and in which side comes first. Angles are counted here in eighths of a turn (45 degrees), because every range
of the table ends at a whole number of them and whole numbers do not round.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AngleForm:
    """How one program writes the angle of a box.

    Attributes:
        eighth: an eighth of a clockwise turn, in the form's own numbers.
        low: lower end of the range of theta, in eighths; None: theta is free and the sides are not touched.
        long_first: whether w >= h, with a range of half a turn; else the range is a quarter turn, which decides what
            side is w.
        square_low: lower end of the quarter turn that equal sides keep to, where `long_first`.
        high_included: whether the range is (low, high] and not [low, high).
        shift: eighths from theta to the direction of the w side.
    """

    eighth: float
    low: int | None
    long_first: bool = False
    square_low: int = -1
    high_included: bool = False
    shift: int = 0


ANGLE_FORMS = {
    "le90": AngleForm(math.pi / 4, low=-2, long_first=True),
    "le135": AngleForm(math.pi / 4, low=-1, long_first=True),
    "oc": AngleForm(math.pi / 4, low=0, high_included=True),
    "oc-negative": AngleForm(math.pi / 4, low=-2),
    "degrees-ccw": AngleForm(-45.0, low=None),
    "tf90": AngleForm(45.0, low=-2),
    "tf180": AngleForm(45.0, low=-4, long_first=True, square_low=-2, shift=2),
}
"""The forms of `convert_boxes` that have five numbers."""
RADIANS = AngleForm(math.pi / 4, low=None)
"""An rbox with any theta."""

MAX_WHOLE = 8
"""Beyond a full turn the numbers of float32 lie so wide apart that any angle may be nearest to a whole eighth."""


def wide_type(tensor: Tensor) -> torch.dtype:
    """Return the type that angles are computed in: float64, or float32 on devices that have no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def rewrite(boxes: Tensor, source: AngleForm, target: AngleForm, dtype: torch.dtype | None = None) -> Tensor:
    """Write the same rectangles in another form; gradients pass.

    An angle within a full turn that is the nearest number of its type to a multiple of 45 degrees counts as that
    multiple, so that float32's pi/2, which is larger than pi/2, is upright. Ranges hold for the answer as it is
    rounded, with ends rounded alike: an angle that would round to an end that is not in the range becomes the nearest
    number inside. Angles in range come back bit for bit, unless sides are swapped.

    Args:
        boxes: (..., 5), any theta, sides in any order.
        source: how they are written.
        target: how to write them.
        dtype: type of the answer; None: that of the boxes.
    """
    dtype = dtype or boxes.dtype
    x, y, w, h = (column.to(dtype) for column in boxes[..., :4].unbind(-1))
    theta = boxes[..., 4]
    eighths, whole = _in_eighths(theta, source.eighth)
    swap, taken = _turns(w, h, eighths + (source.shift - target.shift), target)
    taken = taken - (source.shift - target.shift)
    if (source.eighth, source.shift) == (target.eighth, target.shift):
        moved = _outside(w, h, theta, target)  # what is right already must not be rounded across an end
        swap, taken = swap & moved, torch.where(moved, taken, 0.0)
    turned = (theta.to(eighths.dtype) - taken * source.eighth) * (target.eighth / source.eighth)
    exact = torch.where(whole, (eighths - taken) * target.eighth, turned) + 0.0  # no -0.0
    answer = _with_gradient(_within(exact.to(dtype), w == h, target), turned.to(dtype))
    return torch.stack([x, y, torch.where(swap, h, w), torch.where(swap, w, h), answer], dim=-1)


def direction(theta: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and sine, in float64, of angles in radians; exact at multiples of a quarter turn, as `rewrite`."""
    eighths, whole = _in_eighths(theta, math.pi / 4)
    cos, sin = theta.to(eighths.dtype).cos(), theta.to(eighths.dtype).sin()
    quarter = whole & (eighths.remainder(2) == 0)
    return (
        _with_gradient(torch.where(quarter, cos.round(), cos), cos),
        _with_gradient(torch.where(quarter, sin.round(), sin), sin),
    )


def _with_gradient(value: Tensor, of: Tensor) -> Tensor:
    """Return `value` with the gradient of `of`, from which only rounding sets it apart."""
    return value.detach() + (of - of.detach())


def _in_eighths(theta: Tensor, eighth: float) -> tuple[Tensor, Tensor]:
    """Return angles in eighths of a turn, without gradient, and which of them are whole."""
    eighths = theta.detach().to(wide_type(theta)) / eighth
    nearest = eighths.round()
    whole = ((nearest * eighth).to(theta.dtype) == theta) & (nearest.abs() <= MAX_WHOLE)
    return torch.where(whole, nearest, eighths), whole


def _turns(w: Tensor, h: Tensor, eighths: Tensor, form: AngleForm) -> tuple[Tensor, Tensor]:
    """Return which boxes swap their sides, and how many eighths to take from their angles to be in the range."""
    if form.low is None:
        return torch.zeros_like(w, dtype=torch.bool), torch.zeros_like(eighths)
    if form.long_first:
        swap = w < h
        width = torch.where(w == h, 2, 4)
        low = torch.where(w == h, form.square_low, form.low)
        return swap, width * ((eighths + 2 * swap - low) / width).floor() - 2 * swap
    quarters = (eighths - form.low) / 2
    quarters = quarters.ceil() - 1 if form.high_included else quarters.floor()
    return quarters.remainder(2) == 1, 2 * quarters


def _outside(w: Tensor, h: Tensor, theta: Tensor, form: AngleForm) -> Tensor:
    """Say which boxes are not in the form yet, if only for their angle or only for their sides."""
    outside = _within(theta, w == h, form) != theta
    return outside | (w < h) if form.long_first else outside


def _within(theta: Tensor, square: Tensor, form: AngleForm) -> Tensor:
    """Bring angles that rounding has put beside the range back into it."""
    if form.low is None:
        return theta
    if not form.long_first:
        return theta.clamp(*_ends(form.low, 2, form, theta.dtype))
    of_squares = theta.clamp(*_ends(form.square_low, 2, form, theta.dtype))
    return torch.where(square, of_squares, theta.clamp(*_ends(form.low, 4, form, theta.dtype)))


def _ends(low: int, width: int, form: AngleForm, dtype: torch.dtype) -> tuple[float, float]:
    """Return the smallest and the largest number of a type in a range given in eighths."""
    first, last = low * form.eighth, (low + width) * form.eighth
    if form.high_included:
        return _next(first, +1, dtype), last
    return first, _next(last, -1, dtype)


def _next(end: float, sign: int, dtype: torch.dtype) -> float:
    """Return the number of a type that follows the one nearest to `end`, up (+1) or down (-1)."""
    limits = torch.finfo(dtype)
    if end == 0:
        return sign * limits.tiny
    spacing = limits.eps * 2.0 ** math.floor(math.log2(abs(end)))
    return round(end / spacing) * spacing + sign * spacing
