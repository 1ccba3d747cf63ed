from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldet.data.batch import normalize
from focaldet.data.opencv import resize_as_opencv
from focaldet.data.published import (
    TURNS_DEG,
    OriginalSteps,
    PublishedSteps,
    extend_with_black,
    flip_sample,
    flip_sample_vertically,
    grey_sample,
    hboxes_to_corners,
    keep_ratio_size,
    resize_as_tensorflow,
    resize_sample,
    resize_sample_original,
    short_side_size,
    turn_sample,
)
from focaldet.structures import Sample, round_up


def sample_of(image: np.ndarray, boxes: list[list[float]]) -> Sample:
    count = len(boxes)
    return Sample(
        image=image,
        corners=hboxes_to_corners(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
        labels=np.arange(count),
        crowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        id=1,
        index=0,
        name="made",
        original=image.shape[:2],
    )


@pytest.mark.golden
def test_sizes_and_factors_equal_the_table(golden: Path) -> None:
    for row in json.loads((golden / "coco/tables.json").read_text())["resize_keep_ratio"]:
        size = keep_ratio_size((row["h"], row["w"]), tuple(row["scale"]))
        assert size == (row["new_h"], row["new_w"])
        assert round_up(size, 32) == (row["pad_h"], row["pad_w"])
        resized = resize_sample(sample_of(np.zeros((row["h"], row["w"], 1), dtype=np.uint8), []), size)
        assert resized.scale == (row["scale_w"], row["scale_h"])
        assert resized.size == size


@pytest.mark.golden
def test_resized_pixels_equal_the_reference_within_a_level(golden: Path) -> None:
    units = np.load(golden / "coco/units.npz")
    sample = sample_of(units["resize.in"], [])
    resized = PublishedSteps(((133, 80),), flip=False)(sample, np.random.default_rng(0))
    assert resized.image.shape == units["resize.out"].shape
    # OpenCV rounds once, in fixed point, and torch once a pass (spec section 10: another library differs by a level)
    assert np.abs(resized.image.astype(int) - units["resize.out"]).max() <= 1


def test_boxes_are_multiplied_in_float32_then_clipped() -> None:
    sample = sample_of(np.zeros((480, 640, 3), dtype=np.uint8), [[10.3, 20.7, 300.1, 470.9], [-5, -5, 700, 500]])
    resized = resize_sample(sample, (800, 1067))
    factors = np.array([1067 / 640, 800 / 480] * 2, dtype=np.float32)
    assert np.array_equal(resized.hboxes[0], sample.hboxes[0] * factors)
    assert resized.hboxes[1].tolist() == [0, 0, 1067, 800]


def test_flip_mirrors_pixels_and_boxes() -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    flipped = flip_sample(sample_of(image, [[1, 2, 4, 5]]))
    assert np.array_equal(flipped.image, image[:, ::-1])
    assert flipped.hboxes.tolist() == [[6, 2, 9, 5]]
    assert flip_sample(flipped).hboxes.tolist() == [[1, 2, 4, 5]]


def test_half_of_the_pictures_are_flipped_and_sizes_are_drawn() -> None:
    image = np.tile(np.arange(64, dtype=np.uint8), (64, 1))[:, :, None]
    steps = PublishedSteps(((128, 64), (128, 96)), flip=True)
    seen = [steps(sample_of(image, []), np.random.default_rng(seed)) for seed in range(200)]
    flipped = sum(sample.image[0, 0, 0] > 32 for sample in seen)
    large = sum(sample.size == (96, 96) for sample in seen)
    # three standard deviations of 200 fair coins are 21
    assert 79 <= flipped <= 121
    assert 79 <= large <= 121


def test_nothing_random_happens_without_augmentation() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    steps = PublishedSteps(((60, 40),), flip=False)
    images = [steps(sample_of(image, []), np.random.default_rng(seed)).image for seed in range(5)]
    assert all(np.array_equal(images[0], other) for other in images)


# --- DOTA rows ---


def rotated_sample(image: np.ndarray, polygons: np.ndarray) -> Sample:
    sample = sample_of(image, [[0, 0, 1, 1]] * len(polygons))
    return replace(sample, corners=polygons.reshape(-1, 4, 2).astype(np.float32), rotated=True)


@pytest.fixture(scope="module", params=["rtr", "r3d"])
def units(golden: Path, request: pytest.FixtureRequest) -> Any:
    with np.load(golden / f"tf/unit/{request.param}.npz") as file:
        return dict(file)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["sq", "wide", "tall", "down"])
def test_legacy_resize_equals_the_original(units: Any, case: str) -> None:
    def of(name: str) -> np.ndarray:
        return np.asarray(units[f"short_side_resize.{case}.{name}"])

    short, longest = of("in.args").tolist()
    sample = rotated_sample(of("in.img"), of("in.gt")[:, :8])
    moved = resize_sample_original(sample, short_side_size(sample.size, (longest, short)), resize_as_tensorflow)
    assert moved.size == (int(of("out.2")), int(of("out.3")))
    assert moved.image.dtype == np.float32
    # two roundings of float32 at 255, where the original rounds in another order
    assert np.abs(moved.image - of("out.0")).max() <= 2 * np.spacing(np.float32(255))
    assert np.array_equal(moved.corners.reshape(-1, 8), of("out.1")[:, :8])


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "flip"), [("flip_left_to_right", flip_sample), ("flip_up_down", flip_sample_vertically)]
)
def test_flips_equal_the_original(units: Any, name: str, flip: Any) -> None:
    if f"{name}.in.img" not in units:
        pytest.skip("the older program had no such flip")
    flipped = flip(rotated_sample(units[f"{name}.in.img"], units[f"{name}.in.gt"][:, :8]))
    assert np.array_equal(flipped.image, units[f"{name}.out.0"])
    assert np.array_equal(flipped.corners.reshape(-1, 8), units[f"{name}.out.1"][:, :8])


@pytest.mark.golden
@pytest.mark.parametrize("angle", [-90, -75, -30, 0, 15, 45, 90])
def test_turns_equal_the_original(golden: Path, angle: int) -> None:
    units, name = np.load(golden / "tf/unit/r3d.npz"), f"rotate_img_np.{angle}"
    # the original's corners are whole numbers, ours become so
    turned = turn_sample(rotated_sample(units[f"{name}.in.img"], units[f"{name}.in.gt"][:, :8] + 0.25), angle)
    assert np.array_equal(turned.image, units[f"{name}.out.0"])
    assert np.array_equal(np.trunc(turned.corners).reshape(-1, 8), units[f"{name}.out.1"][:, :8])


@pytest.mark.golden
def test_network_input_is_as_recorded(golden: Path) -> None:
    picture = np.load(golden / "tf/inputs.npz")["image.c"]
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    expected = (picture / np.float32(255) - mean.astype(np.float32)) / std.astype(np.float32)
    assert expected.dtype == np.float32
    images = normalize([picture], mean * 255, std * 255, pad=1, unit_range=True)
    assert images.shape == (1, 3, *picture.shape[:2])
    assert np.array_equal(images[0].permute(1, 2, 0).numpy(), expected)
    floats = normalize([picture.astype(np.float32)], mean * 255, std * 255, pad=1, unit_range=True)
    assert np.array_equal(floats.numpy(), images.numpy())
    # the same numbers, rounded in another order
    assert np.abs(normalize([picture], mean * 255, std * 255, pad=1).numpy() - images.numpy()).max() < 1e-6


def test_corners_become_whole_numbers_first() -> None:
    polygons = np.array([[10.9, 20.2, 50.0, 20.7, 50.9, 35.1, -10.5, 35.9]])
    sample = rotated_sample(np.zeros((60, 60, 3), np.uint8), polygons)
    moved = OriginalSteps(((80, 80),), flip=False)(sample, np.random.default_rng(0))
    # 10 * 80 // 60 and so on; below zero floor division goes down
    assert moved.corners.reshape(-1).tolist() == [13, 26, 66, 26, 66, 46, -14, 46]
    assert moved.scale == (80 / 60, 80 / 60)
    assert moved.rotated


def test_small_tiles_are_stretched_in_training_and_extended_in_tests() -> None:
    sample = rotated_sample(np.full((30, 50, 3), 90, np.uint8), np.array([[0, 0, 50, 0, 50, 30, 0, 30.0]]))
    stretched = OriginalSteps(((80, 80),), flip=True)(sample, np.random.default_rng(0))
    assert stretched.size == (80, 80)
    assert stretched.corners.max() == 80
    assert (stretched.image == 90).all()
    tested = OriginalSteps(((80, 80),), flip=False, least=60)(sample, np.random.default_rng(0))
    assert tested.size == (80, 80)
    assert tested.corners[0, 2].tolist() == [66, 40]
    assert (tested.image[:39, :65] == 90).all() and (tested.image[41:] == 0).all()
    assert extend_with_black(sample.image, 30) is sample.image


def test_tests_may_resize_as_opencv() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)
    sample = rotated_sample(image, np.array([[0, 0, 50, 0, 50, 30, 0, 30.0]]))
    seen = OriginalSteps(((100, 80),), flip=False, resize="opencv")(sample, np.random.default_rng(0))
    assert seen.image.dtype == np.uint8
    assert np.array_equal(seen.image, resize_as_opencv(image, (80, 80)))
    assert seen.corners[0, 2].tolist() == [66, 40]


def test_small_pictures_may_be_truncated() -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    rounded, truncated = (
        OriginalSteps(((80, 80),), flip=False, least=60, resize=resize)(
            rotated_sample(image, np.zeros((0, 8))), np.random.default_rng(0)
        ).image.astype(int)
        for resize in ("opencv", "opencv-truncated")
    )
    assert set(np.unique(rounded - truncated)) == {0, 1}
    assert 0.3 < (rounded - truncated)[:, :50].mean() < 0.6  # about half of all are rounded up
    tall, enough = (
        OriginalSteps(((80, 80),), flip=False, least=40, resize=resize)(
            rotated_sample(image, np.zeros((0, 8))), np.random.default_rng(0)
        ).image
        for resize in ("opencv", "opencv-truncated")
    )
    assert np.array_equal(tall, enough)


def test_grey_is_luminance_in_float() -> None:
    image = np.tile(np.array([10, 200, 61], np.uint8), (4, 5, 1))
    grey = grey_sample(sample_of(image, []))
    assert np.allclose(grey.image, 0.299 * 10 + 0.587 * 200 + 0.114 * 61, rtol=1e-6)
    bands = sample_of(image[:, :, :2], [])
    assert grey_sample(bands) is bands


def full_steps(coloured: int | None = None) -> OriginalSteps:
    return OriginalSteps(((80, 80),), flip=True, augment=True, coloured=coloured)


def test_full_augmentation_comes_as_often_as_published() -> None:
    """A mark in one corner tells turns and flips; channels that differ tell grey."""
    image = np.zeros((80, 80, 3), np.uint8)
    image[:20, :40] = (250, 60, 0)
    count, grey, unturned = 400, 0, 0
    for seed in range(count):
        seen = full_steps()(rotated_sample(image, np.zeros((0, 8))), np.random.default_rng(seed)).image
        assert seen.shape == (80, 80, 3) and seen.dtype == np.float32
        grey += bool((seen[:, :, 0] == seen[:, :, 2]).all())
        views = [seen[::y, ::x].max(axis=2) for y in (1, -1) for x in (1, -1)]
        unturned += any((view[:20, :40] > 90).all() and not (view[20:].any() or view[:, 40:].any()) for view in views)
    # four standard deviations of 400 draws: of 0.3 they are 37, of the 0.4 + 0.6 / 14 that are not turned 40
    assert abs(grey - 0.3 * count) < 37
    assert abs(unturned - (0.4 + 0.6 / 14) * count) < 40


def test_pictures_with_a_pool_stay_coloured() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    sample = rotated_sample(image, np.array([[4, 4, 20, 4, 20, 20, 4, 20.0], [0, 0, 9, 0, 9, 9, 0, 9]]))  # labels 0, 1

    def share(coloured: int | None) -> float:
        seen = [full_steps(coloured)(sample, np.random.default_rng(seed)).image for seed in range(40)]
        return float(np.mean([(picture[:, :, 0] == picture[:, :, 1]).all() for picture in seen]))

    assert share(1) == 0
    assert share(2) > 0.1
    assert share(None) > 0.1


@given(angle=st.sampled_from(TURNS_DEG), height=st.integers(30, 70), width=st.integers(30, 70))
def test_a_turned_canvas_holds_the_picture(angle: int, height: int, width: int) -> None:
    """No corner is farther out than a pixel, which truncating takes; a bright object stays under its corners."""
    sample = rotated_sample(
        np.full((height, width, 1), 200, np.uint8), np.array([[0, 0, width, 0, width, height, 0, height]])
    )
    turned = turn_sample(sample, angle)
    assert (turned.corners >= -1.5).all()
    assert (turned.corners <= np.array(turned.size[::-1]) + 1.5).all()
    middle = turned.corners[0].mean(axis=0).astype(int)
    assert turned.image[middle[1], middle[0], 0] == 200
    assert turned.scale == sample.scale
