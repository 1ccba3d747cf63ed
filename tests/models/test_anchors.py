from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focaldet.models.anchors import COCO_ANCHORS, AnchorShapes, original_turned, original_upright

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


STORED_FORMS = {"none": "zero", "oc": "oc-negative", "le90": "le90", "le135": "le135"}


@pytest.mark.golden
@pytest.mark.parametrize("form", STORED_FORMS)
def test_rotated_anchors_are_the_stored_ones(form: str, golden: Path) -> None:
    stored = np.load(golden / "rotated" / "anchors.npz")
    sizes = [tuple(size) for size in stored["featmap_sizes"].tolist()]
    grid = AnchorShapes(SCALES, (1.0, 0.5, 2.0), COCO.strides, angle=STORED_FORMS[form]).grid(sizes)
    for number, anchors in enumerate(grid.levels()):
        expected = stored[f"{form}_level{number}"].copy()
        # The original measures the sides at each place and so rounds them: a square may come out a hair wider
        # than high, and is then written unturned. The same square either way.
        squares = np.abs(expected[:, 2] - expected[:, 3]) < 1e-4
        expected[squares, 4] = anchors.numpy()[squares, 4]
        np.testing.assert_allclose(anchors.numpy(), expected, rtol=3e-7, atol=2e-5)


def test_forms_of_rotated_anchors_name_the_same_boxes() -> None:
    upright = AnchorShapes(SCALES, (1.0, 0.5), (8,)).level_shapes(8)
    for form in ("zero", "oc", "oc-negative", "le90", "le135"):
        shapes = AnchorShapes(SCALES, (1.0, 0.5), (8,), angle=form).level_shapes(8).double()
        w, h, theta = shapes[:, 2:].unbind(1)
        half_x = (w * theta.cos() - 0).abs() / 2 + (h * theta.sin()).abs() / 2
        torch.testing.assert_close(half_x, upright[:, 2].double(), rtol=1e-6, atol=1e-5)
        if form.startswith("le"):
            assert (w >= h).all()


@pytest.mark.golden
def test_the_original_upright_anchors_are_the_stored_ones_bit_for_bit(golden: Path) -> None:
    complete = np.load(golden / "tf" / "net" / "retinanet_h_v4.npz")["a.anchors"]
    np.testing.assert_array_equal(torch.cat(original_upright().grid_for((256, 256)).levels()).numpy(), complete)
    units = np.load(golden / "tf" / "unit" / "rtr.npz")
    for stride in (8, 64):
        _check_corner_of_level(original_upright(), stride, units[f"anchors_h.stride{stride}"])


@pytest.mark.golden
def test_the_original_turned_anchors_are_the_stored_ones(golden: Path) -> None:
    complete = np.load(golden / "tf" / "net" / "retinanet_r_v1.npz")["a.anchors"]
    _check_degrees(torch.cat(original_turned().grid_for((256, 256)).levels()).numpy(), complete)
    for state, crossed in (("rtr", False), ("rtr_2019", True)):
        units = np.load(golden / "tf" / "unit" / f"{state}.npz")
        for stride in (8, 64):
            _check_corner_of_level(original_turned(crossed), stride, units[f"anchors_r.stride{stride}"])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["retinanet_h180_v15", "r3det_v1", "retinanet_r_iou_v5"])
def test_sampled_original_anchors_are_the_stored_ones(case: str, golden: Path) -> None:
    with np.load(golden / "tf" / "net" / f"{case}.npz") as file:
        shape, sample = file["a.anchors.shape"], file["a.anchors.sample"]
    shapes = original_turned() if case.startswith("retinanet_r") else original_upright()
    anchors = torch.cat(shapes.grid_for((256, 256)).levels()).double().numpy()
    assert anchors.shape == tuple(shape)
    if anchors.shape[1] == 5:
        anchors[:, 4] = np.degrees(anchors[:, 4])
    flat = anchors.reshape(-1)
    picked = flat[(np.arange(len(sample)) * 1_000_003) % len(flat)]
    np.testing.assert_allclose(picked, sample, rtol=1e-7, atol=4e-6)  # theta in radians is rounded to float32


def _check_corner_of_level(shapes: AnchorShapes, stride: int, stored: np.ndarray) -> None:
    """Compare the two rows of three places that were stored of one level."""
    single = replace(shapes, strides=(stride,)).grid([(2, 3)]).level(0).numpy()
    _check_degrees(single, stored)


def _check_degrees(anchors: np.ndarray, stored: np.ndarray) -> None:
    np.testing.assert_array_equal(anchors[:, :4], stored[:, :4])
    if stored.shape[1] == 5:
        degrees = np.degrees(anchors[:, 4].astype(np.float64))
        np.testing.assert_allclose(degrees, stored[:, 4], rtol=0, atol=4e-6)  # float32 of up to pi/2 in radians


def test_row_18_has_55_anchors_with_the_extra_templates() -> None:
    shapes = original_upright(more=True)
    assert shapes.num_anchors == 55 and shapes.level_shapes(8).shape == (55, 4)
    sizes = (shapes.level_shapes(8)[2::5, 2:] * 2 + 1) / 8  # scale 1
    extra = [[2, 14], [11, 2], [1, 9], [12, 1]]
    assert sizes[7:].tolist() == extra
    smaller = (shapes.level_shapes(8)[:2, 2:] * 2 + 1) / 8
    assert smaller.tolist() == [[2, 2], [3, 3]]


def test_anchors_by_number_are_those_of_the_levels() -> None:
    for shapes in (COCO, original_upright(), original_turned()):
        grid = shapes.grid_for((96, 160))
        numbers = torch.arange(0, sum(grid.counts), 7)
        assert torch.equal(grid.at(numbers), torch.cat(grid.levels())[numbers])
    assert not COCO.grid_for((64, 64)).rotated and original_turned().grid_for((64, 64)).rotated


@pytest.mark.parametrize(("form", "wide", "tall"), [("tf90", -90, -90), ("tf180", -90, -180)])
def test_upright_anchors_are_assigned_as_hboxes_and_coded_as_rboxes(form: Any, wide: int, tall: int) -> None:
    # a side is x2 - x1 + 1; in "tf90" w is the vertical one, in "tf180" the longer one (specification 2.1 and 2.3)
    anchors = original_upright(coded=form)
    grid = anchors.grid_for((64, 96))
    assert not grid.rotated and grid.as_coded().rotated and anchors.box_numbers == 5
    hboxes, rboxes = grid.level(0), grid.as_coded().level(0)
    torch.testing.assert_close(rboxes[:, :2], (hboxes[:, :2] + hboxes[:, 2:]) / 2)
    width, height = (hboxes[:, 2:] - hboxes[:, :2] + 1).unbind(1)
    is_tall = height > width + 1e-3
    sides = [height, width] if form == "tf90" else [torch.maximum(width, height), torch.minimum(width, height)]
    torch.testing.assert_close(rboxes[:, 2:4], torch.stack(sides, dim=1))
    expected = torch.where(is_tall, float(tall), float(wide))
    torch.testing.assert_close(rboxes[:, 4].rad2deg(), expected)
    numbers = torch.tensor([0, 77, 2015])
    torch.testing.assert_close(grid.as_coded().at(numbers), torch.cat(grid.as_coded().levels())[numbers])


def test_square_anchors_turn_by_rounding_at_their_places_only_where_that_is_asked_for() -> None:
    alike, rounded = (
        original_upright(coded="tf180", squares=squares).grid_for((256, 384)).as_coded()
        for squares in ("alike", "rounded")
    )
    steady, moved = (torch.cat(grid.levels()) for grid in (alike, rounded))
    square = (steady[:, 2] - steady[:, 3]).abs() < 1e-3
    turned = (steady[:, 4] - moved[:, 4]).abs() > 1
    assert 0.02 < (turned.sum() / square.sum()).item() < 0.3 and not (turned & ~square).any()
    torch.testing.assert_close(moved[:, :4], steady[:, :4])
    numbers = turned.nonzero()[::100, 0].contiguous()
    assert rounded.rotated and torch.equal(rounded.at(numbers), moved[numbers])
    same = original_upright(squares="rounded").grid_for((256, 384)).as_coded()  # tf90 turns none
    assert (torch.cat(same.levels())[:, 4] == -torch.pi / 2).all()


def test_anchors_that_are_coded_as_they_are_assigned_make_one_grid() -> None:
    assert [shapes.box_numbers for shapes in (COCO, replace(COCO, angle="oc"), original_turned())] == [4, 5, 5]
    grid = COCO.grid_for((64, 64))
    assert grid.as_coded() is grid
    assert COCO.levels == (3, 4, 5, 6, 7) and COCO == COCO_ANCHORS
