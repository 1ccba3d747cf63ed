from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry import polygon as module
from focaldet.geometry.polygon import (
    check_polygons,
    order_corners,
    polygon_area,
    polygon_to_rbox,
    polygon_to_rbox_by_sides,
    polygon_to_tf90_truncated,
)
from focaldet.geometry.rbox import convert_boxes, points_in_rboxes, rbox_to_polygon
from rectangles import corner_distances, random_rboxes, rectangle_distances

QUARTER = math.pi / 4


def random_quads(seed: int, count: int) -> torch.Tensor:
    """Four corners anywhere: convex, dented and crossing themselves alike."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 8, generator=generator, dtype=torch.float64) * 100


def swept_area(polygons: torch.Tensor, steps: int = 900) -> torch.Tensor:
    """Least area of a rectangle around corners over all directions, by trying many: an upper bound."""
    theta = torch.arange(steps, dtype=torch.float64) * (math.pi / 2 / steps)
    x, y = polygons[:, None, 0::2], polygons[:, None, 1::2]
    along = x * theta.cos()[:, None] + y * theta.sin()[:, None]
    across = y * theta.cos()[:, None] - x * theta.sin()[:, None]
    return ((along.amax(2) - along.amin(2)) * (across.amax(2) - across.amin(2))).amin(1)


@settings(max_examples=30)  # of many boxes each
@given(st.integers(0, 10_000))
def test_corners_of_a_box_give_the_box_back(seed: int) -> None:
    for dtype, limit in ((torch.float64, 1e-9), (torch.float32, 3e-4)):  # float32: 1,000 pixels are known to 6e-5
        boxes = random_rboxes(seed, 50, dtype)
        assert rectangle_distances(polygon_to_rbox(rbox_to_polygon(boxes)), boxes).max() < limit


@settings(max_examples=30)  # of many boxes each
@given(st.integers(0, 10_000))
def test_the_rectangle_encloses_the_corners_and_is_the_least(seed: int) -> None:
    quads = random_quads(seed, 50)
    boxes = polygon_to_rbox(quads)
    grown = boxes + torch.tensor([0.0, 0.0, 1e-9, 1e-9, 0.0])
    inside = points_in_rboxes(quads.reshape(-1, 2), grown).reshape(50, 4, 50)
    assert inside[torch.arange(50), :, torch.arange(50)].all()
    area, swept = boxes[:, 2] * boxes[:, 3], swept_area(quads)
    assert (area <= swept + 1e-9).all()
    # a radian changes an area by at most both extents squared, and the least is half a step away
    assert (swept <= area + 2 * 142**2 * (math.pi / 2 / 900 / 2)).all()


@settings(max_examples=30)  # of many boxes each
@given(st.integers(0, 10_000))
def test_no_matter_where_corners_start_and_which_way_they_go(seed: int) -> None:
    quads = random_quads(seed, 50)
    quads[::4] = (quads[::4] / 10).round() * 10  # on a coarse grid equal areas are common
    quads[1::4, 6:] = quads[1::4, 0:6].reshape(-1, 3, 2).mean(1)  # dented: the hull is a triangle, all its sides tie
    boxes = polygon_to_rbox(quads)
    by_corner = quads.reshape(-1, 4, 2)
    for order in ([1, 2, 3, 0], [2, 1, 0, 3], [0, 2, 1, 3], [3, 1, 0, 2]):
        assert rectangle_distances(boxes, polygon_to_rbox(by_corner[:, order].reshape(-1, 8))).max() < 1e-6


def test_equal_areas_go_to_the_rectangle_that_is_turned_least() -> None:
    triangle = torch.tensor([[0.0, 0.0, 40.0, 0.0, 10.0, 30.0, 20.0, 10.0]])  # twice its area, along any side
    torch.testing.assert_close(polygon_to_rbox(triangle), torch.tensor([[20.0, 15.0, 40.0, 30.0, 0.0]]))
    mirror = torch.tensor([[0.0, 0.0, 30.0, 10.0, 10.0, 30.0, 10.0, 10.0]], dtype=torch.float64)  # its own, in x = y
    for polygon in (mirror, mirror.reshape(1, 4, 2).flip(2).reshape(1, 8)):
        theta = polygon_to_rbox(polygon)[0, 4].item()
        assert theta == pytest.approx(math.pi / 2 - math.atan(1 / 3))  # a side is turned by -18 degrees, not by +18


def test_degenerate_polygons() -> None:
    polygons = torch.tensor(
        [
            [5.0, 6.0] * 4,  # one place
            [0.0, 0.0, 10.0, 10.0, 10.0, 10.0, 0.0, 0.0],  # a line, there and back
            [0.0, 5.0, 30.0, 5.0, 10.0, 5.0, 20.0, 5.0],  # four places on a line
            [0.0, 0.0, 8.0, 0.0, 0.0, 4.0, 8.0, 4.0],  # crosses itself
            [0.0, 0.0, 8.0, 0.0, 8.0, 4.0, 8.0, 4.0],  # three corners
            [0.0, 0.0, 8.0, 0.0, 8.0, 4.0, 6.0, 1.0],  # dented
            [1e6, 1e6, 1e6 + 8, 1e6, 1e6 + 8, 1e6 + 4, 1e6, 1e6 + 4],  # far away
        ]
    )
    wanted = torch.tensor(
        [
            [5.0, 6.0, 0.0, 0.0, 0.0],
            [5.0, 5.0, math.sqrt(200), 0.0, QUARTER],
            [15.0, 5.0, 30.0, 0.0, 0.0],
            [4.0, 2.0, 8.0, 4.0, 0.0],
            [4.0, 2.0, 8.0, 4.0, 0.0],
            [4.0, 2.0, 8.0, 4.0, 0.0],
            [1e6 + 4, 1e6 + 2, 8.0, 4.0, 0.0],
        ]
    )
    torch.testing.assert_close(polygon_to_rbox(polygons), wanted, rtol=1e-7, atol=1e-6)
    polygons = polygons.double().requires_grad_()
    (gradient,) = torch.autograd.grad(polygon_to_rbox(polygons).sum(), polygons)
    assert gradient.isfinite().all()


def test_equal_sides_are_told_after_rounding() -> None:
    # a square's sides differ in the 16th digit; once they are equal in float32, theta must be in [-pi/4, pi/4)
    theta = torch.linspace(-3, 3, 200, dtype=torch.float64)
    squares = torch.stack([theta * 0 + 300, theta * 0 + 200, theta * 0 + 50, theta * 0 + 50, theta], dim=1)
    boxes = convert_boxes(rbox_to_polygon(squares).float(), "polygon", "le90")
    equal = boxes[:, 2] == boxes[:, 3]
    assert equal.sum() > 20
    assert ((boxes[equal, 4] >= -QUARTER) & (boxes[equal, 4] < QUARTER)).all()


def test_area_and_order_of_corners() -> None:
    polygons = torch.tensor(
        [
            [0.0, 0.0, 4.0, 0.0, 4.0, 2.0, 0.0, 2.0],
            [4.0, 2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 2.0],
            [0.0, 0.0, 4.0, 0.0, 0.0, 2.0, 4.0, 2.0],
        ]
    )
    assert polygon_area(polygons).tolist() == [8.0, -8.0, 0.0]
    ordered = order_corners(polygons)
    assert torch.equal(ordered[0], polygons[0]) and torch.equal(ordered[1], polygons[0])
    assert torch.equal(ordered[2].reshape(4, 2)[0], torch.zeros(2))


@settings(max_examples=30)  # of many boxes each
@given(st.integers(0, 10_000))
def test_ordered_corners_are_the_same_polygon(seed: int) -> None:
    quads = random_quads(seed, 50)
    ordered = order_corners(quads)
    assert corner_distances(quads.numpy(), ordered.numpy()).max() == 0
    assert (polygon_area(ordered) >= 0).all()
    torch.testing.assert_close(polygon_area(ordered), polygon_area(quads).abs())
    assert torch.equal(ordered[:, :2].sum(1), quads.reshape(-1, 4, 2).sum(2).amin(1))


def test_what_is_no_object_is_said() -> None:
    good = [0.0, 0.0, 4.0, 0.0, 4.0, 2.0, 0.0, 2.0]
    touching = [0.0, 0.0, 4.0, 0.0, 4.0, 4.0, 2.0, 0.0]  # a corner on another side is no crossing
    polygons = torch.tensor(
        [
            good,
            [0.0, 0.0, 4.0, 0.0, 0.0, 2.0, 4.0, 2.0],
            [0.0, 0.0, 0.0, 2.0, 4.0, 0.0, 4.0, 2.0],
            [3.0, 3.0] * 4,
            [0.0, 0.0, 0.1, 0.1, 0.7, 0.7, 0.3, 0.3],
            touching,
        ],
        dtype=torch.float64,
    )
    wanted = {1: "crosses itself", 2: "crosses itself", 3: "has no area", 4: "has no area"}
    assert check_polygons(polygons) == wanted
    assert check_polygons(polygons.numpy()) == wanted
    assert check_polygons(torch.zeros(0, 8)) == {}
    thin = rbox_to_polygon(torch.tensor([[500.0, 500.0, 1e4, 1.0, 0.3]], dtype=torch.float64))
    assert check_polygons(thin) == {}


def test_faults_are_said() -> None:
    with pytest.raises(FocaldetError, match=r"polygons has shape \(2, 4, 2\); give polygons .* of shape \(N, 8\)"):
        polygon_to_rbox(torch.zeros(2, 4, 2))
    with pytest.raises(FocaldetError, match=r"polygons\[1\] is .*give finite numbers"):
        polygon_area(np.array([[0.0] * 8, [math.inf] * 8]))
    with pytest.raises(FocaldetError, match=r"polygons holds torch\.int64; give polygons"):
        check_polygons(torch.zeros(2, 8, dtype=torch.int64))


@pytest.mark.parametrize("whole", [False, True])
def test_the_compiled_text_chooses_the_same_rectangles(whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of polygons of all kinds, on a coarse grid too, where equal areas, flat ones and points are common."""
    quads = torch.cat([random_quads(5, 3000), (random_quads(6, 3000) / 40).round() * 8, torch.zeros(2, 8)]).double()
    convert = module.polygon_to_rbox_truncated if whole else polygon_to_rbox
    compiled = convert(quads)
    monkeypatch.setattr(module, "MANY", len(quads) + 1)
    # rounding of sums may differ: 1e-9 pixels of up to 1,000
    assert rectangle_distances(compiled.numpy(), convert(quads).numpy()).max() < 1e-9


def test_gradients() -> None:
    quads = random_quads(3, 12).requires_grad_()
    assert torch.autograd.gradcheck(polygon_to_rbox, (quads,))
    assert torch.autograd.gradcheck(polygon_to_rbox_by_sides, (quads,))


# Stored outputs of mmrotate, by OpenCV's minAreaRect in float32 where it looks for a least rectangle, and of the
# original program's `backward_convert`, by that of OpenCV 4.1.1.


@pytest.fixture(scope="module")
def stored(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "rotated" / "convert.npz") as file:
        return dict(file)


PROGRAMS = ("rtr", "r3d", "rtr_2019", "r3d_2020")
LEAST_THERE = ("v1_qbox2rbox", "v0_poly2obb_np_oc", "v0_poly2obb_np_le90")
BY_SIDES = ("v0_poly2obb_le90", "v0_poly2obb_le135", "v0_poly2obb_np_le135")


@pytest.mark.golden
@pytest.mark.parametrize("name", (*LEAST_THERE, *BY_SIDES, "v0_poly2obb_oc"))
def test_rectangles_equal_mmrotates(stored: dict[str, np.ndarray], name: str) -> None:
    there, rectangles = stored[f"{name}_of_rect"], stored["v1_rbox2qbox"]
    for convert in (polygon_to_rbox, polygon_to_rbox_by_sides):
        assert rectangle_distances(convert(rectangles), there).max() < 1e-3  # pixels, of up to 512 in float32


@pytest.mark.golden
@pytest.mark.parametrize("name", LEAST_THERE)
def test_least_rectangles_equal_opencvs(stored: dict[str, np.ndarray], name: str) -> None:
    ours, there = polygon_to_rbox(stored["quads"]), stored[f"{name}_of_quad"]
    # Where the hull is a triangle, the rectangles along all three sides have the same area, and OpenCV takes another
    # one of them: 18 of 300.
    same = rectangle_distances(ours, there) < 1e-2
    assert (~same).sum() == 18
    np.testing.assert_allclose(ours[~same, 2:4].prod(1), there[~same, 2:4].prod(1), rtol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("name", BY_SIDES)
def test_rectangles_by_sides_equal_mmrotates(stored: dict[str, np.ndarray], name: str) -> None:
    ours, there = polygon_to_rbox_by_sides(stored["quads"]), stored[f"{name}_of_quad"]
    answered = np.isfinite(there).all(axis=1)  # there, one with a side below two pixels has no answer
    assert (~answered).sum() == (name == "v0_poly2obb_np_le135") * 1
    assert (ours[~answered, 2:4].min(axis=1) < 2).all()
    assert rectangle_distances(ours[answered], there[answered]).max() < 1e-3


@pytest.mark.golden
def test_rectangles_by_sides_equal_mmrotates_oc(stored: dict[str, np.ndarray]) -> None:
    ours, there = polygon_to_rbox_by_sides(stored["quads"]), stored["v0_poly2obb_oc_of_quad"]
    # the same sides; but the centre is the mean of all four corners, and the direction that of the first side
    by_corner = stored["quads"].reshape(-1, 4, 2)
    first, mean = by_corner[:, 1] - by_corner[:, 0], by_corner.mean(axis=1)
    np.testing.assert_allclose(there[:, :2], mean, rtol=0, atol=1e-3)
    np.testing.assert_allclose(np.sort(there[:, 2:4]), np.sort(ours[:, 2:4]), rtol=1e-6)
    theta = np.arctan2(first[:, 1], first[:, 0]) % (np.pi / 2)
    np.testing.assert_allclose(there[:, 4] % (np.pi / 2), theta, rtol=0, atol=2e-6)


@pytest.mark.golden
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("case", ["backward_convert", "backward_convert_int_label", "coordinate_present_convert_p1"])
def test_truncated_rectangles_equal_the_original_programs(golden: Path, program: str, case: str) -> None:
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as file:
        given = file[f"{case}.in.boxes" if case.endswith("p1") else f"{case}.in.quads"][:, :8].astype(np.float32)
        there = file[f"{case}.out"][:, :5]
    quads = convert_boxes(given, "tf180", "polygon") if case.endswith("p1") else given
    ours = polygon_to_tf90_truncated(quads)
    # Coordinates up to 1,000 in float32, angles from float32 differences: 1e-3. In one of 64 OpenCV's rectangle cuts
    # off a corner by 0.024 pixels.
    same = np.abs(ours - there).max(axis=1) < 1e-3
    assert (~same).sum() == 1
    lost = 1 - there[~same, 2:4].prod(axis=1) / ours[~same, 2:4].prod(axis=1)
    assert 5e-4 < lost.max() < 6e-4


@pytest.mark.golden
def test_equal_areas_between_whole_pixels_are_decided_as_there(golden: Path) -> None:
    """The truth boxes of all stored networks, of which 31 have several least rectangles."""
    distances, ties = [], 0
    for path in sorted((golden / "tf" / "net").glob("*.npz")):
        with np.load(path) as file:
            for tag in (name[0] for name in file.files if name.endswith(".gt_quad") and f"{name[0]}.gt_r" in file):
                quads, there = file[f"{tag}.gt_quad"][:, :8].astype(np.float64), file[f"{tag}.gt_r"][:, :5]
                ours = polygon_to_tf90_truncated(quads)
                least = polygon_to_rbox(quads)
                ties += int((np.abs(convert_boxes(least, "le90", "tf90") - ours).max(axis=1) > 1e-3).sum())
                distances.append(np.abs(ours - there).max(axis=1))
    assert ties > 0
    assert np.concatenate(distances).max() < 1e-3, ties


@pytest.mark.golden
@pytest.mark.parametrize("program", PROGRAMS)
def test_axis_aligned_and_degenerate_polygons_equal_the_original_programs(golden: Path, program: str) -> None:
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as file:
        quads, there = file["backward_convert_axis.in.quads"], file["backward_convert_axis.out"]
    ours = polygon_to_tf90_truncated(quads)
    assert ((ours[:, 4] >= -90) & (ours[:, 4] < 0)).all()
    same = np.abs(ours - there).max(axis=1) < 1e-4
    # the diagonal line comes out at +45 there, and in the older states a point and a level line at 0
    beside = (there[:, 4] < -90) | (there[:, 4] >= 0)
    assert np.array_equal(~same, beside) and beside.sum() == (3 if program in ("rtr_2019", "r3d_2020") else 1)
    there[:, 4], ours[:, 4] = np.deg2rad(there[:, 4]), np.deg2rad(ours[:, 4])
    assert rectangle_distances(ours, there).max() < 1e-4
