from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.angles import RADIANS, rewrite
from focaldet.geometry.coders import MAX_LOG_SCALE
from focaldet.geometry.rotated_coders import CODER_FORMS, CoderAngle, DirectionCoder, RboxCoder, atan_form
from rectangles import random_rboxes, rectangle_distances

ANGLES = get_args(CoderAngle)
coders = st.builds(
    RboxCoder,
    angle=st.sampled_from(ANGLES),
    proj_xy=st.booleans(),
    edge_swap=st.booleans(),
    norm_factor=st.sampled_from([None, 1.0, 2.0]),
    stds=st.sampled_from([(1.0,) * 5, (0.1, 0.1, 0.2, 0.2, 0.1)]),
)


@given(coders, st.integers(0, 10_000))
def test_decode_undoes_encode(coder: RboxCoder, seed: int) -> None:
    boxes, anchors = random_rboxes(seed, 16), coder.from_rbox(random_rboxes(seed + 1, 16, turns=0.5))
    decoded = coder.decode(coder.encode(boxes, anchors), anchors)
    assert rectangle_distances(coder.to_rbox(decoded), boxes).max() < 1e-9


@given(coders, st.integers(0, 10_000))
def test_no_deltas_give_the_anchor_back(coder: RboxCoder, seed: int) -> None:
    anchors = random_rboxes(seed, 8, turns=0.5)
    decoded = coder.decode(torch.zeros(8, 5, dtype=torch.float64), coder.from_rbox(anchors))
    assert rectangle_distances(coder.to_rbox(decoded), anchors).max() < 1e-9
    if not coder.edge_swap:  # with it, a square's side that is chosen may be the other
        torch.testing.assert_close(
            coder.encode(anchors, coder.from_rbox(anchors)), torch.zeros(8, 5, dtype=torch.float64), rtol=0, atol=1e-9
        )


def test_projection_measures_along_the_anchor() -> None:
    anchor = torch.tensor([[50.0, 50.0, 20.0, 10.0, math.pi / 6]], dtype=torch.float64)
    ahead = torch.tensor([[math.cos(math.pi / 6), math.sin(math.pi / 6), 0.0, 0.0, 0.0]], dtype=torch.float64) * 5
    deltas = RboxCoder(proj_xy=True).encode(anchor + ahead, anchor)
    torch.testing.assert_close(deltas, torch.tensor([[0.25, 0, 0, 0, 0]], dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_box_turned_over_the_end_of_the_range_is_near() -> None:
    anchor = torch.tensor([[50.0, 50.0, 20.0, 10.0, math.radians(85)]])
    box = torch.tensor([[50.0, 50.0, 20.0, 10.0, math.radians(95)]])
    for angle, difference in (("le90", 10), ("le135", 10), ("tf90", -80), ("oc", -80)):
        coder = RboxCoder(angle)
        deltas = coder.encode(box, coder.from_rbox(anchor))
        assert math.degrees(deltas[0, 4]) == pytest.approx(difference, abs=1e-4)


def test_edge_swap_encodes_against_the_nearer_side() -> None:
    anchor = torch.tensor([[50.0, 50.0, 10.0, 20.0, 0.1]])  # sides as they lie: the box's long side is nearer to h
    box = torch.tensor([[50.0, 50.0, 20.0, 10.0, 0.2 - math.pi / 2]])
    deltas = RboxCoder("le90", edge_swap=True).encode(box, anchor)
    torch.testing.assert_close(deltas, torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.1]]), rtol=0, atol=1e-6)
    decoded = RboxCoder("le90", edge_swap=True).decode(deltas, anchor)
    torch.testing.assert_close(decoded, box, rtol=0, atol=1e-5)  # the longer side is w again


def test_sizes_and_centres_are_clamped_where_asked() -> None:
    anchor = torch.tensor([[50.0, 50.0, 16.0, 16.0, 0.0]], dtype=torch.float64)
    deltas = torch.tensor([[9.0, -9.0, 99.0, -99.0, 0.0]], dtype=torch.float64)
    decoded = RboxCoder("oc").decode(deltas, anchor)
    torch.testing.assert_close(decoded[0, :4], torch.tensor([194.0, -94.0, 1000.0, 0.256], dtype=torch.float64))
    assert RboxCoder("oc").decode(deltas, anchor, (64, 128))[0, :2].tolist() == [127.0, 0.0]
    free = RboxCoder("tf90", max_log_scale=None).decode(deltas / 10, anchor)
    assert free[0, 2].item() == pytest.approx(16 * math.exp(9.9)) and MAX_LOG_SCALE < 9.9


def test_horizontal_anchors_of_the_original_program() -> None:
    # specification, rotated.md, sections 2.1 and 2.3: w is the height, theta -90; in the 180 form tall ones have -180
    wide, tall = torch.tensor([-22.0, -10.0, 25.0, 13.0]), torch.tensor([-10.0, -22.0, 13.0, 25.0])
    hboxes = torch.stack([wide, tall])
    of_90 = RboxCoder("tf90").from_hbox(hboxes, plus_one=True)
    of_180 = RboxCoder("tf180").from_hbox(hboxes, plus_one=True)
    quarter = math.pi / 2
    wanted_90 = torch.tensor([[1.5, 1.5, 24.0, 48.0, -quarter], [1.5, 1.5, 48.0, 24.0, -quarter]])
    wanted_180 = torch.tensor([[1.5, 1.5, 48.0, 24.0, -quarter], [1.5, 1.5, 48.0, 24.0, -2 * quarter]])
    assert torch.equal(of_90, wanted_90) and torch.equal(of_180, wanted_180)
    assert RboxCoder("le90").from_hbox(wide[None])[0].tolist() == [1.5, 1.5, 47.0, 23.0, 0.0]


@pytest.mark.parametrize("angle", ANGLES)
@pytest.mark.parametrize("options", [{}, {"proj_xy": True, "edge_swap": True, "norm_factor": 2.0}])
def test_gradients(angle: CoderAngle, options: dict[str, object]) -> None:
    coder = RboxCoder(angle, **options)  # type: ignore[arg-type]
    anchors = coder.from_rbox(random_rboxes(1, 6, turns=0.25))
    deltas = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 0.3
    assert torch.autograd.gradcheck(coder.decode, (deltas.requires_grad_(), anchors.clone().requires_grad_()))
    boxes = random_rboxes(2, 6, turns=0.25)
    boxes[:, 3] = boxes[:, 2] * 0.6  # squares change sides under gradcheck's steps
    boxes[:, 4] = boxes[:, 4] * 0.9 + 0.05
    assert torch.autograd.gradcheck(coder.encode, (boxes.requires_grad_(), anchors.requires_grad_()))


def test_exports_pickles_and_broadcasts() -> None:
    coder = RboxCoder("le90", edge_swap=True, proj_xy=True)
    assert pickle.loads(pickle.dumps(coder)) == coder and hash(coder) == hash(RboxCoder("le90", True, True))

    class Decode(torch.nn.Module):
        def forward(self, deltas: Tensor, anchors: Tensor) -> Tensor:
            return coder.to_rbox(coder.decode(deltas, anchors, (400, 500)))

    deltas, anchors = torch.randn(2, 7, 5), random_rboxes(0, 7, torch.float32)
    exported = torch.export.export(Decode(), (deltas, anchors)).module()
    assert torch.equal(exported(deltas, anchors), Decode()(deltas, anchors))
    assert coder.encode(anchors.expand(2, 7, 5), anchors[:1]).shape == (2, 7, 5)


def test_half_precision_is_computed_in_float32() -> None:
    anchors = torch.tensor([[1000.0, 1000.0, 32.0, 16.0, 0.5]])
    decoded = RboxCoder("le90").decode(torch.zeros(1, 5, dtype=torch.bfloat16), anchors)
    assert decoded.dtype == torch.float32 and torch.equal(decoded, anchors)


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(FocaldetError, match=r"anchors has shape \(2, 4\); give five numbers a box"):
        RboxCoder("le90").decode(torch.zeros(2, 5), torch.zeros(2, 4))
    with pytest.raises(FocaldetError, match=r"boxes has shape \(2, 5\); give hboxes"):
        RboxCoder("tf90").from_hbox(torch.zeros(2, 5))


# Stored outputs of mmrotate 1.x, in float32. Its "oc" is our "oc-negative".

FORM = {"oc": "oc-negative", "le90": "le90", "le135": "le135"}
OF_R = ("r_es0_pxy0_nf0", "r_es1_pxy1_nf0", "r_es1_pxy0_nf0", "r_es0_pxy1_nf0", "r_es1_pxy1_nf2")
OF_H = ("h_es0_nf0", "h_es1_nf0", "h_es1_nf2")
CASES = [f"{version}_{case}_{way}" for version in FORM for case in OF_R + OF_H for way in ("encode", "decode")]
CASES += [f"{version}_r_es1_pxy1_nf0_std_decode" for version in FORM]


@pytest.fixture(scope="module")
def stored(golden: Path) -> dict[str, Tensor]:
    with np.load(golden / "rotated" / "coder.npz") as file:
        return {name: torch.from_numpy(file[name]) for name in file.files}


@pytest.mark.golden
@pytest.mark.parametrize("case", CASES)
def test_equals_mmrotates(stored: dict[str, Tensor], case: str) -> None:
    version = case.split("_")[0]
    coder = RboxCoder(
        FORM[version],  # type: ignore[arg-type]
        proj_xy="pxy1" in case,
        edge_swap="es1" in case,
        norm_factor=2.0 if "nf2" in case else None,
        stds=(0.1, 0.1, 0.2, 0.2, 0.1) if "std" in case else (1.0,) * 5,
    )
    anchors = stored[f"{version}_anchors_r"]
    if "_h_" in case:  # H anchors there have theta 0 in every version, and sides as they lie
        hboxes = stored[f"{version}_anchors_h"]
        centres, sides = (hboxes[:, :2] + hboxes[:, 2:]) / 2, hboxes[:, 2:] - hboxes[:, :2]
        anchors = torch.cat([centres, sides, torch.zeros(len(sides), 1)], dim=1)
    if case.endswith("encode"):
        ours = coder.encode(stored[f"{version}_gts"], anchors)
    else:
        ours = coder.decode(stored[f"{version}_deltas"], anchors, (512, 512) if "std" in case else None)
    # all in the same float32 operations but for the wrapping of angles, up to 10 radians before it
    torch.testing.assert_close(ours[:, :4], stored[case][:, :4], rtol=2e-6, atol=1e-6)
    torch.testing.assert_close(ours[:, 4], stored[case][:, 4], rtol=0, atol=2e-6)


@pytest.mark.golden
def test_every_stored_array_is_compared(stored: dict[str, Tensor]) -> None:
    given_arrays = {f"{v}_{name}" for v in FORM for name in ("anchors_r", "anchors_h", "gts", "deltas")}
    assert set(stored) == {*CASES, *given_arrays}


# Stored outputs of the original TensorFlow programs, in degrees.


def in_radians(boxes: np.ndarray) -> Tensor:
    return torch.cat([torch.from_numpy(boxes[:, :4]), torch.from_numpy(boxes[:, 4:5]).deg2rad()], dim=1)


@pytest.mark.golden
@pytest.mark.parametrize("program", ["rtr", "r3d", "rtr_2019", "r3d_2020"])
@pytest.mark.parametrize(("suffix", "angle"), [("", "tf90"), ("_180", "tf180")])
def test_equals_the_original_programs(golden: Path, program: str, suffix: str, angle: CoderAngle) -> None:
    sides = "plus-one" if program == "r3d" else "exact"
    coder = RboxCoder(angle, max_log_scale=None, anchor_sides=sides)  # type: ignore[arg-type]
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as file:
        unit = {name: file[name] for name in file.files if name.startswith("rbbox_transform")}
    name = f"rbbox_transform{suffix}"
    boxes, anchors = in_radians(unit[f"{name}.in.gt"]), in_radians(unit[f"{name}.in.anchors"])
    wanted = torch.from_numpy(unit[f"{name}.out"])
    truths = rewrite(boxes, CODER_FORMS[angle], RADIANS)
    written = (coder.from_rbox(truths) - boxes).abs().amax(dim=1) < 1e-4
    assert written.sum() > 55  # a few of the noisy boxes have left the range; there they are coded as they stand
    deltas = coder.encode(truths, anchors)
    # angles of 3 radians and their differences are rounded to 2e-7, in degrees there
    torch.testing.assert_close(deltas[written], wanted[written], rtol=2e-6, atol=1e-6)
    if sides == "exact":
        again = coder.to_rbox(coder.decode(wanted, anchors))
        assert rectangle_distances(again, truths).max() < 2e-3  # boxes up to 400 pixels in float32
    decoded = coder.decode(torch.from_numpy(unit[f"rbbox_transform_inv{suffix}.in.deltas"]), anchors)
    wanted = in_radians(unit[f"rbbox_transform_inv{suffix}.out"])
    torch.testing.assert_close(decoded, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["H90", "H180", "R90", "R180"])
@pytest.mark.parametrize("program", ["rtr", "r3d"])
def test_anchors_are_coded_as_in_the_original_programs_targets(golden: Path, program: str, case: str) -> None:
    angle: CoderAngle = "tf90" if case.endswith("90") else "tf180"
    coder = RboxCoder(angle, max_log_scale=None, anchor_sides="plus-one" if program == "r3d" else "exact")
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as file:
        hboxes, rboxes = (torch.from_numpy(file[f"target.in.anchors_{kind}"]) for kind in "hr")
        boxes, wanted = in_radians(file[f"target.{case}.boxes"]), torch.from_numpy(file[f"target.{case}.delta"])
    if case.startswith("H"):
        anchors = coder.from_hbox(hboxes, plus_one=True)
    else:  # as they stand, one with a theta beside the range
        anchors = in_radians(rboxes.numpy())
        anchors = anchors if angle == "tf90" else coder.from_rbox(anchors)
    deltas = coder.encode(rewrite(boxes, CODER_FORMS[angle], RADIANS), anchors)
    torch.testing.assert_close(deltas, wanted, rtol=1e-5, atol=1e-5)  # angles of up to 360 degrees in float32


@pytest.mark.golden
@pytest.mark.parametrize("case", ["smooth_l1_loss_atan", "smooth_l1_loss_atan_big"])
def test_atan_form_is_what_the_original_loss_takes(golden: Path, case: str) -> None:
    with np.load(golden / "tf" / "unit" / "rtr.npz") as file:
        unit = {name: torch.from_numpy(np.asarray(file[f"{case}.{name}"])) for name in ("in.preds", "in.targets")}
        state, wanted = file[f"{case}.in.state"], float(file[f"{case}.out.loss"])
        wanted_gradient = torch.from_numpy(file[f"{case}.out.grad"])
    predicted = unit["in.preds"].clone().requires_grad_()
    positive = torch.from_numpy(state) == 1
    differences = atan_form((predicted - unit["in.targets"]).abs())[positive]
    loss = torch.nn.functional.smooth_l1_loss(differences, torch.zeros_like(differences), reduction="sum", beta=1 / 9)
    loss = loss / positive.sum().clamp(min=1)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert loss.item() == pytest.approx(wanted, rel=1e-6)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 10_000), st.booleans())
def test_directions_come_back(seed: int, proj_xy: bool) -> None:
    boxes, anchors, coder = random_rboxes(seed, 16), random_rboxes(seed + 1, 16, turns=0.5), DirectionCoder(proj_xy)
    decoded = coder.decode(coder.encode(boxes, anchors), anchors)
    slender = (boxes[:, 2] - boxes[:, 3]).abs() > 0.1  # how a square is turned is not told
    assert rectangle_distances(coder.to_rbox(decoded), boxes)[slender].max(initial=0) < 1e-9
    assert (decoded[:, :4].sort().values - boxes[:, :4].sort().values).abs().max() < 1e-9


@given(st.integers(0, 10_000), st.floats(-4, 4))
def test_measured_by_the_anchors_sides_directions_turn_with_the_picture(seed: int, turn: float) -> None:
    boxes, anchors, coder = random_rboxes(seed, 16), random_rboxes(seed + 1, 16), DirectionCoder(proj_xy=True)
    deltas = coder.encode(boxes, anchors)
    turned = [torch.cat([rotated(b[:, :2], turn), b[:, 2:4], b[:, 4:] + turn], dim=1) for b in (boxes, anchors)]
    expected = torch.cat([rotated(deltas[:, :2], turn), deltas[:, 2:]], dim=1)
    slender = (anchors[:, 2] - anchors[:, 3]).abs() > 0.1  # which side of a square is the longer is not told
    # centres of some hundred pixels, seen from sides of a pixel or more, in float64
    assert torch.allclose(coder.encode(*turned)[slender], expected[slender], rtol=0, atol=1e-9)


def rotated(points: Tensor, by: float) -> Tensor:
    """Turn points (N, 2) about the origin."""
    cos, sin = math.cos(by), math.sin(by)
    return points @ torch.tensor([[cos, sin], [-sin, cos]], dtype=points.dtype)


@pytest.mark.parametrize("change", [(0.0, 0.0, math.pi), (10.0, -10.0, math.pi / 2)])
def test_measured_by_the_anchors_sides_directions_do_not_care_how_it_is_written(change: tuple[float, ...]) -> None:
    boxes, coder = random_rboxes(5, 1), DirectionCoder(proj_xy=True)
    anchor = torch.tensor([[90.0, 40.0, 20.0, 30.0, 0.4]], dtype=torch.float64)
    other = anchor + torch.tensor([[0.0, 0.0, *change]], dtype=torch.float64)
    assert torch.allclose(coder.encode(boxes, other), coder.encode(boxes, anchor), rtol=0, atol=1e-12)


def test_a_small_shift_across_a_thin_anchor_is_as_large_a_delta_as_its_share_of_the_width() -> None:
    anchors = torch.tensor([[50.0, 50.0, 600.0, 20.0, math.pi / 6]])
    across = torch.tensor([[-math.sin(math.pi / 6), math.cos(math.pi / 6)]])
    boxes = torch.cat([anchors[:, :2] + 5 * across, anchors[:, 2:]], dim=1)
    deltas = DirectionCoder(proj_xy=True).encode(boxes, anchors)
    # float32: 5 pixels of 20, to some 1e-6 of a centre's 50 pixels
    assert torch.allclose(deltas[:, :2], 0.25 * across, rtol=0, atol=1e-5)
    assert torch.allclose(deltas[:, 2:4], torch.zeros(1, 2), rtol=0, atol=1e-6)


@pytest.mark.parametrize("sides", [(40.0, 10.0), (20.0, 20.0), (20.0, 19.0)])
def test_directions_do_not_jump_as_a_box_turns(sides: tuple[float, float]) -> None:
    theta = torch.linspace(-4.0, 4.0, 2001, dtype=torch.float64)
    boxes = torch.tensor([50.0, 50.0, *sides, 0.0], dtype=torch.float64).repeat(len(theta), 1)
    boxes[:, 4] = theta
    deltas = DirectionCoder().encode(boxes, torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0]]).expand(len(boxes), -1))
    # a vector no longer than 1 turns by twice the step at most
    assert deltas.diff(dim=0).abs().max() <= 2 * (theta[1] - theta[0]) + 1e-9


def test_directions_do_not_jump_where_the_longer_side_changes() -> None:
    sides = torch.linspace(19.0, 21.0, 201, dtype=torch.float64)
    boxes = torch.stack([sides * 0 + 50, sides * 0 + 50, sides, 40 - sides, sides * 0 + 0.3], dim=1)
    deltas = DirectionCoder().encode(boxes, torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0]]).expand(len(boxes), -1))
    assert deltas.diff(dim=0).abs().max() <= 0.002


def test_directions_clamp_sizes_and_centres() -> None:
    coder, anchors = DirectionCoder(), torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0]])
    box = coder.decode(torch.tensor([[90.0, -90.0, 1e9, -1e9, 1.0, 0.0]]), anchors, (40, 60))
    low, high = 20 * math.exp(-MAX_LOG_SCALE), 20 * math.exp(MAX_LOG_SCALE)
    assert torch.allclose(box, torch.tensor([[59.0, 0.0, high, low, 0.0]]))


@pytest.mark.parametrize("proj_xy", [False, True])
def test_directions_pass_gradients(proj_xy: bool) -> None:
    anchors = random_rboxes(3, 4)
    deltas = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: DirectionCoder(proj_xy).decode(d, anchors), deltas)


def test_directions_refuse_other_numbers() -> None:
    anchors = torch.tensor([[50.0, 50.0, 20.0, 20.0, 0.0]])
    with pytest.raises(FocaldetError, match="give six numbers a box"):
        DirectionCoder().decode(torch.zeros(1, 5), anchors)
    with pytest.raises(FocaldetError, match="give five numbers a box"):
        DirectionCoder().encode(torch.zeros(1, 4), anchors)
