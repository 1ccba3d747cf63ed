from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from focaldet.models.anchors import AnchorShapes

SCALES = tuple(4.0 * 2.0 ** (step / 3) for step in range(3))
COCO = AnchorShapes(SCALES, (0.5, 1.0, 2.0), (8, 16, 32, 64, 128))


@pytest.fixture(scope="module")
def units(golden: Path) -> np.lib.npyio.NpzFile:
    return np.load(golden / "coco" / "units.npz")


@pytest.mark.golden
def test_shapes_are_the_stored_ones_bit_for_bit(units: np.lib.npyio.NpzFile) -> None:
    for level, stride in enumerate(COCO.strides, start=3):
        np.testing.assert_array_equal(COCO.level_shapes(stride).numpy(), units[f"anchors.base.p{level}"])


@pytest.mark.golden
def test_anchors_of_a_small_input_are_the_stored_ones_bit_for_bit(units: np.lib.npyio.NpzFile) -> None:
    grid = COCO.grid_for((256, 320))
    assert list(grid.counts) == units["anchors.256x320.counts"].tolist()
    np.testing.assert_array_equal(torch.cat(grid.levels()).numpy(), units["anchors.256x320"])


@pytest.mark.golden
def test_anchors_of_a_full_input_are_the_stored_ones_bit_for_bit(units: np.lib.npyio.NpzFile) -> None:
    grid = COCO.grid_for((800, 1344))
    assert list(grid.counts) == units["anchors.800x1344.counts"].tolist()
    anchors = torch.cat(grid.levels())[torch.from_numpy(units["anchors.800x1344.index"])]
    np.testing.assert_array_equal(anchors.numpy(), units["anchors.800x1344"])


@pytest.mark.golden
@pytest.mark.parametrize("size", [(224, 320), (256, 320)])
def test_places_of_a_padded_picture_are_the_stored_ones(units: np.lib.npyio.NpzFile, size: tuple[int, int]) -> None:
    grid = COCO.grid_for((256, 320))
    valid = []
    for (height, width), (rows, columns) in zip(grid.sizes, grid.places_within(size), strict=True):
        inside = np.zeros((height, width, COCO.num_anchors), dtype=bool)
        inside[:rows, :columns] = True
        valid.append(inside.reshape(-1))
    packed = units[f"anchors.valid.{size[0]}x{size[1]}"]
    np.testing.assert_array_equal(np.packbits(np.concatenate(valid)), packed)


def test_each_level_is_twice_the_one_below() -> None:
    for stride in COCO.strides[:-1]:
        torch.testing.assert_close(COCO.level_shapes(2 * stride), 2 * COCO.level_shapes(stride), rtol=0, atol=0)


def test_an_offset_moves_every_centre_by_its_share_of_a_stride() -> None:
    moved = AnchorShapes(SCALES, (1.0,), (8,), offset=0.5).grid_for((16, 24)).level(0)
    plain = AnchorShapes(SCALES, (1.0,), (8,)).grid_for((16, 24)).level(0)
    torch.testing.assert_close(moved, plain + 4)


def test_shapes_travel_to_worker_processes() -> None:
    assert pickle.loads(pickle.dumps(COCO)) == COCO
