"""Rotated IoU, pairwise and aligned: stored values, gradients, tracing, dispatch, faults.

`test_exactness.py` holds both back ends of a CPU to 50 digits on every family of nasty pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.rotated_iou import (
    rotated_iou,
    rotated_iou_aligned,
    rotated_iou_aligned_torch,
    rotated_iou_torch,
)
from oracle import exact_iou
from strategies import rbox_pairs, some_boxes

PAIRWISE = {"numba": rotated_iou, "torch": rotated_iou_torch}
ALIGNED = {"numba": rotated_iou_aligned, "torch": rotated_iou_aligned_torch}
each_pairwise = pytest.mark.parametrize("function", PAIRWISE.values(), ids=PAIRWISE)
each_aligned = pytest.mark.parametrize("function", ALIGNED.values(), ids=ALIGNED)

GENERIC = torch.tensor(
    [
        [[1.0, 1.0, 3.0, 3.0, 0.2], [1.5, 0.6, 4.0, 2.0, -0.9]],  # all turned
        [[0.0, 0.0, 4.0, 2.0, 0.0], [1.0, 0.6, 3.0, 3.0, 0.0]],  # both upright: vertical and level edges
        [[0.0, 0.0, 4.0, 2.0, 0.0], [0.3, 0.4, 1.5, 5.0, torch.pi / 2]],  # one edge vertical but for 6e-17
        [[0.0, 0.0, 4.0, 2.0, 0.0], [0.3, 0.4, 3.0, 5.0, -torch.pi]],
        [[0.5, 0.3, 4.0, 3.0, 0.1], [0.0, 0.0, 9.0, 8.0, 0.0]],  # contained
        [[0.0, 0.0, 9.0, 1.0, 0.4], [0.2, 0.1, 8.0, 1.0, 1.9]],  # cross
        [[0.0, 0.0, 4.0, 2.0, 0.3], [3.0, 3.0, 4.0, 2.0, 0.3]],  # hulls overlap, boxes do not
        [[100.0, 0.0, 4.0, 2.0, 0.3], [0.0, 0.0, 4.0, 2.0, 0.3]],  # far
    ],
    dtype=torch.float64,
)
"""(8, 2, 5): pairs at which the IoU has a gradient: no corner on an edge, no edge on an edge."""


def some(seed: int, n: int, dtype: type = np.float64) -> Tensor:
    return torch.from_numpy(some_boxes(np.random.default_rng(seed), n).astype(dtype))


# Stored values


@pytest.mark.golden
@each_pairwise
def test_equals_the_stored_truth(golden: Path, function: Callable[..., Tensor]) -> None:
    stored = np.load(golden / "rotated" / "iou.npz")
    boxes1, boxes2 = torch.from_numpy(stored["boxes1"]), torch.from_numpy(stored["boxes2"])
    iou = function(boxes1.double(), boxes2.double()).numpy()
    np.testing.assert_allclose(iou, stored["iou_shapely"], rtol=0, atol=2e-12)  # shapely itself is off by 1e-12
    np.testing.assert_allclose(iou.diagonal(), stored["iou_diag_mp50"], rtol=0, atol=1e-13)
    rounded = function(boxes1, boxes2).numpy()
    assert rounded.dtype == np.float32
    np.testing.assert_allclose(rounded, stored["iou_shapely"], rtol=0, atol=2**-25 + 2e-12)  # half a unit below 1

    over_first = function(boxes1.double(), boxes2.double(), over="first").numpy()
    area = stored["boxes1"][:, 2:3].astype(np.float64) * stored["boxes1"][:, 3:4]
    # A box of 0.01 pixels, 10,000 pixels from the origin: shapely's coordinates are off by 1e-12 there.
    np.testing.assert_allclose(over_first, stored["inter_shapely"] / area, rtol=0, atol=1e-10)


def degrees_to_radians(boxes: Any) -> Any:
    return boxes.astype(np.float64) * np.array([1, 1, 1, 1, np.pi / 180])


@pytest.mark.golden
@pytest.mark.parametrize("program", ["rtr", "r3d"])
def test_equals_the_original_programs_iou(golden: Path, program: str) -> None:
    """By OpenCV in float32; r3d's aligned one adds 1 to all sides."""
    with np.load(golden / "tf" / "unit" / f"{program}.npz") as stored:
        pairs = [degrees_to_radians(stored[f"iou_rotate_calculate1.in.{name}"]) for name in "ab"]
        equals_opencv(rotated_iou(*pairs), stored["iou_rotate_calculate1.out"], *pairs)
        pairs = [degrees_to_radians(stored[f"iou_rotate_calculate2.in.{name}"]) for name in "ab"]
        if program == "r3d":
            pairs = [boxes + np.array([0, 0, 1, 1, 0]) for boxes in pairs]
        iou, expected = rotated_iou_aligned(*pairs), stored["iou_rotate_calculate2.out"][:, 0]
        np.testing.assert_allclose(iou, expected, rtol=0, atol=2e-6)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["normal", "small", "thin"])
def test_equals_opencv_beside_the_original_kernels(golden: Path, name: str) -> None:
    """The original's own kernels, stored beside it, are off by 0.3 on small boxes and by 1 on equal ones."""
    with np.load(golden / "tf" / "unit" / "cuda_iou.npz") as stored:
        pairs = [degrees_to_radians(stored[f"{name}.in.{one}"]) for one in "ab"]
        equals_opencv(rotated_iou(*pairs), stored[f"{name}.cv2"], *pairs)


def equals_opencv(iou: Any, opencv: Any, boxes1: Any, boxes2: Any) -> None:
    """Within float32's 1e-6, but for a few in a thousand pairs, whose corners OpenCV merges: there 50 digits decide."""
    apart = np.abs(iou - opencv) > 1e-6
    assert apart.sum() <= 0.005 * apart.size
    assert np.abs(iou - opencv).max() < 2e-4
    for row, column in zip(*apart.nonzero(), strict=True):
        assert abs(iou[row, column] - float(exact_iou(boxes1[row], boxes2[column]))) < 1e-12


# Pairwise and aligned, one text and the other


@each_aligned
@given(pair=rbox_pairs())
def test_aligned_is_the_diagonal(function: Callable[..., Tensor], pair: tuple[Any, Any]) -> None:
    boxes1, boxes2 = (torch.from_numpy(np.repeat(boxes, 3, axis=0)) for boxes in pair)
    for over in ("union", "first"):
        matrix = rotated_iou(boxes1, boxes2, over=over)
        torch.testing.assert_close(function(boxes1, boxes2, over=over), matrix.diagonal(), rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_boxes_in_both_texts(dtype: type) -> None:
    """More than one tile of the kernel and one portion of torch's; not the same number of rows as of columns."""
    boxes1, boxes2 = some(1, 300, dtype), some(2, 1100, dtype)
    atol = 1e-13 if dtype is np.float64 else 2**-23  # they may round to neighbours
    for over in ("union", "first"):
        by_torch = rotated_iou_torch(boxes1, boxes2, over)
        torch.testing.assert_close(rotated_iou(boxes1, boxes2, over), by_torch, rtol=0, atol=atol)
    assert ((by_torch > 0).sum(dim=1) > 5).all()


@each_pairwise
@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 3), (3, 0)])
def test_without_boxes(function: Callable[..., Tensor], n: int, m: int) -> None:
    assert function(torch.ones(n, 5), torch.ones(m, 5)).shape == (n, m)
    assert function(torch.ones(n, 5, requires_grad=True), torch.ones(m, 5)).shape == (n, m)
    assert rotated_iou_aligned(torch.ones(n, 5), torch.ones(n, 5)).shape == (n,)


def test_memory_does_not_grow_with_the_pairs() -> None:
    """Torch's text: 4,000 x 4,000 boxes that all overlap, in portions; of one go, 16 million pairs would be 8 GiB."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.3]]).repeat(1000, 1)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            answer = func(*args, **(kwargs or {}))
            if isinstance(answer, Tensor) and answer.dtype == torch.float64:
                largest = max(largest, answer.numel())
            return answer

    with Watch():
        assert (rotated_iou_torch(boxes, boxes) > 0.999).all()
    assert largest <= 1 << 15


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_answers_in_the_type_of_the_boxes(dtype: torch.dtype) -> None:
    boxes = torch.tensor([[8.0, 8.0, 4.0, 2.0, 0.5]], dtype=dtype)
    for function in (*PAIRWISE.values(), *ALIGNED.values()):
        assert function(boxes, boxes).dtype == dtype
        assert function(boxes, boxes).item() == 1


def test_numpy_is_answered_with_numpy() -> None:
    boxes = some(3, 5)
    expected = rotated_iou(boxes, boxes)
    for given_boxes in (boxes.numpy(), np.asfortranarray(boxes.numpy())):
        answer = rotated_iou(given_boxes, given_boxes)
        assert isinstance(answer, np.ndarray)
        np.testing.assert_array_equal(answer, expected)
    frozen = boxes.numpy().copy()
    frozen.setflags(write=False)
    np.testing.assert_array_equal(rotated_iou(frozen, frozen), expected)


def test_autocast_changes_nothing() -> None:
    boxes = some(4, 20, np.float32).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(rotated_iou(boxes, boxes), rotated_iou(boxes.detach(), boxes))
        assert rotated_iou_aligned(boxes, boxes).dtype == torch.float32


# Gradients


@pytest.mark.parametrize("over", ["union", "first"])
def test_gradcheck_aligned(over: str) -> None:
    boxes1, boxes2 = (boxes.clone().requires_grad_() for boxes in GENERIC.unbind(1))
    assert torch.autograd.gradcheck(lambda a, b: rotated_iou_aligned(a, b, over=over), (boxes1, boxes2))


def test_gradcheck_pairwise() -> None:
    generic = GENERIC[:1].reshape(2, 5), torch.tensor([[0.2, 0.1, 5.0, 2.0, 0.7], [40.0, 0.0, 1.0, 1.0, 0.0]])
    boxes1, boxes2 = (boxes.double().clone().requires_grad_() for boxes in generic)
    assert torch.autograd.gradcheck(rotated_iou, (boxes1, boxes2))


def test_gradcheck_random() -> None:
    """Overlapping ones, so that the numbers are not all 0."""
    boxes1 = some(5, 40)
    boxes2 = (
        boxes1 + torch.from_numpy(np.random.default_rng(6).uniform(-0.3, 0.3, (40, 5))) * boxes1[:, [2, 2, 2, 2, 2]]
    )
    boxes2[:, 2:4] = boxes2[:, 2:4].abs()
    assert (rotated_iou_aligned(boxes1, boxes2) > 0).float().mean() > 0.8
    assert torch.autograd.gradcheck(rotated_iou_aligned, (boxes1.requires_grad_(), boxes2.requires_grad_()))


@given(pair=rbox_pairs())
def test_gradient_is_finite(pair: tuple[Any, Any]) -> None:
    """Also at the kinks: equal boxes, shared edges, no area."""
    for dtype in (torch.float32, torch.float64):
        boxes1, boxes2 = (torch.from_numpy(boxes).to(dtype).requires_grad_() for boxes in pair)
        for over in ("union", "first"):
            gradients = torch.autograd.grad(rotated_iou_aligned(boxes1, boxes2, over=over).sum(), (boxes1, boxes2))
            assert all(gradient.isfinite().all() for gradient in gradients)


def test_gradient_at_identity_is_small() -> None:
    """At most what a nearby pair has: moving an edge by d costs about d / side."""
    boxes = some(7, 100).requires_grad_()
    rotated_iou_aligned(boxes, boxes.detach()).sum().backward()
    assert boxes.grad is not None
    assert (boxes.grad[:, :4].abs() <= 2 / boxes.detach()[:, 2:4].amin(dim=1, keepdim=True)).all()


def test_far_pairs_never_enter_the_graph() -> None:
    boxes1, boxes2 = GENERIC[-1:].unbind(1)
    boxes1 = boxes1.clone().requires_grad_()
    for function in (rotated_iou, rotated_iou_aligned):
        iou = function(boxes1, boxes2)
        assert iou.item() == 0
        assert torch.equal(torch.autograd.grad(iou.sum(), boxes1)[0], torch.zeros(1, 5, dtype=torch.float64))


def test_a_gradient_leads_one_box_onto_another() -> None:
    target = torch.tensor([[10.0, 8.0, 20.0, 6.0, 0.5]], dtype=torch.float64)
    box = torch.tensor([[12.0, 7.0, 16.0, 8.0, 0.2]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([box], lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        (1 - rotated_iou_aligned(box, target)).sum().backward()
        optimizer.step()
    assert rotated_iou_aligned(box.detach(), target).item() > 0.97  # it jitters by its step around the kink


# Tracing


class Pairwise(torch.nn.Module):
    def forward(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        return rotated_iou(boxes1, boxes2)


class Aligned(torch.nn.Module):
    def forward(self, boxes1: Tensor, boxes2: Tensor) -> Tensor:
        return rotated_iou_aligned(boxes1, boxes2)


def test_export_pairwise() -> None:
    n, m = torch.export.Dim("n"), torch.export.Dim("m")
    exported = torch.export.export(
        Pairwise(), (some(1, 7, np.float32), some(2, 5, np.float32)), dynamic_shapes=({0: n}, {0: m})
    )
    boxes1, boxes2 = some(3, 30, np.float32), some(4, 40, np.float32)
    torch.testing.assert_close(exported.module()(boxes1, boxes2), rotated_iou(boxes1, boxes2), rtol=0, atol=1e-7)


def test_export_aligned() -> None:
    n = torch.export.Dim("n")
    exported = torch.export.export(
        Aligned(), (some(1, 7, np.float32), some(2, 7, np.float32)), dynamic_shapes=({0: n}, {0: n})
    )
    boxes1, boxes2 = some(3, 50, np.float32), some(4, 50, np.float32)
    answer = exported.module()(boxes1, boxes2)
    torch.testing.assert_close(answer, rotated_iou_aligned(boxes1, boxes2), rtol=0, atol=1e-7)


def test_compile_keeps_the_graph_whole_and_the_gradient() -> None:
    """By a back end that only traces: what Inductor makes of a graph is not ours to test."""
    compiled = torch.compile(rotated_iou_aligned, backend="aot_eager", fullgraph=True)
    boxes1, boxes2 = (boxes.clone().requires_grad_() for boxes in GENERIC.unbind(1))
    answers = [torch.autograd.grad(function(boxes1, boxes2).sum(), (boxes1, boxes2)) for function in
               (compiled, rotated_iou_aligned)]  # fmt: skip
    torch.testing.assert_close(*answers, rtol=0, atol=1e-12)


def test_meta_device_has_shapes() -> None:
    boxes = torch.ones(3, 5, device="meta")
    assert rotated_iou(boxes, boxes[:2]).shape == (3, 2)
    assert rotated_iou_aligned(boxes, boxes).shape == (3,)


# Faults


@pytest.mark.parametrize("function", [rotated_iou, rotated_iou_aligned])
def test_faults_name_the_argument_and_the_row(function: Callable[..., Tensor]) -> None:
    good, bad = torch.ones(3, 5), torch.ones(3, 5)
    bad[1, 2] = -4
    with pytest.raises(FocaldetError, match=r"boxes2\[1\] is \[1.0, 1.0, -4.0, 1.0, 1.0\], with a negative side"):
        function(good, bad)
    bad[2, 4] = float("nan")
    with pytest.raises(FocaldetError, match=r"boxes1\[2\] is .*nan.*; give finite numbers"):
        function(bad, good)
    with pytest.raises(FocaldetError, match=r"boxes1 holds torch.float32 and boxes2 torch.float64; give both"):
        function(good, good.double())
    with pytest.raises(FocaldetError, match=r"boxes1 is on cpu and boxes2 on meta; bring them to one device"):
        function(good, good.to("meta"))
    with pytest.raises(FocaldetError, match=r"over is 'second'; give 'union' or 'first'"):
        function(good, good, over="second")


def test_aligned_sets_have_one_length() -> None:
    with pytest.raises(FocaldetError, match="boxes1 has 3 boxes and boxes2 2; aligned sets have equally many"):
        rotated_iou_aligned(torch.ones(3, 5), torch.ones(2, 5))
