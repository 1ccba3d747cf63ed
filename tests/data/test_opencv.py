"""Resizing and turning against what OpenCV gave, stored; and in properties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldet.data.opencv import resize_as_opencv, warp_as_opencv
from focaldet.data.published import turn_matrix
from focaldet.data.warp import resize_bilinear

SIDES = st.integers(1, 60)


@pytest.mark.golden
def test_resizing_equals_opencv(golden: Path) -> None:
    units = np.load(golden / "coco/units.npz")
    assert np.array_equal(resize_as_opencv(units["resize.in"], units["resize.out"].shape[:2]), units["resize.out"])


@pytest.mark.golden
@pytest.mark.parametrize("angle", [-90, -75, -30, 15, 45, 90])
def test_turning_equals_opencv(golden: Path, angle: int) -> None:
    units, name = np.load(golden / "tf/unit/r3d.npz"), f"rotate_img_np.{angle}"
    picture = units[f"{name}.in.img"]
    assert np.array_equal(warp_as_opencv(picture, *turn_matrix(picture.shape[:2], angle)), units[f"{name}.out.0"])


@given(size=st.tuples(SIDES, SIDES), new=st.tuples(SIDES, SIDES), channels=st.integers(1, 4), seed=st.integers(0, 999))
def test_resizing_is_bilinear(size: tuple[int, int], new: tuple[int, int], channels: int, seed: int) -> None:
    """Within a level of another implementation, with nothing outside of what the picture holds."""
    image = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    resized = resize_as_opencv(image, new)
    # products are cut, not rounded, before they are added; the other rounds after each pass
    assert np.abs(resized.astype(int) - resize_bilinear(image, new)).max() <= 1
    assert resize_as_opencv(image, size) is image
    flat = np.full((*size, channels), 255, np.uint8)
    assert (resize_as_opencv(flat, new) >= 254).all()


@given(size=st.tuples(SIDES, SIDES), shift=st.tuples(st.integers(-70, 70), st.integers(-70, 70)))
def test_whole_shifts_move_pixels_exactly(size: tuple[int, int], shift: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).random((*size, 2), dtype=np.float32)
    matrix = np.array([[1.0, 0, shift[0]], [0, 1, shift[1]], [0, 0, 1]])
    moved = warp_as_opencv(picture, matrix, size)
    x, y = np.meshgrid(np.arange(size[1]) - shift[0], np.arange(size[0]) - shift[1])
    inside = (x >= 0) & (x < size[1]) & (y >= 0) & (y < size[0])
    assert np.array_equal(moved[inside], picture[y[inside], x[inside]])
    assert not moved[~inside].any()
