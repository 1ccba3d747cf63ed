"""Sizes and pictures as torchvision and detectron2 make them."""

from __future__ import annotations

import numpy as np
import PIL.Image
import pytest
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from focaldet.data.neighbours import cut_size, draw_limits, resize_as_pillow, resize_as_torch, rounded_size
from focaldet.data.transforms import build_transform
from focaldet.engine.detector import as_sample
from focaldet.errors import UsageError
from focaldet.structures import Truth

SIZES = [(427, 640), (640, 427), (333, 500), (480, 640), (612, 612), (100, 900), (901, 77), (1080, 1920), (37, 41)]


@pytest.mark.parametrize("size", SIZES)
def test_pictures_and_boxes_are_torchvisions(size: tuple[int, int]) -> None:
    limits = (333, 200)
    theirs = GeneralizedRCNNTransform(min(limits), max(limits), [0.0] * 3, [1.0] * 3)
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    boxes = torch.tensor([[3.0, 4.5, size[1] - 2, size[0] - 7]])
    target = {"boxes": boxes, "labels": torch.tensor([1])}
    expected, moved = theirs.resize(torch.from_numpy(image).permute(2, 0, 1) / 255, target)
    assert cut_size(size, limits) == tuple(expected.shape[1:])
    steps = build_transform((limits,), train=False, resize="torch")
    sample = steps(as_sample(image, 0, Truth(boxes, torch.tensor([0]))), np.random.default_rng(0))
    assert sample.image.dtype == np.float32
    np.testing.assert_allclose(sample.image / 255, expected.permute(1, 2, 0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(sample.hboxes, moved["boxes"], rtol=1e-6)


def detectron2_size(size: tuple[int, int], limits: tuple[int, int]) -> tuple[int, int]:
    """The rule in two steps, as it is described: the shorter side fits, then the longer one is brought within."""
    height, width = size
    short, longest = min(limits), max(limits)
    sides = (short, width * short / height) if height < width else (height * short / width, short)
    if max(sides) > longest:
        sides = (sides[0] * longest / max(sides), sides[1] * longest / max(sides))
    return int(sides[0] + 0.5), int(sides[1] + 0.5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("limits", [(1333, 800), (1333, 640), (333, 200)])
def test_sizes_are_detectron2s(size: tuple[int, int], limits: tuple[int, int]) -> None:
    assert rounded_size(size, limits) == detectron2_size(size, limits)


def test_pictures_are_pillows() -> None:
    image = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    for size in ((31, 47), (100, 150)):
        expected = PIL.Image.fromarray(image).resize(size[::-1], PIL.Image.Resampling.BILINEAR)
        assert np.array_equal(resize_as_pillow(image, size), np.asarray(expected))
    assert resize_as_pillow(image[:, :, :2], (31, 47)).shape == (31, 47, 2)
    assert resize_as_torch(image[:, ::-1], (31, 47)).shape == (31, 47, 3)


def test_sizes_between_are_whole_numbers_of_the_range() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_limits(((1333, 640), (1333, 800)), rng, between=True) for _ in range(2000)]
    assert {longest for longest, _ in drawn} == {1333}
    shortest = sorted({shortest for _, shortest in drawn})
    assert shortest == list(range(640, 801))


def test_only_training_draws_between() -> None:
    steps = build_transform(((90, 40), (90, 80)), ("flip",), train=True, between=True)
    image = np.zeros((40, 40, 3), np.uint8)
    sides = {steps(as_sample(image, 0), np.random.default_rng(seed)).size[0] for seed in range(40)}
    assert len(sides) > 15 and min(sides) >= 40 and max(sides) <= 80
    assert build_transform(((90, 80),), ("flip",), train=False, between=True)(
        as_sample(image, 0), np.random.default_rng(0)
    ).size == (80, 80)


@pytest.mark.parametrize("options", [{"resize": "torch"}, {"resize": "pillow"}, {"between": True}])
def test_other_augmentations_resize_otherwise(options: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"goes with augment=\[flip\] or none, not with flip, color"):
        build_transform(((90, 40), (90, 80)), ("flip", "color"), train=True, **options)  # type: ignore[arg-type]
