"""Quadrilaterals as annotated: areas and overlaps beside exact fractions, in both texts of the formula."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry import quads as module
from focaldet.geometry.polygon import polygon_to_rbox
from focaldet.geometry.quads import cross_themselves, measure_quads, overlapping_pairs, quad_areas, shared_areas
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.geometry.rotated_iou import rotated_iou

Point = tuple[Fraction, Fraction]
points = st.tuples(st.integers(0, 12), st.integers(0, 12))
quads = st.lists(points, min_size=4, max_size=4)


@pytest.fixture(params=["numba", "numpy"])
def text(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Run a test with the compiled text and with the one that needs no numba."""
    monkeypatch.setattr(module, "_numba", lambda: request.param == "numba")
    return str(request.param)


def turn(a: Point, b: Point, c: Point) -> Fraction:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def triangles(quad: list[Point]) -> Iterator[list[Point]]:
    """Cut a simple quadrilateral along the diagonal that lies inside."""
    a, b, c, d = quad
    inside = turn(a, b, c) * turn(a, c, d) >= 0
    for three in ([a, b, c], [a, c, d]) if inside else ([b, c, d], [b, d, a]):
        yield three if turn(*three) >= 0 else three[::-1]


def clipped_area(subject: list[Point], clip: list[Point]) -> Fraction:
    """Sutherland and Hodgman's clipping of a triangle by another, in fractions."""
    for a, b in zip(clip, clip[1:] + clip[:1], strict=True):
        kept = []
        for p, q in zip(subject, subject[1:] + subject[:1], strict=True):
            here, there = turn(a, b, p), turn(a, b, q)
            if here >= 0:
                kept.append(p)
            if here * there < 0:
                share = here / (here - there)
                kept.append((p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])))
        subject = kept
    return abs(sum((turn(subject[0], p, q) for p, q in itertools.pairwise(subject)), Fraction(0))) / 2


def exact_shared(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> Fraction:
    exact = [[(Fraction(x), Fraction(y)) for x, y in quad] for quad in (one, other)]
    pairs = [(a, b) for a in triangles(exact[0]) for b in triangles(exact[1]) if turn(*a) and turn(*b)]
    return sum((clipped_area(a, b) for a, b in pairs), Fraction(0))


@given(one=quads, other=quads)
def test_shared_area_is_that_of_exact_clipping(one: list[tuple[int, int]], other: list[tuple[int, int]]) -> None:
    """Convex or dented, in either turn, with sides in common or corners on sides."""
    both = np.array([one, other], dtype=np.float64)
    assume(not cross_themselves(both).any())
    exact = float(exact_shared(one, other))
    assert shared_areas(both[:1], both[1:])[0] == pytest.approx(exact, abs=1e-12)  # of areas up to 144
    from focaldet.geometry.kernels.pairs import shared_area

    assert shared_area(both[0], both[1]) == pytest.approx(exact, abs=1e-12)
    assert shared_areas(both[:1], both[:1])[0] == pytest.approx(quad_areas(both)[0], abs=1e-12)


def test_rectangles_overlap_as_rotated_iou_says(text: str) -> None:
    rng = np.random.default_rng(0)
    boxes = [
        torch.from_numpy(np.column_stack([rng.uniform(0, 60, (n, 2)), rng.uniform(4, 30, (n, 2)), rng.normal(0, 3, n)]))
        for n in (60, 40)
    ]
    polygons = [rbox_to_polygon(some).view(-1, 4, 2).numpy() for some in boxes]
    segments = [rng.integers(0, 3, len(some)) for some in boxes]
    i, j, ious = overlapping_pairs(polygons[0], segments[0], polygons[1], segments[1])
    found = np.zeros((60, 40))
    found[i, j] = ious
    expected = rotated_iou(*boxes).numpy() * (segments[0][:, None] == segments[1])
    assert np.abs(found - expected).max() < 1e-12
    assert (np.diff(i) >= 0).all()
    assert len(i) == (expected > module.NOTHING).sum() > 100
    i, j, ious = overlapping_pairs(polygons[0], segments[0], polygons[1], segments[1], floor=0.3)
    pairs = {(a, b) for a, b in zip(i.tolist(), j.tolist(), strict=True)}
    assert pairs == set(map(tuple, np.argwhere(expected >= 0.3).tolist()))
    assert ious.min() >= 0.3


def test_a_share_exactly_at_the_floor_is_listed(text: str) -> None:
    here, half = [[0, 0], [10, 0], [10, 10], [0, 10]], [[0, 0], [10, 0], [10, 5], [0, 5]]
    one, other = np.array([here], dtype=float), np.array([half], dtype=float)
    assert overlapping_pairs(one, np.array([3]), other, np.array([3]), floor=0.5)[2].tolist() == [0.5]


def test_what_overlaps_nothing(text: str) -> None:
    flat, bow = [[0, 0], [9, 0], [4, 0], [2, 0]], [[0, 0], [9, 0], [0, 9], [9, 9]]
    square, beside = [[0, 0], [9, 0], [9, 9], [0, 9]], [[9, 0], [18, 0], [18, 9], [9, 9]]
    some, one = np.array([flat, bow, beside], dtype=float), np.array([square], dtype=float)
    for quads1, quads2 in ((some, one), (one, some), (one, one[:0]), (one[:0], one)):
        segments = [np.zeros(len(quads), np.int64) for quads in (quads1, quads2)]
        assert [len(part) for part in overlapping_pairs(quads1, segments[0], quads2, segments[1])] == [0, 0, 0]
    assert len(overlapping_pairs(one, np.array([0]), one, np.array([1]))[0]) == 0  # another picture
    assert len(overlapping_pairs(one, np.array([-1]), one, np.array([-1]))[0]) == 0


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_many_in_one_picture_and_far_from_the_origin(text: str, shift: float) -> None:
    """Every overlap is found however the hulls are spread; far away the corners themselves are rounded to 1e-10."""
    rng = np.random.default_rng(1)
    center, sides = rng.uniform(0, 300, (2, 150, 2)), rng.lognormal(2.5, 1, (2, 150, 2))
    boxes = [
        torch.from_numpy(np.column_stack([c, s, rng.normal(0, 3, 150)])) for c, s in zip(center, sides, strict=True)
    ]
    expected = rotated_iou(*boxes).numpy()
    polygons = [rbox_to_polygon(some).view(-1, 4, 2).numpy() + shift for some in boxes]
    i, j, ious = overlapping_pairs(polygons[0], np.zeros(150, int), polygons[1], np.zeros(150, int))
    found = np.zeros((150, 150))
    found[i, j] = ious
    assert np.abs(found - expected).max() < (1e-9 if shift else 1e-12)


@given(quad=quads)
def test_both_texts_measure_the_same(quad: list[tuple[int, int]]) -> None:
    array = np.array([quad]) / 7
    compiled = measure_quads(array)
    assert compiled.areas[0] == pytest.approx(quad_areas(array)[0], abs=1e-9)
    rectangle = polygon_to_rbox(torch.from_numpy(array.reshape(1, 8)))[0, 2:4].prod()
    assert compiled.rectangles[0] == pytest.approx(float(rectangle), abs=1e-8)
    assert compiled.rectangles[0] >= compiled.areas[0] * (1 - 1e-9) - 1e-9 or compiled.crossing[0]


def test_crossing_and_flat(text: str) -> None:
    dented, touching = [[0, 0], [4, 0], [1, 1], [0, 4]], [[0, 0], [4, 0], [4, 0], [0, 4]]
    bows = [[[0, 0], [4, 4], [4, 0], [0, 4]], [[0, 0], [4, 0], [0, 4], [4, 4]]]
    line = [[0, 0], [1, 0.1], [2, 0.2], [3, 0.3]]
    measures = measure_quads(np.array([dented, touching, *bows, line], dtype=np.float64))
    assert measures.crossing.tolist() == [False, False, True, True, False]
    assert measures.areas[[0, 1, 4]].tolist() == [4.0, 8.0, 0.0]
    assert measures.rectangles[[0, 1]].tolist() == pytest.approx([16.0, 16.0])
    assert len(measure_quads(np.zeros((0, 4, 2))).areas) == 0


def test_wrong_arguments() -> None:
    one = np.zeros((1, 4, 2))
    with pytest.raises(FocaldetError, match=r"quads has shape \(1, 8\); give quadrilaterals of shape \(N, 4, 2\)"):
        quad_areas(np.zeros((1, 8)))
    with pytest.raises(FocaldetError, match=r"quads1\[1\] is \[nan, .*; give finite numbers"):
        overlapping_pairs(np.concatenate([one, one * np.nan]), np.zeros(2, int), one, np.zeros(1, int))
    with pytest.raises(FocaldetError, match="1 and 1 quadrilaterals need as many segments"):
        overlapping_pairs(one, np.zeros(2, int), one, np.zeros(1, int))
