"""Painted masks beside OpenCV's stored answers and the original program's; what takes no part in them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.geometry.kernels import choose
from focaldet.structures import IGNORED, Truth
from focaldet.targets import painting
from focaldet.targets.masks import build_masks

OPENCV = [
    ("inside", [[1, 1], [6, 2], [5, 4], [0, 3]], "00000000 01110000 11111110 11111110 00011100 00000000"),
    ("thin", [[0, 0], [8, 3], [8, 4], [0, 1]], "110000000 111110000 001111100 000001111 000000011"),
    ("steep", [[0, 0], [1, 0], [3, 8], [2, 8]], "1100 1100 1110 0110 0110 0110 0111 0011 0011"),
    ("upright", [[1, 1], [3, 1], [3, 2], [1, 2]], "00000 01110 01110 00000"),
    ("point", [[1, 1], [1, 1], [1, 1], [1, 1]], "000 010 000"),
    ("line", [[0, 3], [5, 1], [5, 1], [0, 3]], "000000 000011 001100 110000"),
    ("left above", [[-4, 1], [2, -5], [5, -1], [-1, 4]], "111110 111100 111000 110000 100000"),
    ("right below", [[3, 2], [9, 1], [12, 9], [4, 7]], "000000 000001 000111 000111 000111"),
    ("all over", [[-9, -7], [11, -8], [12, 9], [-10, 10]], "1111 1111 1111"),
    ("across", [[-6, 5], [10, -5], [11, -4], [-5, 6]], "0011110 1111100 1110000 1000000"),
    ("corner cut", [[-3, -1], [-1, -3], [3, 1], [1, 3]], "11100 11110 11100 01000 00000"),
    ("outside", [[5, 0], [7, 0], [7, 2], [5, 2]], "0000 0000 0000"),
    ("far away", [[-1048576, 1], [2, -1048576], [1048576, 1], [2, 1048576]], "1111 1111 1111"),
    ("dented", [[0, 0], [7, 1], [3, 2], [2, 6]], "11110000 11111111 01111100 01110000 01110000 00100000 00100000"),
    ("crossed", [[0, 0], [6, 4], [6, 0], [0, 5]], "1000001 1110011 1111101 1111111 1111111 1000000"),
]
"""What `cv2.fillConvexPoly` of OpenCV 4.6 and 5.0 paints: corners, then the map row by row."""


@cache
def plain() -> ModuleType:
    """The same text as it stands, as on a machine without numba."""
    spec = importlib.util.find_spec("focaldet.targets.painting")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(choose, "why_not", lambda _: "left out"):
        spec.loader.exec_module(module)
    return module


def painted(module: ModuleType, quad: list[list[int]], height: int, width: int) -> np.ndarray:
    grid = np.zeros((height, width), np.int64)
    module.paint(grid, np.array([quad]), np.array([1]))
    return grid


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("quad", "rows"), [case[1:] for case in OPENCV], ids=[case[0] for case in OPENCV])
def test_paints_as_opencv_does(quad: list[list[int]], rows: str, compiled: bool) -> None:
    expected = np.array([list(map(int, row)) for row in rows.split()])
    assert np.array_equal(painted(painting if compiled else plain(), quad, *expected.shape), expected)


coordinates = st.integers(-12, 24) | st.integers(-(2**30), 2**30)
quads = st.lists(st.tuples(coordinates, coordinates).map(list), min_size=4, max_size=4)


@given(quads, st.integers(1, 16), st.integers(1, 16))
def test_both_back_ends_paint_the_same(quad: list[list[int]], height: int, width: int) -> None:
    assert np.array_equal(painted(painting, quad, height, width), painted(plain(), quad, height, width))


@given(quads)
def test_corners_are_painted_and_nothing_beyond_them(quad: list[list[int]]) -> None:
    rows, columns = painted(painting, quad, 12, 12).nonzero()
    x, y = zip(*quad, strict=True)
    corners = {(at[1], at[0]) for at in quad if min(at) >= 0 and max(at) < 12}
    assert corners <= set(zip(rows.tolist(), columns.tolist(), strict=True))
    assert all(min(x) <= column <= max(x) for column in columns) and all(min(y) <= row <= max(y) for row in rows)


@pytest.mark.parametrize("start", [1, 2, 3])
def test_where_the_corners_start_does_not_matter(start: int) -> None:
    rectangle = [[0, 3], [4, 0], [10, 8], [6, 11]]
    moved = rectangle[start:] + rectangle[:start]
    assert np.array_equal(painted(painting, rectangle, 12, 12), painted(painting, moved, 12, 12))


@pytest.mark.golden
def test_equals_the_original_program(golden: Path) -> None:
    with np.load(golden / "tf" / "unit" / "r3d.npz") as stored:
        sizes = (32, 16, 8, 4, 2)
        expected = {size: stored[f"make_r_gt_mask.{size}.out"] for size in sizes}
        boxes = stored["make_r_gt_mask.in.gt_r"].astype(np.float64)
    boxes[:, 4] = np.radians(boxes[:, 4])
    truth = Truth(torch.from_numpy(boxes[:, :5]).float(), torch.from_numpy(boxes[:, 5]).long() - 1)
    for size, mask in zip(sizes, build_masks([truth], [(size, size) for size in sizes], (256, 256)), strict=True):
        assert np.array_equal(mask[0].numpy(), expected[size]), size


def _truth(*boxes: list[float], ignored: list[bool] | None = None) -> Truth:
    labels = torch.arange(len(boxes)) + 2
    return Truth(torch.tensor(boxes).reshape(-1, 5), labels, None if ignored is None else torch.tensor(ignored))


SMALL, LARGE = [12.0, 12.0, 8.0, 8.0, 0.0], [16.0, 16.0, 24.0, 24.0, 0.0]


def test_small_boxes_stay_visible_whatever_their_order() -> None:
    first, second = (
        build_masks([_truth(*boxes)], [(8, 8)], (32, 32))[0][0] for boxes in ((SMALL, LARGE), (LARGE, SMALL))
    )
    assert (first[2:5, 2:5] == 3).all() and (first[1, 1:8] == 4).all()
    assert (second[2:5, 2:5] == 4).all() and (second[1, 1:8] == 3).all()


def test_binary_masks_tell_objects_from_background() -> None:
    classes, binary = (
        build_masks([_truth(SMALL, LARGE)], [(8, 8)], (32, 32), kind=kind)[0] for kind in ("classes", "binary")
    )
    assert torch.equal(binary, (classes > 0).long()) and classes.unique().tolist() == [0, 3, 4]


def test_ignored_objects_are_background_or_take_no_part() -> None:
    truth = _truth(SMALL, LARGE, ignored=[True, False])
    unpainted, left_out = (build_masks([truth], [(8, 8)], (32, 32), leave_out=flag)[0][0] for flag in (False, True))
    assert unpainted.unique().tolist() == [0, 4]
    assert (left_out[2:5, 2:5] == IGNORED).all() and left_out.unique().tolist() == [IGNORED, 0, 4]


def test_places_beyond_a_picture_take_no_part() -> None:
    valid = torch.zeros(2, 16 + 4, dtype=torch.bool)
    valid[0] = True
    valid[1, :8] = valid[1, 16:18] = True  # the upper half
    fine, coarse = build_masks([_truth(LARGE), _truth()], [(4, 4), (2, 2)], (32, 32), valid=valid)
    assert (fine[0] >= 0).all() and (coarse[0] >= 0).all()
    assert (fine[1, :2] == 0).all() and (fine[1, 2:] == IGNORED).all()
    assert coarse[1].tolist() == [[0, 0], [IGNORED, IGNORED]]


def test_boxes_of_any_size_and_place_and_none_at_all() -> None:
    odd = _truth([4.0, 4.0, 0.0, 0.0, 0.3], [5.0, 5.0, 1e9, 1e9, 0.7], [-1e9, 3.0, 5.0, 5.0, 0.0])
    some, none = (build_masks([truth], [(3, 5)], (24, 40))[0] for truth in (odd, _truth()))
    assert some.unique().tolist() == [3, 4] and some[0, 0, 0] == 3  # the point lies on the largest box
    assert not none.any()
