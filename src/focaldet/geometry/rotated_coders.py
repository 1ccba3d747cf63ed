"""Rotated boxes to deltas and back, in the ways of all published rows and in one of ours; upright ones: `coders`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.angles import ANGLE_FORMS, RADIANS, AngleForm, rewrite
from focaldet.geometry.coders import MAX_LOG_SCALE
from focaldet.geometry.hbox import check_hboxes, in_full_precision
from focaldet.structures import Size

CoderAngle = Literal["le90", "le135", "oc", "oc-negative", "tf90", "tf180"]

CODER_FORMS: dict[str, AngleForm] = {
    **{name: ANGLE_FORMS[name] for name in ("le90", "le135", "oc", "oc-negative")},
    **{name: replace(ANGLE_FORMS[name], eighth=math.pi / 4) for name in ("tf90", "tf180")},
}
"""The forms that boxes are coded in, all in radians."""

PLUS_ONE_EPSILON = 1e-5
"""What the quirk "plus-one" adds to the ratio of sides before the logarithm."""


class RotatedCoder(Protocol):
    """What turns rotated boxes into deltas and back. `numbers` is how many deltas a box has."""

    @property
    def numbers(self) -> int: ...  # noqa: D102

    @property
    def form(self) -> CoderAngle: ...  # noqa: D102

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor: ...  # noqa: D102

    def decode(self, deltas: Tensor, anchors: Tensor, size: Size | None = None) -> Tensor: ...  # noqa: D102

    def to_rbox(self, boxes: Tensor) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class RboxCoder:
    """How a row of a table turns rotated boxes into deltas and back.

    With the anchor (x_a, y_a, w_a, h_a, theta_a) and the box (x, y, w, h, theta), both in the form `angle`:

        dx = (x - x_a) / w_a    dw = log(w / w_a)    dtheta = theta - theta_a
        dy = (y - y_a) / h_a    dh = log(h / h_a)

    Anchors are in the coder's own form, in radians, and are taken as they are (`from_rbox` and `from_hbox` make them).
    Boxes to encode are rboxes in any form in radians. Decoded boxes are in the coder's own form, with theta as it
    falls; for all forms but "tf180", whose theta is a quarter turn less than the direction of the w side, they are
    rboxes as they stand, and `to_rbox` makes public ones of any.

    The rows of mmrotate: "oc" with nothing else; "le90" with `edge_swap` and `proj_xy`; "le135" with `proj_xy` and
    `norm_factor=1`. The rows of the original program: "tf90" or "tf180" with `max_log_scale=None`.

    Attributes:
        angle: the form. Differences of angles are wrapped into the range of "le90" and "le135", in the others not.
        proj_xy: measure dx along the anchor's w side and dy along its h side, and not along the picture's axes.
        edge_swap: encode against the side of the box that is nearer to the anchor's w side in direction, and let
            the longer decoded side be w.
        norm_factor: divide dtheta by this times pi.
        max_log_scale: dw and dh are clamped to plus or minus this in decoding; None: free.
        stds: what the five deltas are divided by.
        anchor_sides: "plus-one" is a quirk of the original R3Det program's last state: it encodes, but does not decode,
            with the anchor's sides + 1, and adds 1e-5 to the ratio of sides.

    >>> anchors = torch.tensor([[50.0, 50.0, 20.0, 10.0, 0.0]])
    >>> coder = RboxCoder("le90", edge_swap=True, proj_xy=True)
    >>> deltas = coder.encode(torch.tensor([[52.0, 50.0, 10.0, 20.0, 1.8]]), anchors)
    >>> deltas
    tensor([[0.1000, 0.0000, 0.0000, 0.0000, 0.2292]])
    >>> coder.decode(deltas, anchors)
    tensor([[52.0000, 50.0000, 20.0000, 10.0000,  0.2292]])
    """

    angle: CoderAngle = "le90"
    proj_xy: bool = False
    edge_swap: bool = False
    norm_factor: float | None = None
    max_log_scale: float | None = MAX_LOG_SCALE
    stds: tuple[float, float, float, float, float] = (1.0, 1.0, 1.0, 1.0, 1.0)
    anchor_sides: Literal["exact", "plus-one"] = "exact"

    @property
    def numbers(self) -> int:
        """Deltas a box."""
        return 5

    @property
    def form(self) -> CoderAngle:
        """In which anchors and decoded boxes are written."""
        return self.angle

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Say where boxes lie, seen from anchors; `decode` undoes it, up to its clamps.

        Args:
            boxes: (..., 5) rboxes with area, any theta, in any frame.
            anchors: (..., 5) with area, in the coder's form, in that frame.

        Returns:
            (..., 5) deltas without unit, dtheta in radians; at least float32. A box without area gives an infinite
            dw or dh.
        """
        _check_five(boxes, "boxes")
        _check_five(anchors, "anchors")
        boxes, anchors = self.from_rbox(boxes), in_full_precision(anchors)
        offset, sides, theta = (boxes[..., :2] - anchors[..., :2]), boxes[..., 2:4], anchors[..., 4:]
        if self.proj_xy:
            offset = _turn(offset, -theta)
        dtheta = self._wrap(boxes[..., 4:] - theta)
        if self.edge_swap:
            other = self._wrap(boxes[..., 4:] - theta + math.pi / 2)
            nearer = dtheta.abs() < other.abs()
            sides, dtheta = torch.where(nearer, sides, sides.flip(-1)), torch.where(nearer, dtheta, other)
        anchor_sides, epsilon = anchors[..., 2:4], 0.0
        if self.anchor_sides == "plus-one":
            anchor_sides, epsilon = anchor_sides + 1, PLUS_ONE_EPSILON
        scale = (sides / anchor_sides + epsilon).log()
        deltas = torch.cat([offset / anchor_sides, scale, dtheta / self._radians], dim=-1)
        return deltas / deltas.new_tensor(self.stds)

    def decode(self, deltas: Tensor, anchors: Tensor, size: Size | None = None) -> Tensor:
        """Turn the deltas that a head predicts into boxes; undoes `encode`, up to the clamps.

        Args:
            deltas: (..., 5).
            anchors: (..., 5) in the coder's form, in any frame.
            size: (height, width) of a picture whose pixels' numbers centres are clamped to, 0 to width - 1 and
                0 to height - 1, as mmrotate does; None: centres are free.

        Returns:
            (..., 5) boxes in the coder's form, in that frame; at least float32.
        """
        _check_five(deltas, "deltas")
        _check_five(anchors, "anchors")
        deltas, anchors = in_full_precision(deltas), in_full_precision(anchors)
        deltas = deltas * deltas.new_tensor(self.stds)
        theta = anchors[..., 4:]
        offset, scale = deltas[..., :2] * anchors[..., 2:4], deltas[..., 2:4]
        if self.max_log_scale is not None:
            scale = scale.clamp(-self.max_log_scale, self.max_log_scale)  # exp of an untrained output overflows
        centre = _within(anchors[..., :2] + (_turn(offset, theta) if self.proj_xy else offset), size)
        sides, theta = anchors[..., 2:4] * scale.exp(), self._wrap(theta + deltas[..., 4:] * self._radians)
        if self.edge_swap:
            ordered = sides[..., :1] > sides[..., 1:]
            sides = torch.where(ordered, sides, sides.flip(-1))
            theta = self._wrap(torch.where(ordered, theta, theta + math.pi / 2))
        return torch.cat([centre, sides, theta], dim=-1)

    def from_rbox(self, boxes: Tensor) -> Tensor:
        """Write rboxes (..., 5), any theta, in the coder's form: truth, or anchors."""
        return rewrite(in_full_precision(boxes), RADIANS, CODER_FORMS[self.angle])

    def to_rbox(self, boxes: Tensor) -> Tensor:
        """Write boxes (..., 5) of the coder's form as public rboxes, "le90"."""
        return rewrite(in_full_precision(boxes), CODER_FORMS[self.angle], ANGLE_FORMS["le90"])

    def from_hbox(self, boxes: Tensor, plus_one: bool = False) -> Tensor:
        """Write hboxes (..., 4) in the coder's form.

        In "oc-negative" and "tf90" w is the height and theta a quarter turn back: dx of an H anchor of the original
        program is divided by the anchor's height.

        Args:
            boxes: (..., 4).
            plus_one: count a side as x2 - x1 + 1, as the original program does.
        """
        check_hboxes(boxes, "boxes")
        boxes = in_full_precision(boxes)
        centres, sides = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
        return self.from_rbox(torch.cat([centres, sides + plus_one, torch.zeros_like(sides[..., :1])], dim=-1))

    @property
    def _radians(self) -> float:
        """Radians of a dtheta of 1."""
        return 1.0 if self.norm_factor is None else self.norm_factor * math.pi

    def _wrap(self, theta: Tensor) -> Tensor:
        """Bring angles into the range of the form, where the form is one that wraps."""
        if self.angle not in ("le90", "le135"):
            return theta
        low = (CODER_FORMS[self.angle].low or 0) * math.pi / 4
        return theta - math.pi * ((theta.detach() - low) / math.pi).floor()


def atan_form(differences: Tensor) -> Tensor:
    """Put the last of five differences of deltas (..., 5), that of theta, through the arc tangent.

    The "atan" rows do so in the loss, with predicted minus wanted deltas, before smooth L1: a large error of the angle
    then counts no more than a quarter turn. Prediction, encoding and decoding know nothing of it.

    >>> atan_form(torch.tensor([2.0, 2.0, 2.0, 2.0, 1.0]))
    tensor([2.0000, 2.0000, 2.0000, 2.0000, 0.7854])
    """
    _check_five(differences, "differences")
    return torch.cat([differences[..., :4], differences[..., 4:].atan()], dim=-1)


@dataclass(frozen=True)
class DirectionCoder:
    """Six deltas a box, none of which jumps when a box turns: the angle is a vector, as long as the box is slender.

    With u the square root of the anchor's area, the box as "le90" (w >= h), and t = theta - theta_a:

        dx = (x - x_a) / u    dw = log(w / u)    c = e cos(2 t)
        dy = (y - y_a) / u    dh = log(h / u)    s = e sin(2 t)    e = (w^2 - h^2) / (w^2 + h^2)

    A difference of angles has to jump somewhere on the circle, and boxes of directions near the jump are learned badly.
    Here there is none: half a turn brings 2 theta back to itself, and a square, of which no side is the longer, has
    e = 0. (c, s) is how the box's second moments differ from a circle's, seen along the anchor.
    The price: how a square is turned is not told.

    With `proj_xy` lengths are measured by the anchor's own sides, w_a >= h_a, instead of u: dw and dh by the one and
    the other, and the offset by each along that side, then turned back to x and y. So an offset is small in all
    directions where an anchor nearly fits, however thin the two are, and does not jump where an anchor's angle or
    longer side does. (c, s) does change its sign where the longer side does; of boxes that such an anchor, nearly a
    square, fits, e is near 0. Made for anchors that are boxes of an earlier stage.

    Attributes:
        proj_xy: see above.
        max_log_scale: dw and dh are clamped to plus or minus this in decoding; None: free.

    >>> coder, anchors = DirectionCoder(), torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0]])
    >>> deltas = coder.encode(torch.tensor([[52.0, 50.0, 20.0, 10.0, 0.3]]), anchors)
    >>> deltas
    tensor([[ 0.1000,  0.0000,  0.0000, -0.6931,  0.4952,  0.3388]])
    >>> coder.decode(deltas, anchors)
    tensor([[52.0000, 50.0000, 20.0000, 10.0000,  0.3000]])
    """

    proj_xy: bool = False
    max_log_scale: float | None = MAX_LOG_SCALE

    @property
    def numbers(self) -> int:
        """Deltas a box."""
        return 6

    @property
    def form(self) -> CoderAngle:
        """In which anchors and decoded boxes are written."""
        return "le90"

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Say where boxes lie, seen from anchors; `decode` undoes it, up to its clamp.

        Args:
            boxes: (..., 5) rboxes with area, any theta, in any frame.
            anchors: (..., 5) with area, in that frame.

        Returns:
            (..., 6) deltas without unit; at least float32. A box without area gives an infinite dw or dh.
        """
        _check_five(boxes, "boxes")
        _check_five(anchors, "anchors")
        boxes = rewrite(in_full_precision(boxes), RADIANS, ANGLE_FORMS["le90"])
        anchors, unit = self._frame(anchors)
        turn, squares = 2 * (boxes[..., 4:] - anchors[..., 4:]), boxes[..., 2:4].square()
        slender = (squares[..., :1] - squares[..., 1:]) / squares.sum(dim=-1, keepdim=True)
        offset, scale = boxes[..., :2] - anchors[..., :2], (boxes[..., 2:4] / unit).log()
        return torch.cat(
            [self._stretched(offset, anchors, 1 / unit), scale, slender * turn.cos(), slender * turn.sin()], dim=-1
        )

    def decode(self, deltas: Tensor, anchors: Tensor, size: Size | None = None) -> Tensor:
        """Turn the deltas that a head predicts into boxes; of the vector only the direction is read.

        Args:
            deltas: (..., 6).
            anchors: (..., 5), in any frame.
            size: as in `RboxCoder.decode`.

        Returns:
            (..., 5) rboxes in that frame, theta within a quarter turn of the anchor's, which with `proj_xy` is that of
            its longer side; at least float32.
        """
        if deltas.ndim == 0 or deltas.shape[-1] != 6:
            raise FocaldetError(f"deltas has shape {tuple(deltas.shape)}; give six numbers a box, of shape (..., 6)")
        _check_five(anchors, "anchors")
        deltas, (anchors, unit) = in_full_precision(deltas), self._frame(anchors)
        offset, scale = self._stretched(deltas[..., :2], anchors, unit), deltas[..., 2:4]
        if self.max_log_scale is not None:
            scale = scale.clamp(-self.max_log_scale, self.max_log_scale)
        theta = anchors[..., 4:] + torch.atan2(deltas[..., 5:], deltas[..., 4:5]) / 2
        return torch.cat([_within(anchors[..., :2] + offset, size), unit * scale.exp(), theta], dim=-1)

    def to_rbox(self, boxes: Tensor) -> Tensor:
        """Write decoded boxes (..., 5) as public rboxes, "le90"."""
        return rewrite(in_full_precision(boxes), RADIANS, ANGLE_FORMS["le90"])

    def _frame(self, anchors: Tensor) -> tuple[Tensor, Tensor]:
        """Return anchors (..., 5) as boxes are seen from them, and what is 1 there: (..., 2), or (..., 1) for both."""
        anchors = in_full_precision(anchors)
        if not self.proj_xy:
            return anchors, _side(anchors)
        anchors = rewrite(anchors, RADIANS, ANGLE_FORMS["le90"])
        return anchors, anchors[..., 2:4]

    def _stretched(self, offsets: Tensor, anchors: Tensor, by: Tensor) -> Tensor:
        """Stretch vectors (..., 2) along the sides of anchors, or alike in all directions."""
        if not self.proj_xy:
            return offsets * by
        return _turn(_turn(offsets, -anchors[..., 4:]) * by, anchors[..., 4:])


def _side(anchors: Tensor) -> Tensor:
    """Return the side (..., 1) of a square of the area of anchors (..., 5)."""
    return anchors[..., 2:4].prod(dim=-1, keepdim=True).sqrt()


def _within(centres: Tensor, size: Size | None) -> Tensor:
    """Clamp centres (..., 2) to the numbers of the pixels of a picture (height, width); None: to nothing."""
    if size is None:
        return centres
    return torch.cat([centres[..., :1].clamp(0, size[1] - 1), centres[..., 1:].clamp(0, size[0] - 1)], dim=-1)


def _turn(vectors: Tensor, theta: Tensor) -> Tensor:
    """Turn vectors (..., 2) clockwise on the screen by theta (..., 1)."""
    cos, sin = theta.cos(), theta.sin()
    x, y = vectors[..., :1], vectors[..., 1:]
    return torch.cat([x * cos - y * sin, x * sin + y * cos], dim=-1)


def _check_five(boxes: Tensor, name: str) -> None:
    if boxes.ndim == 0 or boxes.shape[-1] != 5:
        raise FocaldetError(f"{name} has shape {tuple(boxes.shape)}; give five numbers a box, of shape (..., 5)")
