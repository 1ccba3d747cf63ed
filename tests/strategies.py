"""Rotated boxes to test with: families of pairs on which programs for rotated IoU fail, and hypothesis strategies.

`FAMILIES` maps a name to `family(rng, n) -> (boxes1, boxes2)`, float64 arrays (n, 5) of rboxes (x, y, w, h, theta):
pixels, and radians clockwise on screen. Row i is paired with row i. The same seed gives the same pairs.
Unless a family says otherwise, centres lie in a tile of 1024 x 1024 pixels, sides are 8 to 400 and angles -pi to pi.

The strategies use the one profile of tests/conftest.py (no deadline, the same examples in every run).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

Array = NDArray[np.float64]
Pairs = tuple[Array, Array]
Family = Callable[[np.random.Generator, int], Pairs]

FAMILIES: dict[str, Family] = {}


def family(function: Family) -> Family:
    """Put a family under its function's name, with spaces."""
    FAMILIES[function.__name__.replace("_", " ")] = function
    return function


def families(name: str, *values: float) -> Callable[[Callable[..., Pairs]], Callable[..., Pairs]]:
    """Put a family once for each value of its third argument: under the name, with {} replaced by the value."""

    def register(function: Callable[..., Pairs]) -> Callable[..., Pairs]:
        for value in values:
            FAMILIES[name.format(f"{value:g}")] = lambda rng, n, value=value: function(rng, n, value)
        return function

    return register


def pairs_of(name: str, n: int, seed: int = 0) -> Pairs:
    """Return `n` pairs of a family, the same in every run."""
    return FAMILIES[name](np.random.default_rng([seed, *name.encode()]), n)


# What families are made from


def rboxes_at(center: Array, sides: Array, theta: Any) -> Array:
    """Return (n, 5) from centres (n, 2), sides (n, 2) and angles (n,) or one for all."""
    return np.column_stack([center, sides, np.broadcast_to(theta, len(center))])


def some_boxes(rng: np.random.Generator, n: int, low: float = 8.0, high: float = 400.0) -> Array:
    """Return boxes anywhere in the tile, sides evenly spread over their logarithms."""
    return rboxes_at(some_centers(rng, n), some_sides(rng, n, low, high), some_angles(rng, n))


def some_centers(rng: np.random.Generator, n: int, size: float = 1024.0) -> Array:
    return rng.uniform(0, size, (n, 2))


def some_sides(rng: np.random.Generator, n: int, low: float = 8.0, high: float = 400.0) -> Array:
    return np.exp(rng.uniform(np.log(low), np.log(high), (n, 2)))


def some_angles(rng: np.random.Generator, n: int) -> Array:
    return rng.uniform(-np.pi, np.pi, n)


def signs(rng: np.random.Generator, *shape: int) -> Array:
    return rng.choice([-1.0, 1.0], shape)


def moved(boxes: Array, along: Any, across: Any) -> Array:
    """Return boxes shifted in their own frames: along w and along h, in pixels."""
    cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
    answer = boxes.copy()
    answer[:, 0] += along * cos - across * sin
    answer[:, 1] += along * sin + across * cos
    return answer


def resized(boxes: Array, w: Any, h: Any) -> Array:
    """Return boxes of other sides around the same centres."""
    answer = boxes.copy()
    answer[:, 2], answer[:, 3] = w, h
    return answer


def turned(boxes: Array, by: Any) -> Array:
    """Return boxes turned around their own centres, by radians."""
    answer = boxes.copy()
    answer[:, 4] += by
    return answer


def swapped(boxes: Array, by: Any) -> Array:
    """Return boxes with the other side called w, turned by radians."""
    return turned(resized(boxes, boxes[:, 3], boxes[:, 2]), by)


# The same box, nearly


@families("shifted by {}", 1e-12, 1e-9, 1e-6, 1e-3, 0.1)
def shifted(rng: np.random.Generator, n: int, share: float) -> Pairs:
    """Shifted by a share of the sides, a third of them along one side only."""
    boxes = some_boxes(rng, n)
    directions = rng.normal(size=(n, 2)) * rng.choice([[1, 1], [1, 0], [0, 1]], n)
    return boxes, moved(boxes, *(share * directions * boxes[:, 2:4]).T)


@families("turned by {}", 1e-12, 1e-9, 1e-6, 1e-3, 0.1)
def turned_little(rng: np.random.Generator, n: int, angle: float) -> Pairs:
    boxes = some_boxes(rng, n)
    return boxes, turned(boxes, angle * rng.normal(size=n))


@families("sides scaled by {}", 1e-12, 1e-9, 1e-6, 1e-3, 0.1)
def scaled(rng: np.random.Generator, n: int, share: float) -> Pairs:
    """Each side longer or shorter by a share of itself; a third keep one side."""
    boxes = some_boxes(rng, n)
    factors = 1 + share * rng.uniform(-1, 1, (n, 2)) * rng.choice([[1, 1], [1, 0], [0, 1]], n)
    return boxes, resized(boxes, *(boxes[:, 2:4] * factors).T)


@families("all changed by {}", 1e-9, 1e-6, 1e-3)
def all_changed(rng: np.random.Generator, n: int, share: float) -> Pairs:
    """Shifted, scaled and turned at once."""
    boxes = some_boxes(rng, n)
    shift, factors = share * rng.normal(size=(n, 2)), 1 + share * rng.uniform(-1, 1, (n, 2))
    other = turned(resized(boxes, *(boxes[:, 2:4] * factors).T), share * rng.normal(size=n))
    return boxes, moved(other, *(shift * boxes[:, 2:4]).T)


@family
def identical(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    return boxes, boxes.copy()


@family
def sides_swapped(rng: np.random.Generator, n: int) -> Pairs:
    """The same box, the other side called w: turned by 90 degrees one way or the other."""
    boxes = some_boxes(rng, n)
    return boxes, swapped(boxes, signs(rng, n) * np.pi / 2)


@family
def turned_by_half(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    return boxes, turned(boxes, signs(rng, n) * np.pi)


@family
def squares_turned_by_a_quarter(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    boxes[:, 3] = boxes[:, 2]
    return boxes, turned(boxes, rng.integers(-3, 4, n) * np.pi / 2)


@family
def angles_beyond_two_pi(rng: np.random.Generator, n: int) -> Pairs:
    """The same box after up to a thousand turns, or an ordinary neighbour of it."""
    boxes = some_boxes(rng, n)
    quarters = rng.integers(-4000, 4001, n)
    other = np.where((quarters % 2 == 1)[:, None], swapped(boxes, 0.0), boxes)
    other = turned(other, quarters * np.pi / 2)
    near = rng.random(n) < 0.5
    return boxes, np.where(near[:, None], moved(turned(other, rng.normal(size=n)), *rng.uniform(-4, 4, (2, n))), other)


# Edges and corners that coincide


@family
def half_sharing_three_edges(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    w, side = boxes[:, 2], signs(rng, n)
    return boxes, moved(resized(boxes, w / 2, boxes[:, 3]), side * w / 4, 0.0)


@family
def quarter_sharing_a_corner(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    w, h = boxes[:, 2], boxes[:, 3]
    return boxes, moved(resized(boxes, w / 2, h / 2), signs(rng, n) * w / 4, signs(rng, n) * h / 4)


@family
def sharing_part_of_an_edge(rng: np.random.Generator, n: int) -> Pairs:
    """A smaller box inside, flush with one edge."""
    boxes = some_boxes(rng, n)
    w, h = (boxes[:, 2:4] * rng.uniform(0.1, 0.9, (n, 2))).T
    along = rng.uniform(-0.5, 0.5, n) * (boxes[:, 2] - w)
    return boxes, moved(resized(boxes, w, h), along, signs(rng, n) * (boxes[:, 3] - h) / 2)


@family
def longer_along_a_shared_edge(rng: np.random.Generator, n: int) -> Pairs:
    """Two edges on the same lines, the other box sticking out at one end or both."""
    boxes = some_boxes(rng, n)
    return boxes, moved(
        resized(boxes, boxes[:, 2] * rng.uniform(1, 2, n), boxes[:, 3]), rng.uniform(-0.5, 0.5, n) * boxes[:, 2], 0.0
    )


@family
def swapped_and_sharing_edges(rng: np.random.Generator, n: int) -> Pairs:
    """Half of a box, or a half more than it, written with the other side as w."""
    boxes = some_boxes(rng, n)
    share = rng.choice([0.5, 1.5], n)
    w = boxes[:, 2] * share
    other = moved(resized(boxes, w, boxes[:, 3]), signs(rng, n) * (boxes[:, 2] - w) / 2, 0.0)
    return boxes, swapped(other, signs(rng, n) * np.pi / 2)


@family
def touching_in_an_edge(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    return boxes, moved(boxes, signs(rng, n) * boxes[:, 2], 0.0)


@family
def touching_in_part_of_an_edge(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    w, h = (boxes[:, 2:4] * rng.uniform(0.1, 2, (n, 2))).T
    along = rng.uniform(-0.5, 0.5, n) * (boxes[:, 2] + w)
    return boxes, moved(resized(boxes, w, h), along, signs(rng, n) * (boxes[:, 3] + h) / 2)


@family
def touching_in_a_corner(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    w, h = (boxes[:, 2:4] * rng.uniform(0.1, 2, (n, 2))).T
    along, across = signs(rng, n) * (boxes[:, 2] + w) / 2, signs(rng, n) * (boxes[:, 3] + h) / 2
    return boxes, moved(resized(boxes, w, h), along, across)


@family
def corner_on_an_edge(rng: np.random.Generator, n: int) -> Pairs:
    """A corner of the second box on an edge of the first, at any angle: from outside or reaching in."""
    boxes, sides, angle = some_boxes(rng, n), some_sides(rng, n), some_angles(rng, n)
    on_edge = moved(boxes, rng.uniform(-0.5, 0.5, n) * boxes[:, 2], boxes[:, 3] / 2)
    other = turned(resized(on_edge, *sides.T), angle)
    return boxes, moved(other, signs(rng, n) * sides[:, 0] / 2, signs(rng, n) * sides[:, 1] / 2)


@family
def corner_on_a_corner(rng: np.random.Generator, n: int) -> Pairs:
    boxes, sides, angle = some_boxes(rng, n), some_sides(rng, n), some_angles(rng, n)
    corner = moved(boxes, boxes[:, 2] / 2, boxes[:, 3] / 2)
    return boxes, moved(turned(resized(corner, *sides.T), angle), sides[:, 0] / 2, sides[:, 1] / 2)


@family
def diagonal_along_an_edge(rng: np.random.Generator, n: int) -> Pairs:
    """Two opposite corners of the second box on the line of an edge of the first."""
    boxes, sides = some_boxes(rng, n), some_sides(rng, n)
    on_edge = moved(boxes, rng.uniform(-0.5, 0.5, n) * boxes[:, 2], boxes[:, 3] / 2)
    return boxes, turned(resized(on_edge, *sides.T), -np.arctan2(sides[:, 1], sides[:, 0]))


@families("overlapping by {}", 1e-9, 1e-6, 1e-3)
def slivers(rng: np.random.Generator, n: int, share: float) -> Pairs:
    """Side by side, overlapping or apart by a share of the side, turned by up to as much."""
    boxes = some_boxes(rng, n)
    other = moved(boxes, signs(rng, n) * boxes[:, 2] * (1 + share * rng.uniform(-1, 1, n)), 0.0)
    return boxes, turned(other, share * rng.uniform(-1, 1, n))


# One inside or across the other


@family
def contained(rng: np.random.Generator, n: int) -> Pairs:
    """Well inside, at any angle."""
    boxes = some_boxes(rng, n)
    small = boxes[:, 2:4].min(1)
    other = turned(resized(boxes, *(small[:, None] * rng.uniform(0.1, 0.5, (n, 2))).T), some_angles(rng, n))
    return boxes, moved(other, *(0.1 * small * rng.uniform(-1, 1, (2, n))))


@family
def concentric(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    return boxes, turned(resized(boxes, *some_sides(rng, n).T), some_angles(rng, n))


@family
def inscribed_square(rng: np.random.Generator, n: int) -> Pairs:
    """A square whose corners halve the edges of another one."""
    boxes = some_boxes(rng, n)
    boxes[:, 3] = boxes[:, 2]
    side = boxes[:, 2] / np.sqrt(2)
    return boxes, turned(resized(boxes, side, side), np.pi / 4)


@family
def octagons(rng: np.random.Generator, n: int) -> Pairs:
    """Equal squares turned by 45 degrees."""
    boxes = some_boxes(rng, n)
    boxes[:, 3] = boxes[:, 2]
    return boxes, turned(boxes, signs(rng, n) * np.pi / 4)


@family
def cross(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    boxes[:, 2] = boxes[:, 3] * rng.uniform(2, 20, n)
    return boxes, turned(boxes, np.pi / 2)


@family
def cross_at_any_angle(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    boxes[:, 2] = boxes[:, 3] * rng.uniform(2, 20, n)
    other = turned(resized(boxes, boxes[:, 2] * rng.uniform(0.5, 2, n), boxes[:, 3]), some_angles(rng, n))
    return boxes, moved(other, *(rng.uniform(-0.5, 0.5, (2, n)) * boxes[:, 3]))


# Sizes and places


@families("aspect {}", 1e2, 1e3, 1e4)
def thin(rng: np.random.Generator, n: int, aspect: float) -> Pairs:
    """Long thin boxes, shifted by less than the thin side and turned by about as little as parts their ends."""
    w = rng.uniform(100, 1000, n)
    boxes = rboxes_at(some_centers(rng, n), np.column_stack([w, w / aspect]), some_angles(rng, n))
    other = turned(boxes, rng.normal(size=n) / aspect)
    return boxes, moved(other, rng.uniform(-0.5, 0.5, n) * w, rng.uniform(-0.5, 0.5, n) * w / aspect)


@families("aspect {}, crossing", 1e2, 1e3, 1e4)
def thin_crossing(rng: np.random.Generator, n: int, aspect: float) -> Pairs:
    """Long thin boxes at any angle, half of the second ones ordinary boxes."""
    w = rng.uniform(100, 1000, n)
    boxes = rboxes_at(some_centers(rng, n), np.column_stack([w, w / aspect]), some_angles(rng, n))
    other = turned(moved(boxes, rng.uniform(-0.5, 0.5, n) * w, 0.0), some_angles(rng, n))
    return boxes, np.where(rng.random((n, 1)) < 0.5, other, resized(other, *some_sides(rng, n).T))


@families("aspect {}, nearly parallel", 1e2, 1e3, 1e4)
def thin_nearly_parallel(rng: np.random.Generator, n: int, aspect: float) -> Pairs:
    """Long thin boxes flush with each other, turned by anything from 1e-17 to 1e-1."""
    w = rng.uniform(100, 1000, n)
    boxes = rboxes_at(some_centers(rng, n), np.column_stack([w, w / aspect]), some_angles(rng, n))
    other = resized(boxes, w * rng.choice([0.5, 1.0, 2.0], n), boxes[:, 3] * rng.choice([0.5, 1.0, 2.0], n))
    other = turned(other, signs(rng, n) * 10.0 ** rng.uniform(-17, -1, n))
    along, across = (other[:, 2] - w) / 2, (other[:, 3] - boxes[:, 3]) / 2
    return boxes, moved(other, rng.integers(-1, 2, n) * along, rng.integers(-1, 2, n) * across)


@families("aspect {}, sides swapped", 1e2, 1e3, 1e4)
def thin_swapped(rng: np.random.Generator, n: int, aspect: float) -> Pairs:
    """The same long thin box, written with the other side as w."""
    w = rng.uniform(100, 1000, n)
    boxes = rboxes_at(some_centers(rng, n), np.column_stack([w, w / aspect]), some_angles(rng, n))
    return boxes, swapped(boxes, signs(rng, n) * np.pi / 2)


@family
def centers_at_1e6(rng: np.random.Generator, n: int) -> Pairs:
    boxes, other = clusters(rng, n)
    far = signs(rng, n, 2) * 1e6
    boxes[:, :2] += far
    other[:, :2] += far
    return boxes, other


@family
def same_box_at_1e6(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    boxes[:, :2] += signs(rng, n, 2) * 1e6
    return boxes, swapped(boxes, signs(rng, n) * np.pi / 2)


@family
def a_thousandth_in_a_thousand(rng: np.random.Generator, n: int) -> Pairs:
    """Boxes of a thousandth of a pixel in, or on the rim of, boxes of a thousand pixels."""
    boxes = rboxes_at(some_centers(rng, n), 1e3 * rng.uniform(0.5, 2, (n, 2)), some_angles(rng, n))
    sides = 1e-3 * rng.uniform(0.5, 2, (n, 2))
    across = np.where(rng.random(n) < 0.5, 0.5 * boxes[:, 3], rng.uniform(-0.5, 0.5, n) * boxes[:, 3])
    return boxes, turned(resized(moved(boxes, 0.0, across), *sides.T), some_angles(rng, n))


@family
def tiny_in_tiny(rng: np.random.Generator, n: int) -> Pairs:
    """All sides about a thousandth of a pixel."""
    boxes = some_boxes(rng, n, 1e-3, 1e-2)
    other = turned(resized(boxes, *some_sides(rng, n, 1e-3, 1e-2).T), some_angles(rng, n))
    return boxes, moved(other, *rng.uniform(-3e-3, 3e-3, (2, n)))


@family
def all_sizes(rng: np.random.Generator, n: int) -> Pairs:
    """Sides from a tenth of a pixel to a thousand, centres close enough to meet."""
    boxes = some_boxes(rng, n, 1e-1, 1e3)
    other = rboxes_at(boxes[:, :2].copy(), some_sides(rng, n, 1e-1, 1e3), some_angles(rng, n))
    return boxes, moved(other, *(rng.uniform(-0.7, 0.7, (2, n)) * np.maximum(boxes[:, 2:4].min(1), 0.1)))


# Without area


def flattened(rng: np.random.Generator, n: int, factors: tuple[int, int]) -> Pairs:
    """One box with its sides multiplied by 0 or 1, or both: across, inside, on an edge or at the same place."""
    boxes = some_boxes(rng, n)
    sides = boxes[:, 2:4] * rng.uniform(0.1, 2, (n, 2)) * factors
    other = moved(resized(boxes, *sides.T), 0.0, rng.choice([0.0, 0.25, 0.5, 2.0], n) * boxes[:, 3])
    other = turned(other, rng.choice([0.0, np.pi / 2, 1.0], n))
    flat = np.where(rng.random((n, 1)) < 0.5, boxes, resized(boxes, *(boxes[:, 2:4] * factors).T))
    exchange = rng.random((n, 1)) < 0.5
    return np.where(exchange, other, flat), np.where(exchange, flat, other)


@family
def zero_w(rng: np.random.Generator, n: int) -> Pairs:
    return flattened(rng, n, (0, 1))


@family
def zero_h(rng: np.random.Generator, n: int) -> Pairs:
    return flattened(rng, n, (1, 0))


@family
def points(rng: np.random.Generator, n: int) -> Pairs:
    return flattened(rng, n, (0, 0))


@family
def identical_without_area(rng: np.random.Generator, n: int) -> Pairs:
    boxes = some_boxes(rng, n)
    boxes[:, 2:4] *= rng.integers(0, 2, (n, 2)) * [[1, 0]]
    return boxes, boxes.copy()


# Angles at which edges are upright


@family
def axis_parallel(rng: np.random.Generator, n: int) -> Pairs:
    """Whole numbers and no turn: corners and edges coincide often."""
    rows = [
        rboxes_at(rng.integers(0, 16, (n, 2)).astype(np.float64), rng.integers(1, 16, (n, 2)).astype(np.float64), 0.0)
        for _ in range(2)
    ]
    return rows[0], rows[1]


@family
def quarter_turns(rng: np.random.Generator, n: int) -> Pairs:
    """As `axis_parallel`, each turned by quarters, whose cosine is 6e-17 and not 0."""
    boxes1, boxes2 = axis_parallel(rng, n)
    return turned(boxes1, rng.integers(-4, 5, n) * np.pi / 2), turned(boxes2, rng.integers(-4, 5, n) * np.pi / 2)


@family
def nearly_quarter_turns(rng: np.random.Generator, n: int) -> Pairs:
    """As `quarter_turns`, off by 1e-17 to 1e-2."""
    boxes1, boxes2 = quarter_turns(rng, n)
    off1, off2 = signs(rng, 2, n) * 10.0 ** rng.uniform(-17, -2, (2, n))
    return turned(boxes1, off1), turned(boxes2, off2)


@family
def forty_five_degrees(rng: np.random.Generator, n: int) -> Pairs:
    """Odd multiples of 45 degrees, whole centres and sides."""
    boxes1, boxes2 = axis_parallel(rng, n)
    eighths = 2 * rng.integers(-4, 4, (2, n)) + 1
    return turned(boxes1, eighths[0] * np.pi / 4), turned(boxes2, eighths[1] * np.pi / 4)


@family
def whole_degrees(rng: np.random.Generator, n: int) -> Pairs:
    """As labels have them: whole pixels, angles in multiples of 15 degrees."""
    boxes1, boxes2 = axis_parallel(rng, n)
    degrees = 15 * rng.integers(-12, 13, (2, n))
    return turned(boxes1, np.deg2rad(degrees[0])), turned(boxes2, np.deg2rad(degrees[1]))


@family
def nearly_parallel(rng: np.random.Generator, n: int) -> Pairs:
    """Boxes of different sides, flush with an edge or off it by 1e-14 to 1 pixels, turned by 1e-17 to 1e-1."""
    boxes, sides = some_boxes(rng, n), some_sides(rng, n)
    other = turned(resized(boxes, *sides.T), signs(rng, n) * 10.0 ** rng.uniform(-17, -1, n))
    flush = rng.integers(-1, 2, (n, 2)) * (sides - boxes[:, 2:4]) / 2
    off = signs(rng, n, 2) * 10.0 ** rng.uniform(-14, 0, (n, 2)) * rng.integers(0, 2, (n, 2))
    return boxes, moved(other, *(flush + off).T)


# Ordinary pairs


@family
def generic(rng: np.random.Generator, n: int) -> Pairs:
    """Anything that meets or nearly does."""
    boxes = some_boxes(rng, n)
    other = turned(resized(boxes, *some_sides(rng, n).T), some_angles(rng, n))
    return boxes, moved(other, *(rng.uniform(-0.8, 0.8, (n, 2)) * boxes[:, 2:4]).T)


@family
def clusters(rng: np.random.Generator, n: int) -> Pairs:
    """Detections of one object, as before NMS: all five numbers off by about a tenth."""
    objects = some_boxes(rng, n)
    first, second = (
        moved(
            turned(
                resized(objects, *(objects[:, 2:4] * np.exp(0.1 * rng.normal(size=(n, 2)))).T), rng.normal(0, 0.1, n)
            ),
            *(0.1 * rng.normal(size=(n, 2)) * objects[:, 2:4]).T,
        )
        for _ in range(2)
    )
    return first, second


@family
def hulls_meet_and_boxes_do_not(rng: np.random.Generator, n: int) -> Pairs:
    """Parallel long boxes, a gap beside each other; a part overlaps by as little."""
    boxes = some_boxes(rng, n)
    boxes[:, 2] = boxes[:, 3] * rng.uniform(3, 10, n)
    return boxes, moved(boxes, rng.uniform(-0.5, 0.5, n) * boxes[:, 2], boxes[:, 3] * rng.uniform(0.98, 1.5, n))


@family
def anywhere(rng: np.random.Generator, n: int) -> Pairs:
    """Most of them far from each other."""
    return some_boxes(rng, n), some_boxes(rng, n)


# hypothesis


def rboxes(low: float = 1.0, high: float = 512.0, reach: float = 256.0) -> st.SearchStrategy[Array]:
    """Return a strategy of one box, (1, 5): centre within `reach` of the origin, sides `low` to `high`, any turn.

    Simple numbers come often (whole coordinates, quarter and eighth turns), so that edges and corners coincide.
    """
    place = st.integers(-int(reach), int(reach)).map(float) | st.floats(-reach, reach)
    side = st.integers(int(np.ceil(low)), int(high)).map(float) | st.floats(low, high)
    angle = st.integers(-16, 16).map(lambda eighths: eighths * np.pi / 4) | st.floats(-7.0, 7.0)
    return st.tuples(place, place, side, side, angle).map(lambda row: np.array([row], dtype=np.float64))


def rbox_pairs() -> st.SearchStrategy[Pairs]:
    """Return a strategy of pairs, (1, 5) each: two boxes near each other, or a pair of one of the families."""
    return st.tuples(rboxes(), rboxes()) | family_pairs()


def family_pairs() -> st.SearchStrategy[Pairs]:
    """Return a strategy of pairs, (1, 5) each, of every family."""
    return st.builds(partial(pairs_of, n=1), st.sampled_from(sorted(FAMILIES)), seed=st.integers(0, 2**32 - 1))
