from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focaldet.data.warp import FILL, place, resize_bilinear

sides = st.integers(1, 90)


@settings(max_examples=150)
@given(old=st.tuples(sides, sides), new=st.tuples(sides, sides), channels=st.sampled_from([1, 3, 4]), data=st.data())
def test_resize_equals_opencv_within_a_level(
    old: tuple[int, int], new: tuple[int, int], channels: int, data: st.DataObject
) -> None:
    cv2 = pytest.importorskip("cv2")
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    top = data.draw(st.sampled_from([2, 256]))  # of 2: black and white, the sharpest edges there are
    image = (rng.integers(0, top, (*old, channels)) * (255 // (top - 1))).astype(np.uint8)
    reference = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR).reshape(*new, channels)
    assert np.abs(resize_bilinear(image, new).astype(int) - reference).max() <= 1


@pytest.mark.parametrize(
    ("old", "new"), [((480, 640), (800, 1067)), ((427, 640), (800, 1199)), ((1200, 900), (480, 360))]
)
def test_resize_of_ordinary_pictures(old: tuple[int, int], new: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (*old, 3), dtype=np.uint8)
    reference = cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(resize_bilinear(image, new).astype(int) - reference).max() <= 1


def test_the_same_size_is_the_same_picture() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert resize_bilinear(image, (5, 7)) is image


def test_flat_pictures_stay_flat() -> None:
    assert (resize_bilinear(np.full((9, 13, 3), 201, dtype=np.uint8), (31, 8)) == 201).all()


IMAGE = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        (np.eye(3), IMAGE),
        (np.array([[-1.0, 0, 10], [0, 1, 0], [0, 0, 1]]), IMAGE[:, ::-1]),
        (np.array([[1.0, 0, 0], [0, -1, 6], [0, 0, 1]]), IMAGE[::-1]),
        (np.array([[0.0, 1, 0], [1, 0, 0], [0, 0, 1]]), IMAGE.transpose(1, 0, 2)),
        (np.array([[0.0, -1, 6], [1, 0, 0], [0, 0, 1]]), np.rot90(IMAGE, -1)),
        (np.array([[0.0, 1, 0], [-1, 0, 10], [0, 0, 1]]), np.rot90(IMAGE)),
    ],
)
def test_exact_moves(matrix: np.ndarray, expected: np.ndarray) -> None:
    placement = place(matrix, IMAGE.shape[:2], expected.shape[:2])
    assert np.array_equal(placement.apply(IMAGE), expected)
    assert np.array_equal(placement.matrix, matrix)


def test_shift_crops_and_fills() -> None:
    matrix = np.array([[1.0, 0, 3], [0, 1, -2], [0, 0, 1]])
    moved = place(matrix, (6, 10), (6, 10)).apply(IMAGE)
    assert np.array_equal(moved[:4, 3:], IMAGE[2:, :7])
    assert (moved[4:] == FILL).all()
    assert (moved[:, :3] == FILL).all()


@given(
    scale=st.floats(0.3, 3),
    shift=st.tuples(st.floats(-20, 20), st.floats(-20, 20)),
    mirror=st.tuples(st.booleans(), st.booleans()),
    transpose=st.booleans(),
)
def test_whole_pixels_are_close_to_the_matrix_and_the_pixels_follow_them(
    scale: float, shift: tuple[float, float], mirror: tuple[bool, bool], transpose: bool
) -> None:
    source, size = (60, 80), (64, 64)
    width, height = source if transpose else source[::-1]
    flip_x = np.array([[-1.0, 0, width], [0, 1, 0], [0, 0, 1]]) if mirror[0] else np.eye(3)
    flip_y = np.array([[1.0, 0, 0], [0, -1, height], [0, 0, 1]]) if mirror[1] else np.eye(3)
    swap = np.eye(3)[[1, 0, 2]] if transpose else np.eye(3)
    matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]], [0, 0, 1]]) @ flip_x @ flip_y @ swap
    placement = place(matrix, source, size)
    canvas = placement.apply(np.full((*source, 1), 255, dtype=np.uint8))[:, :, 0]
    corners = np.array([[0, 0, 1], [source[1], source[0], 1]]).T
    wanted, got = (np.sort((m @ corners)[:2], axis=1).clip(0, 64) for m in (matrix, placement.matrix))
    # a border moves by half a pixel of the canvas, and by half one of the picture times the scale
    assert np.abs(wanted - got).max() <= 0.51 + 0.51 * max(scale, 1) * 64 / min(60 * scale, 64)
    rows, columns = np.nonzero(canvas == 255)
    (x1, x2), (y1, y2) = got
    shown = np.array([columns.min() - x1, columns.max() + 1 - x2, rows.min() - y1, rows.max() + 1 - y2])
    assert np.abs(shown).max() <= 0.51 + 0.51 * max(
        scale, 1
    )  # what is left out of whole pixels at the picture's border


def refuse_read_only(convert: Callable[[Any], Any], array: Any) -> Any:
    assert array.flags.writeable
    return convert(array)


@pytest.mark.parametrize("channels", [1, 3])
def test_read_only_pictures_are_resized_without_a_warning(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 9, channels), dtype=np.uint8)
    expected = resize_bilinear(image, (7, 20))
    monkeypatch.setattr(torch, "from_numpy", partial(refuse_read_only, torch.from_numpy))  # it warns once a process
    image.setflags(write=False)
    assert np.array_equal(resize_bilinear(image, (7, 20)), expected)
    assert not image.flags.writeable
