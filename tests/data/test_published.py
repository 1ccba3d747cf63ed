from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focaldet.data.batch import normalize
from focaldet.data.dataset import Dataset, Objects, build_dataset
from focaldet.data.published import (
    OriginalSteps,
    PublishedSteps,
    extend_with_black,
    flip_sample,
    hboxes_to_corners,
    keep_ratio_size,
    resize_sample,
    resize_sample_legacy,
    short_side_size,
    training_view,
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


def dataset_of(boxes: list[list[float]], **flags: list[float]) -> Dataset:
    """One picture of 40 x 60 with the boxes, one without objects, one of 31 x 60 with a box."""
    count = len(boxes)
    return build_dataset(
        classes=["thing"],
        format="coco",
        split="train",
        source=Path("made.json"),
        folder=Path(),
        names=["a", "b", "c"],
        sizes=np.array([(40, 60), (40, 60), (31, 60)]),
        objects=Objects(
            pictures=np.array([0] * count + [2]),
            boxes=np.array([*boxes, [1, 1, 9, 9]], dtype=np.float64),
            labels=np.zeros(count + 1, dtype=np.int64),
            areas=np.array([*flags["areas"], 81.0]) if "areas" in flags else None,
            ignore=np.array([*flags["ignore"], 0], dtype=bool) if "ignore" in flags else None,
        ),
    )


@pytest.mark.parametrize(
    ("box", "kept"),
    [
        ([0, 0, 10, 10], True),
        ([0, 0, 1, 1], True),
        ([0, 0, 0.99, 10], False),
        ([0, 0, 10, 0.99], False),
        ([60, 5, 10, 10], False),  # touches the border from outside
        ([59.5, 5, 10, 10], True),
        ([-10, 5, 10, 10], False),
        ([-9.5, 5, 10, 10], True),
        ([5, 40, 10, 10], False),
        ([5, -3, 10, 10], True),
    ],
)
def test_which_boxes_are_trained_on(box: list[float], kept: bool) -> None:
    assert training_view(dataset_of([box])).counts.tolist() == [int(kept)]


def test_marked_objects_and_those_without_area_are_left_out_but_their_picture_stays() -> None:
    box = [0.0, 0.0, 10.0, 10.0]
    view = training_view(dataset_of([box, box], areas=[0.0, 100.0], ignore=[0, 1]))
    assert view.ids.tolist() == [1]
    assert view.counts.tolist() == [0]


def test_empty_pictures_only_where_asked_for_and_small_ones_never() -> None:
    dataset = dataset_of([[0, 0, 10, 10]])
    assert training_view(dataset).ids.tolist() == [1]
    assert training_view(dataset, empty_pictures=True).ids.tolist() == [1, 2]
    crowded = replace(dataset, crowd=np.ones(2, dtype=bool))
    assert training_view(crowded).counts.tolist() == [1]


# --- DOTA rows ---


def rotated_sample(image: np.ndarray, polygons: np.ndarray) -> Sample:
    sample = sample_of(image, [[0, 0, 1, 1]] * len(polygons))
    return replace(sample, corners=polygons.reshape(-1, 4, 2).astype(np.float32), rotated=True)


@pytest.fixture
def units(golden: Path) -> Any:
    return np.load(golden / "tf/unit/rtr.npz")


@pytest.mark.golden
@pytest.mark.parametrize("case", ["sq", "wide", "tall", "down"])
def test_legacy_resize_equals_the_original(units: Any, case: str) -> None:
    def of(name: str) -> np.ndarray:
        return np.asarray(units[f"short_side_resize.{case}.{name}"])

    short, longest = of("in.args").tolist()
    sample = rotated_sample(of("in.img"), of("in.gt")[:, :8])
    moved = resize_sample_legacy(sample, short_side_size(sample.size, (longest, short)))
    assert moved.size == (int(of("out.2")), int(of("out.3")))
    assert moved.image.dtype == np.float32
    # two roundings of float32 at 255, where the original rounds in another order
    assert np.abs(moved.image - of("out.0")).max() <= 2 * np.spacing(np.float32(255))
    assert np.array_equal(moved.corners.reshape(-1, 8), of("out.1")[:, :8])


@pytest.mark.golden
def test_flip_equals_the_original(units: Any) -> None:
    sample = rotated_sample(units["flip_left_to_right.in.img"], units["flip_left_to_right.in.gt"][:, :8])
    flipped = flip_sample(sample)
    assert np.array_equal(flipped.image, units["flip_left_to_right.out.0"])
    assert np.array_equal(flipped.corners.reshape(-1, 8), units["flip_left_to_right.out.1"][:, :8])


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
