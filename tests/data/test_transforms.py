from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focaldet.data.published import OriginalSteps, PublishedSteps, hboxes_to_corners
from focaldet.data.transforms import (
    AUGMENTATIONS,
    Affine,
    Color,
    Flip,
    Grey,
    Pipeline,
    Resize,
    Rotate,
    Rotate90,
    VFlip,
    build_transform,
    move,
)
from focaldet.errors import UsageError
from focaldet.structures import Sample

GEOMETRIC = ["flip", "vflip", "rotate90", "affine"]


def scene(height: int, width: int, boxes: list[tuple[int, int, int, int]]) -> Sample:
    """A black picture in which each box (x1, y1, x2, y2) is filled with a level of its own."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for number, (x1, y1, x2, y2) in enumerate(boxes):
        image[y1:y2, x1:x2] = 255 - 40 * number
    count = len(boxes)
    return Sample(
        image=image,
        corners=hboxes_to_corners(np.array(boxes, dtype=np.float32).reshape(-1, 4)),
        labels=np.arange(count),
        crowd=np.zeros(count, dtype=bool),
        difficult=np.zeros(count, dtype=bool),
        id=1,
        index=0,
        name="scene",
        original=(height, width),
    )


@settings(max_examples=150)
@given(
    names=st.sets(st.sampled_from(GEOMETRIC)),
    size=st.tuples(st.integers(60, 120), st.integers(60, 120)),
    seed=st.integers(0, 10**6),
)
def test_boxes_move_with_the_pixels(names: set[str], size: tuple[int, int], seed: int) -> None:
    height, width = size
    box = (width // 3, height // 4, 2 * width // 3, 3 * height // 4)
    moved = build_transform(((96, 72),), sorted(names), train=True)(
        scene(height, width, [box]), np.random.default_rng(seed)
    )
    bright = (moved.image[:, :, 0] > 127) & (moved.image[:, :, 0] != 116)
    rows, columns = np.nonzero(bright)
    seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert len(moved.labels) == 1
    # where a level crosses the middle between box and ground, an edge is off by half a pixel and the rounding
    assert np.abs(moved.hboxes[0] - seen).max() <= 1.0


@pytest.mark.parametrize("name", GEOMETRIC)
def test_one_move_equals_the_steps_in_sequence_for_boxes(name: str) -> None:
    sample = scene(80, 120, [(10, 20, 60, 70)])
    for seed in range(20):
        steps = (Resize(((240, 160),)), AUGMENTATIONS[name]())
        joined = Pipeline(steps)(sample, np.random.default_rng(seed))
        rng, apart = np.random.default_rng(seed), sample
        for step in steps:
            apart = step(apart, rng)
        assert joined.size == apart.size
        assert len(joined.labels) == len(apart.labels)
        assert np.abs(joined.hboxes - apart.hboxes).max(initial=0) <= 2.0  # whole pixels of other sizes


def test_flips_and_quarter_turns_are_exact() -> None:
    image = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    sample = scene(30, 50, [(5, 10, 20, 25)])
    sample.image[:] = image
    rng = np.random.default_rng(0)
    flipped = Flip(1.0)(sample, rng)
    assert np.array_equal(flipped.image, image[:, ::-1])
    assert flipped.hboxes.tolist() == [[30, 10, 45, 25]]
    upside_down = VFlip(1.0)(sample, rng)
    assert np.array_equal(upside_down.image, image[::-1])
    assert upside_down.hboxes.tolist() == [[5, 5, 20, 20]]
    turned = {Rotate90(1.0)(sample, np.random.default_rng(seed)).image.tobytes() for seed in range(30)}
    assert turned == {np.ascontiguousarray(np.rot90(image, -k)).tobytes() for k in (1, 2, 3)}


def test_a_box_is_kept_by_its_visible_share() -> None:
    sample = scene(40, 40, [(0, 0, 10, 10), (20, 20, 30, 30)])
    left_by = [np.array([[1.0, 0, -shift], [0, 1, 0], [0, 0, 1]]) for shift in (7, 8, 10)]
    assert move(sample, left_by[0], (40, 40)).hboxes.tolist() == [[0, 0, 3, 10], [13, 20, 23, 30]]
    assert move(sample, left_by[1], (40, 40)).labels.tolist() == [1]
    assert move(sample, left_by[2], (40, 40)).labels.tolist() == [1]


def test_affine_scales_within_its_limits_and_keeps_the_canvas_full() -> None:
    for seed in range(100):
        matrix, size = Affine(probability=1.0).draw((60, 80), np.random.default_rng(seed))
        scale = matrix[0, 0]
        assert 0.7 <= scale <= 1.4
        assert size == (60, 80)
        low, high = matrix[:2, 2], matrix[:2, 2] + scale * np.array([80, 60])
        if scale > 1:  # the canvas lies within the picture
            assert (low <= 0).all() and (high >= (80, 60)).all()
        else:
            assert (low >= 0).all() and (high <= (80, 60)).all()


def test_colours_change_alike_everywhere_and_boxes_stay() -> None:
    sample = scene(20, 20, [(2, 3, 9, 9)])
    changed = [Color()(sample, np.random.default_rng(seed)) for seed in range(50)]
    assert any(not np.array_equal(other.image, sample.image) for other in changed)
    assert all(other.corners is sample.corners for other in changed)
    assert all(len(np.unique(other.image)) <= 2 for other in changed)


def test_grey_is_luminance() -> None:
    sample = scene(20, 20, [])
    sample.image[:] = (10, 200, 60)
    grey = Grey(1.0)(sample, np.random.default_rng(0))
    assert (grey.image == round(0.299 * 10 + 0.587 * 200 + 0.114 * 60)).all()
    one_channel = Sample(**{**vars(sample), "image": sample.image[:, :, :1]})
    assert Grey(1.0)(one_channel, np.random.default_rng(0)) is one_channel


def test_published_steps_where_only_they_are_asked_for() -> None:
    assert build_transform(((1333, 800),), ("flip",), train=True) == PublishedSteps(((1333, 800),), flip=True)
    assert build_transform([(1333, 800)], ("flip", "color"), train=False) == PublishedSteps(((1333, 800),), flip=False)
    original = build_transform([(800, 800)], ("flip",), train=True, resize="tensorflow", least=600)
    assert original == OriginalSteps(((800, 800),), flip=True)
    tested = build_transform([(800, 800)], ("flip",), train=False, resize="tensorflow", least=600)
    assert tested == OriginalSteps(((800, 800),), flip=False, least=600)


def test_the_original_augmentation_stands_alone() -> None:
    def original(train: bool) -> object:
        return build_transform(
            [(800, 800)], ["original"], train=train, resize="tensorflow", test_resize="opencv", least=600, coloured=2
        )

    assert original(True) == OriginalSteps(((800, 800),), flip=True, augment=True, coloured=2)
    assert original(False) == OriginalSteps(((800, 800),), flip=False, least=600, resize="opencv")
    with pytest.raises(
        UsageError, match=r"augment=\[original\] goes with resize='tensorflow', not with resize='opencv'"
    ):
        build_transform([(800, 800)], ["original"], train=True)
    with pytest.raises(UsageError, match=r"test_resize='tensorflow' goes with resize='tensorflow'"):
        build_transform([(800, 800)], train=False, test_resize="tensorflow")


def test_a_step_that_does_not_exist() -> None:
    with pytest.raises(UsageError, match=r"augment='rotat90' is not known \(did you mean 'rotate90'\?\)"):
        build_transform(((64, 64),), ("rotat90",), train=True)
    with pytest.raises(
        UsageError, match=r"resize='tensorflow' goes with augment=\[flip\], \[original\] or none, not with flip, grey"
    ):
        build_transform(((64, 64),), ("flip", "grey"), train=True, resize="tensorflow")


@pytest.mark.parametrize("names", [("affine", "color"), tuple(AUGMENTATIONS)])
def test_the_same_generator_gives_the_same_sample(names: tuple[str, ...]) -> None:
    sample = scene(60, 90, [(5, 5, 50, 50), (40, 20, 80, 55)])
    transform = build_transform(((64, 48), (80, 60)), names, train=True)
    one, other = (transform(sample, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.image, other.image)
    assert np.array_equal(one.corners, other.corners)


def test_scale_follows_the_picture() -> None:
    moved = Pipeline((Resize(((240, 160),)), Rotate90(1.0)))(scene(80, 120, []), np.random.default_rng(0))
    assert moved.scale == (2.0, 2.0)


# --- rotated objects ---


def turned_scene(height: int, width: int, angle: float, sides: tuple[float, float] = (40.0, 16.0)) -> Sample:
    """A black picture with one white rectangle in the middle, turned by an angle."""
    middle = np.array([width, height]) / 2
    along, across = np.array([np.cos(angle), np.sin(angle)]), np.array([-np.sin(angle), np.cos(angle)])
    x, y = np.meshgrid(np.arange(width) + 0.5 - middle[0], np.arange(height) + 0.5 - middle[1])
    inside = (abs(x * along[0] + y * along[1]) < sides[0] / 2) & (abs(x * across[0] + y * across[1]) < sides[1] / 2)
    ends = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    corners = [middle + s * sides[0] / 2 * along + t * sides[1] / 2 * across for s, t in ends]
    sample = scene(height, width, [(0, 0, 1, 1)])
    return Sample(
        **{
            **vars(sample),
            "image": np.where(inside[:, :, None], 255, 0).astype(np.uint8).repeat(3, axis=2),
            "corners": np.array([corners], dtype=np.float32),
            "rotated": True,
        }
    )


def directions(corners: np.ndarray) -> np.ndarray:
    """Direction of the first side, as a unit vector of the doubled angle: the same for both ways to go along it."""
    side = corners[1] - corners[0]
    angle = 2 * np.arctan2(side[1], side[0])
    return np.array([np.cos(angle), np.sin(angle)])


@settings(max_examples=100)
@given(
    names=st.sets(st.sampled_from([*GEOMETRIC, "rotate"])),
    size=st.tuples(st.integers(90, 130), st.integers(90, 130)),
    angle=st.floats(0, np.pi),
    seed=st.integers(0, 10**6),
)
def test_corners_move_with_the_pixels(names: set[str], size: tuple[int, int], angle: float, seed: int) -> None:
    """Centre and direction of the white pixels are those of the corners that come with them."""
    sample = turned_scene(*size, angle)
    moved = build_transform(((96, 96),), sorted(names), train=True)(sample, np.random.default_rng(seed))
    assert moved.rotated
    if len(moved.labels) == 0 or (moved.corners < 1).any() or (moved.corners > np.array(moved.size[::-1]) - 1).any():
        return  # a part is cut off: then pixels cannot tell the whole
    y, x = np.nonzero(moved.image[:, :, 0] > 185)  # above the grey of the canvas
    points = np.stack([x, y], axis=1) + 0.5
    # the threshold takes a third of a pixel off all round, and small rectangles have few pixels
    assert np.abs(points.mean(axis=0) - moved.corners[0].mean(axis=0)).max() < 0.6
    _, vectors = np.linalg.eigh(np.cov(points.T))
    main = vectors[:, 1]
    seen = np.array([main[0] ** 2 - main[1] ** 2, 2 * main[0] * main[1]])
    assert np.abs(seen - directions(moved.corners[0])).max() < 0.12


@pytest.mark.parametrize("name", [*GEOMETRIC, "rotate"])
def test_one_move_equals_the_steps_in_sequence_for_corners(name: str) -> None:
    for seed in range(10):
        sample = turned_scene(100, 120, 0.3)
        steps = (Resize(((96, 96),)), AUGMENTATIONS[name]())
        joined = Pipeline(steps)(sample, np.random.default_rng(seed))
        rng, apart = np.random.default_rng(seed), sample
        for step in steps:
            apart = step(apart, rng)
        assert np.abs(joined.corners - apart.corners).max(initial=0) <= 2.0


def test_flips_and_quarter_turns_of_corners_are_exact() -> None:
    sample = turned_scene(80, 100, 0.4)
    rng = np.random.default_rng(0)
    x, y = sample.corners[0].T
    assert np.array_equal(Flip(1.0)(sample, rng).corners[0], np.stack([100 - x, y], axis=1))
    assert np.array_equal(VFlip(1.0)(sample, rng).corners[0], np.stack([x, 80 - y], axis=1))
    quarter = move(sample, np.array([[0.0, -1, 80], [1, 0, 0], [0, 0, 1]]), (100, 80))
    assert np.array_equal(quarter.corners[0], np.stack([80 - y, x], axis=1))


def test_rotated_objects_are_kept_whole_or_dropped() -> None:
    sample = turned_scene(100, 100, 0.0, (40.0, 20.0))  # from (30, 40) to (70, 60)
    shift = np.array([[1.0, 0, -55], [0, 1, 0], [0, 0, 1]])
    moved = move(sample, shift, (100, 100))
    assert moved.corners[0, :, 0].tolist() == [-25, 15, 15, -25]  # 15 of 40 pixels are left, and nothing is cut
    shift[0, 2] = -59  # 11 of 40, less than 0.3
    assert len(move(sample, shift, (100, 100)).labels) == 0
    flipped = Flip(1.0)(moved, np.random.default_rng(0))
    half_out = move(flipped, np.array([[1.0, 0, 4], [0, 1, 0], [0, 0, 1]]), (100, 100))
    assert len(half_out.labels) == 1  # 11 of the 15 pixels that the picture showed
    thin = turned_scene(100, 100, 0.3, (40.0, 1.5))
    assert len(move(thin, np.diag([0.5, 0.5, 1.0]), (50, 50)).labels) == 0


def test_turning_by_any_angle() -> None:
    sample = turned_scene(90, 120, 0.0)
    for seed in range(20):
        matrix, size = Rotate(probability=1.0).draw((90, 120), np.random.default_rng(seed))
        assert size == (90, 120)
        assert np.allclose(matrix @ (60, 45, 1), (60, 45, 1))
        assert np.linalg.det(matrix[:2, :2]) == pytest.approx(1)
        turned = move(sample, matrix, size)
        sides = np.linalg.norm(turned.corners[0] - np.roll(turned.corners[0], -1, axis=0), axis=1)
        assert np.allclose(sides, (40, 16, 40, 16), atol=1e-4)  # float32 of numbers about 100
        assert turned.scale == pytest.approx((1.0, 1.0))
    assert (
        move(sample, Rotate(probability=1.0).draw((90, 120), np.random.default_rng(1))[0], (90, 120)).image == 116
    ).any()


def test_published_steps_keep_corners() -> None:
    sample = turned_scene(60, 80, 0.5)
    moved = build_transform(((160, 120),), ("flip",), train=True)(sample, np.random.default_rng(0))
    one_way, other = sample.corners * 2, sample.corners * (-2, 2) + (160, 0)
    assert any(np.array_equal(moved.corners, expected) for expected in (one_way, other.astype(np.float32)))
    assert moved.size == (120, 160)
