from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.angles import ANGLE_FORMS
from focaldet.geometry.rbox import (
    FORMS,
    clip_visible,
    convert_boxes,
    flip_rbox,
    points_in_rboxes,
    rbox_to_hbox,
    rbox_to_polygon,
    regularize_rbox,
    scale_rbox,
    visible_share,
)
from rectangles import corner_distances, corners, random_rboxes, rectangle_distances

PI = math.pi
FIVE = tuple(ANGLE_FORMS)
RANGES = {  # of theta: low, high, whether it is the high end that belongs to the range
    "le90": (-PI / 2, PI / 2, False),
    "le135": (-PI / 4, 3 * PI / 4, False),
    "oc": (0.0, PI / 2, True),
    "oc-negative": (-PI / 2, 0.0, False),
    "tf90": (-90.0, 0.0, False),
    "tf180": (-180.0, 0.0, False),
}
SQUARES = {"le90": (-PI / 4, PI / 4), "le135": (-PI / 4, PI / 4), "tf180": (-90.0, 0.0)}


def to_radians(boxes: torch.Tensor, form: str) -> torch.Tensor:
    """The rboxes that boxes of a form are, in float64, straight from the table of forms."""
    boxes = boxes.double().clone()
    if form == "degrees-ccw":
        boxes[:, 4] = -boxes[:, 4].deg2rad()
    elif form == "tf90":
        boxes[:, 4] = boxes[:, 4].deg2rad()
    elif form == "tf180":
        boxes[:, 4] = (boxes[:, 4] + 90).deg2rad()
    return boxes


def in_range(boxes: torch.Tensor, form: str) -> torch.Tensor:
    if form not in RANGES:
        return torch.ones(len(boxes), dtype=torch.bool)
    (low, high, high_included), (w, h, theta) = RANGES[form], boxes[:, 2:].unbind(1)
    inside = (theta > low) & (theta <= high) if high_included else (theta >= low) & (theta < high)
    if form in SQUARES:
        low, high = SQUARES[form]
        inside &= (w >= h) & ((w != h) | ((theta >= low) & (theta < high)))
    return inside


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("target", FIVE)
@pytest.mark.parametrize("source", FIVE)
def test_every_form_says_the_same_rectangle_in_its_range(source: str, target: str, dtype: torch.dtype) -> None:
    boxes = random_rboxes(1, 400, dtype)
    if source in ("degrees-ccw", "tf90", "tf180"):
        boxes[:, 4] = (boxes[:, 4].double().rad2deg() / 5).round().to(dtype) * 5
    written = convert_boxes(boxes, source, target)
    assert written.dtype == dtype
    assert in_range(written, target).all()
    # an angle in float32 radians up to 19 is known to 1e-6, degrees up to 1080 to 6e-5 = 1e-6 radians; half a
    # diagonal is up to 109 pixels, and coordinates up to 1,000 are rounded to 3e-5
    limit = 1e-9 if dtype == torch.float64 else 3e-4
    assert rectangle_distances(to_radians(boxes, source), to_radians(written, target)).max() < limit
    assert torch.equal(convert_boxes(written, target, target), written)


@given(st.floats(-1e6, 1e6, width=32), st.sampled_from(FIVE), st.sampled_from(FIVE), st.booleans())
def test_any_angle_falls_into_the_range(theta: float, source: str, target: str, square: bool) -> None:
    for dtype in (torch.float32, torch.float64):
        boxes = torch.tensor([[5.0, -3.0, 4.0, 4.0 if square else 3.0, theta]], dtype=dtype)
        assert in_range(convert_boxes(boxes, source, target), target).all()
        assert in_range(convert_boxes(boxes[:, [0, 1, 3, 2, 4]], source, target), target).all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("form", RANGES)
def test_ends_of_the_ranges(form: str, dtype: torch.dtype) -> None:
    low, high, high_included = RANGES[form]
    half_turn = PI if form[:2] in ("le", "oc") else 180.0
    ends = torch.tensor([low, high, low + half_turn, high - half_turn], dtype=dtype)
    steps = torch.tensor([-math.inf, math.inf], dtype=dtype)
    theta = torch.cat([ends, ends.nextafter(steps[0]), ends.nextafter(steps[1])])
    sides = torch.tensor([30.0, 10.0], dtype=dtype).expand(len(theta), 2)
    boxes = torch.cat([torch.zeros(len(theta), 2, dtype=dtype), sides, theta[:, None]], dim=1)
    written = convert_boxes(boxes, form, form)
    assert in_range(written, form).all()
    kept = in_range(boxes, form) & ((theta == 0) | (theta.abs() > torch.finfo(dtype).tiny))
    assert kept.sum() >= 2 and torch.equal(written[kept], boxes[kept])  # what is in the range stays to the bit
    end = torch.tensor(high if high_included else low, dtype=dtype)
    assert (written[:4, 4] == end).all()  # an end is found from wherever it is written


def test_an_upright_box_in_every_form() -> None:
    # 100 wide and 50 high (specification, rotated.md, section 11.3); where its text and api.md agree
    wide = {
        "le90": [60.0, 40.0, 100.0, 50.0, 0.0],
        "le135": [60.0, 40.0, 100.0, 50.0, 0.0],
        "oc": [60.0, 40.0, 50.0, 100.0, PI / 2],
        "oc-negative": [60.0, 40.0, 50.0, 100.0, -PI / 2],
        "degrees-ccw": [60.0, 40.0, 100.0, 50.0, 0.0],
        "tf90": [60.0, 40.0, 50.0, 100.0, -90.0],
        "tf180": [60.0, 40.0, 100.0, 50.0, -90.0],
        "polygon": [10.0, 15.0, 110.0, 15.0, 110.0, 65.0, 10.0, 65.0],
        "hbox": [10.0, 15.0, 110.0, 65.0],
    }
    for source, numbers in wide.items():
        for target, wanted in wide.items():
            for dtype in (torch.float32, torch.float64):
                written = convert_boxes(torch.tensor([numbers], dtype=dtype), source, target)
                wanted_boxes = torch.tensor([wanted], dtype=dtype)
                if target == "degrees-ccw" and source in ("oc", "oc-negative", "tf90"):  # any order: as given
                    assert rectangle_distances(to_radians(written, target), to_radians(wanted_boxes, target)) < 1e-5
                elif target == "polygon":  # corners begin where theta of the form says
                    assert corner_distances(written.numpy(), wanted_boxes.numpy()) == 0
                else:
                    assert torch.equal(written, wanted_boxes), (source, target)


def test_a_tall_box_and_a_square_in_every_form() -> None:
    tall = torch.tensor([[10.0, 15.0, 60.0, 115.0]])
    by_form = {form: convert_boxes(tall, "hbox", form)[0, 2:].tolist() for form in FIVE}
    upright = math.pi / 2 * (1 + 2**-25)  # float32's pi/2 is larger than pi/2
    assert by_form == {
        "le90": [100.0, 50.0, pytest.approx(-upright)],
        "le135": [100.0, 50.0, pytest.approx(upright)],
        "oc": [100.0, 50.0, pytest.approx(upright)],
        "oc-negative": [100.0, 50.0, pytest.approx(-upright)],
        "degrees-ccw": [50.0, 100.0, 0.0],
        "tf90": [100.0, 50.0, -90.0],
        "tf180": [100.0, 50.0, -180.0],
    }
    square = torch.tensor([[10.0, 15.0, 60.0, 65.0]])
    assert {form: convert_boxes(square, "hbox", form)[0, 4].item() for form in FIVE} == {
        "le90": 0.0,
        "le135": 0.0,
        "oc": pytest.approx(upright),
        "oc-negative": pytest.approx(-upright),
        "degrees-ccw": 0.0,
        "tf90": -90.0,
        "tf180": -90.0,  # counts as swapped
    }


def test_the_90_form_to_mmrotates_is_a_quarter_turn_and_swapped_sides() -> None:
    # but at -90, which is the 90 of the other form with sides as they are
    boxes = torch.tensor([[1.0, 2.0, 3.0, 8.0, -30.0], [1.0, 2.0, 3.0, 8.0, -90.0]], dtype=torch.float64)
    wanted = torch.tensor([[1.0, 2.0, 8.0, 3.0, PI / 3], [1.0, 2.0, 3.0, 8.0, PI / 2]], dtype=torch.float64)
    torch.testing.assert_close(convert_boxes(boxes, "tf90", "oc"), wanted, rtol=1e-15, atol=0)


@pytest.mark.parametrize("target", FORMS)
@pytest.mark.parametrize("source", FORMS)
def test_gradients_pass_between_all_forms(source: str, target: str) -> None:
    boxes = random_rboxes(5, 12, turns=0.5)
    boxes = boxes[(boxes[:, 2] - boxes[:, 3]).abs() > 1]
    boxes[:, 4] = boxes[:, 4].clamp(-1.4, 1.4) + 0.05  # off the multiples of 45 degrees, where ranges begin
    given_boxes = convert_boxes(boxes, "le90", source)
    if source == "polygon":  # every side of a rectangle gives it, so that it has no gradient
        given_boxes = given_boxes + torch.arange(8) % 3
    given_boxes.requires_grad_()
    # differences of polygons' areas lose digits: hence a larger step than gradcheck's own
    assert torch.autograd.gradcheck(lambda b: convert_boxes(b, source, target), (given_boxes,), eps=1e-5, atol=1e-4)


def test_gradients_are_finite_at_the_ends_of_ranges() -> None:
    boxes = torch.tensor([[5.0, 5.0, 4.0, 4.0, PI / 4], [5.0, 5.0, 8.0, 4.0, PI / 2]], requires_grad=True)
    for target in FORMS:
        (gradient,) = torch.autograd.grad(convert_boxes(boxes, "le90", target)[:, -1].sum(), boxes)
        assert gradient.isfinite().all()
        if target in FIVE:
            assert (gradient[:, 4] != 0).all()  # also where theta was snapped to a whole number


def test_numpy_and_empty_sets() -> None:
    boxes = np.array([[60.0, 40.0, 100.0, 50.0, 0.3]], dtype=np.float32)
    for source in FORMS:
        start = convert_boxes(boxes, "le90", source)
        for target in FORMS:
            written = convert_boxes(start, source, target)
            assert isinstance(written, np.ndarray) and written.dtype == np.float32
            again = convert_boxes(torch.from_numpy(start), source, target)
            assert np.array_equal(again.numpy(), written)
            none = convert_boxes(torch.zeros(0, start.shape[1]), source, target)
            assert none.shape == (0, written.shape[1])


def test_traces_to_one_graph_of_tensors() -> None:
    class Convert(torch.nn.Module):
        def forward(self, boxes: torch.Tensor) -> torch.Tensor:
            return convert_boxes(boxes, "tf180", "polygon")

    boxes = convert_boxes(random_rboxes(2, 7, torch.float32), "le90", "tf180")
    exported = torch.export.export(Convert(), (boxes,), dynamic_shapes=({0: torch.export.Dim("n")},))
    more = convert_boxes(random_rboxes(3, 11, torch.float32), "le90", "tf180")
    assert torch.equal(exported.module()(more), convert_boxes(more, "tf180", "polygon"))


@given(st.integers(0, 10_000))
def test_corners_and_hull(seed: int) -> None:
    boxes = random_rboxes(seed, 8)
    polygons = rbox_to_polygon(boxes)
    assert corner_distances(corners(boxes), polygons.numpy()).max() < 1e-9
    by_axis = polygons.reshape(-1, 4, 2)
    hull = torch.cat([by_axis.amin(1), by_axis.amax(1)], dim=1)
    torch.testing.assert_close(rbox_to_hbox(boxes), hull, rtol=0, atol=1e-9)


def test_hulls_of_upright_boxes_are_exact_in_float32() -> None:
    boxes = torch.tensor([[500.0, 300.0, 40.0, 20.0, quarter * PI / 2] for quarter in range(-4, 5)])
    flat, tall = torch.tensor([480.0, 290.0, 520.0, 310.0]), torch.tensor([490.0, 280.0, 510.0, 320.0])
    assert torch.equal(rbox_to_hbox(boxes), torch.stack([flat, tall] * 4 + [flat]))


@given(st.integers(0, 10_000))
def test_moves_go_with_the_corners(seed: int) -> None:
    boxes = random_rboxes(seed, 6)
    polygons = corners(boxes).reshape(-1, 4, 2)
    size = (200, 300)
    for horizontal in (False, True):
        for vertical in (False, True):
            flipped = polygons.copy()
            flipped[..., 0] = size[1] - flipped[..., 0] if horizontal else flipped[..., 0]
            flipped[..., 1] = size[0] - flipped[..., 1] if vertical else flipped[..., 1]
            ours = flip_rbox(boxes, size, horizontal=horizontal, vertical=vertical)
            assert corner_distances(corners(ours), flipped.reshape(-1, 8)).max() < 1e-9
    assert corner_distances(corners(scale_rbox(boxes, 1.5)), (polygons * 1.5).reshape(-1, 8)).max() < 1e-9


def test_visible_share() -> None:
    boxes = torch.tensor(
        [
            [50.0, 50.0, 20.0, 10.0, 0.7],  # inside
            [0.0, 50.0, 20.0, 10.0, 0.7],  # its centre on the border
            [0.0, 0.0, 20.0, 20.0, PI / 4],  # its centre on the corner
            [-50.0, 50.0, 20.0, 10.0, 0.0],  # outside
            [100.0, 40.0, 10.0, 20.0, 0.0],
            [50.0, 50.0, 20.0, 0.0, 0.7],  # no area
        ],
        dtype=torch.float64,
    )
    share = visible_share(boxes, (80, 100))
    wanted = torch.tensor([1.0, 0.5, 0.25, 0.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(share, wanted, rtol=0, atol=1e-12)
    assert clip_visible(boxes, (80, 100), 0.4).tolist() == [True, True, False, False, True, False]
    assert np.array_equal(visible_share(boxes.numpy(), (80, 100)), share.numpy())


def test_points_in_boxes() -> None:
    boxes = random_rboxes(7, 20)
    for factor, inside in ((0.999, True), (1.001, False)):
        points = torch.from_numpy(corners(scale_about_centre(boxes, factor)).reshape(-1, 2))
        found = points_in_rboxes(points, boxes)
        assert found.shape == (80, 20)
        assert (found.reshape(20, 4, 20)[torch.arange(20), :, torch.arange(20)] == inside).all()
    on_border = torch.tensor([[35.0, 10.0], [60.0, -10.0]])
    assert points_in_rboxes(on_border, torch.tensor([[60.0, 40.0, 100.0, 50.0, PI / 2]])).tolist() == [[True], [True]]


def scale_about_centre(boxes: torch.Tensor, factor: float) -> torch.Tensor:
    return boxes * torch.tensor([1.0, 1.0, factor, factor, 1.0])


def test_faults_are_said() -> None:
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0, 0.0]])
    with pytest.raises(FocaldetError, match=r"no form of a box is called 'le-90' \(did you mean 'le90'\?\); known are"):
        convert_boxes(boxes, "le-90", "oc")
    with pytest.raises(FocaldetError, match="no form of a box is called 'v1'"):
        convert_boxes(boxes, "oc", "v1")
    with pytest.raises(FocaldetError, match=r"boxes has shape \(1, 5\); give polygons"):
        convert_boxes(boxes, "polygon", "oc")
    with pytest.raises(FocaldetError, match=r"boxes has shape \(1, 5\); give hboxes"):
        convert_boxes(boxes, "hbox", "oc")
    with pytest.raises(FocaldetError, match=r"boxes\[1\] is .*nan.*finite"):
        rbox_to_polygon(torch.cat([boxes, boxes * math.nan]))
    with pytest.raises(FocaldetError, match=r"boxes\[0\] .*negative side"):
        convert_boxes(-torch.tensor([[0.0, 0.0, 1.0, 1.0]]), "hbox", "le90")
    with pytest.raises(FocaldetError, match=r"points holds torch\.float64 and boxes torch\.float32; give both"):
        points_in_rboxes(torch.zeros(1, 2, dtype=torch.float64), boxes)
    with pytest.raises(FocaldetError, match=r"boxes has shape \(1, 4\); give rboxes"):
        visible_share(boxes[:, :4], (10, 10))
    with pytest.raises(FocaldetError, match="no form in radians is called 'tf90'; give 'le90',"):
        regularize_rbox(boxes, "tf90")


# Stored outputs of mmrotate 1.x ("v1", whose "oc" is our "oc-negative") and 0.x ("v0"), computed there in float32 for
# coordinates up to 512: corners agree to 1e-3 pixels.

V0 = ("oc", "le90", "le135")
PIXELS = 1e-3


@pytest.fixture(scope="module")
def stored(golden: Path) -> dict[str, np.ndarray]:
    with np.load(golden / "rotated" / "convert.npz") as file:
        return dict(file)


@pytest.mark.golden
def test_corners_and_hulls_equal_mmrotates(stored: dict[str, np.ndarray]) -> None:
    boxes = stored["rboxes"]
    polygons, hulls = rbox_to_polygon(boxes), rbox_to_hbox(boxes)
    ours_first = np.roll(stored["v1_rbox2qbox"].reshape(-1, 4, 2), 2, axis=1).reshape(-1, 8)
    there_reversed = ours_first.reshape(-1, 4, 2)[:, [0, 3, 2, 1]].reshape(-1, 8)  # (-w, -h), (+w, -h), ...
    np.testing.assert_allclose(polygons, there_reversed, rtol=0, atol=PIXELS)
    np.testing.assert_allclose(hulls, stored["v1_rbox2hbox"], rtol=0, atol=PIXELS)
    upright = convert_boxes(stored["v1_rbox2hbox"], "hbox", "degrees-ccw")  # sides as they lie, theta 0
    np.testing.assert_allclose(upright, stored["v1_hbox2rbox"], rtol=0, atol=PIXELS)
    for form in V0:
        there = stored[f"v0_obb_{form}"]
        for name in (f"v0_obb2poly_{form}", f"v0_obb2poly_np_{form}"):
            assert corner_distances(rbox_to_polygon(there), stored[name][:, :8]).max() < PIXELS
        np.testing.assert_allclose(rbox_to_hbox(there), stored[f"v0_obb2xyxy_{form}"], rtol=0, atol=PIXELS)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("name", "form"), [("v1_regularize_oc", "oc-negative"), ("v1_regularize_le90", "le90")]
    + [("v1_regularize_le135", "le135")] + [(f"v0_obb_{form}", form) for form in V0],
)  # fmt: skip
def test_ranges_equal_mmrotates(stored: dict[str, np.ndarray], name: str, form: str) -> None:
    there, ours = stored[name], regularize_rbox(stored["rboxes"], form)
    assert rectangle_distances(ours, there).max() < PIXELS
    # The same numbers too, but for two kinds of box: equal sides, where mmrotate has no rule, and angles within the
    # rounding of an end of the range, where its half-open ends do not hold (theta 0 in "oc", for instance).
    low, high, _ = RANGES[form]
    theta = there[:, 4].astype(np.float64)
    well_posed = (np.abs(theta - low) > 1e-5) & (np.abs(theta - high) > 1e-5)
    if form.startswith("le"):
        well_posed &= there[:, 2] != there[:, 3]
    assert well_posed.sum() > 200
    np.testing.assert_allclose(ours[well_posed], there[well_posed], rtol=2e-7, atol=2e-6)


@pytest.mark.golden
@pytest.mark.parametrize("form", V0)
def test_upright_boxes_equal_mmrotates(stored: dict[str, np.ndarray], form: str) -> None:
    hulls = rbox_to_hbox(stored[f"v0_obb_{form}"])
    for name, boxes in ((f"v0_hbb2obb_{form}", stored["v1_rbox2hbox"]), (f"v0_obb2hbb_{form}", hulls)):
        there, ours = stored[name], convert_boxes(boxes, "hbox", form)
        assert rectangle_distances(ours, there).max() < PIXELS
        # which side is the longer is there and here a matter of rounding in squares
        clear = np.abs(there[:, 2] - there[:, 3]) > 1e-3
        np.testing.assert_allclose(ours[clear], there[clear], rtol=0, atol=PIXELS)


# Stored outputs of the original TensorFlow programs, in degrees.

PROGRAMS = ("rtr", "r3d", "rtr_2019", "r3d_2020")


@pytest.mark.golden
@pytest.mark.parametrize("program", PROGRAMS)
def test_conversions_equal_the_original_programs(golden: Path, program: str) -> None:
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as file:
        unit = dict(file)
    boxes = unit["coordinate_present_convert_m1.in.boxes"]
    ours = convert_boxes(boxes, "tf90", "tf180")
    np.testing.assert_allclose(ours, unit["coordinate_present_convert_m1.out"], rtol=0, atol=4e-6)  # an ulp of 180
    labelled, wanted = (unit[f"coordinate_present_convert_m1_label.{end}"] for end in ("in.boxes", "out"))
    np.testing.assert_allclose(convert_boxes(labelled[:, :5].copy(), "tf90", "tf180"), wanted[:, :5], rtol=0, atol=4e-6)
    np.testing.assert_allclose(convert_boxes(ours, "tf180", "tf90"), boxes, rtol=0, atol=1.6e-5)  # and back
    for name in ("forward_convert", "forward_convert_label"):
        given_boxes = unit[f"{name}.in.boxes"][:, :5].copy()
        polygons = convert_boxes(given_boxes, "tf90", "polygon").reshape(-1, 4, 2)
        wanted = unit[f"{name}.out"][:, :8]  # begins one corner earlier
        np.testing.assert_allclose(polygons[:, [3, 0, 1, 2]].reshape(-1, 8), wanted, rtol=0, atol=PIXELS)
    if program == "r3d":  # an unused form: the 180 form without the quarter turn
        given_boxes, wanted = (unit[f"coordinate_present_convert_m1_noshift.{end}"] for end in ("in.boxes", "out"))
        shifted = convert_boxes(given_boxes, "tf90", "tf180") + np.array([0, 0, 0, 0, 90], dtype=np.float32)
        np.testing.assert_allclose(shifted, wanted, rtol=0, atol=8e-6)
