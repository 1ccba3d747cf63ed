"""NMS of rboxes: stored answers, the plain loop, the properties of greedy NMS, hard crowds, faults."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry import nms as module
from focaldet.geometry.kernels.choose import why_not
from focaldet.geometry.nms import batched_rotated_nms, rotated_nms, rotated_nms_torch
from focaldet.geometry.rotated_iou import rotated_iou, rotated_iou_aligned
from strategies import FAMILIES, pairs_of

NEAR = 1e-11
"""What the exact IoU may be off by: pairs so near to a threshold may go either way."""
MANY = 100_000

Array = NDArray[Any]
Nms = Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]


def _by_torch(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, suppress: bool = False) -> Tensor:
    return rotated_nms_torch(boxes, scores, (group,), threshold, suppress)


def _public(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float, suppress: bool = False) -> Tensor:
    return batched_rotated_nms(boxes, scores, group, threshold, equal="suppress" if suppress else "keep")


both = pytest.mark.parametrize("nms", [_public, _by_torch], ids=["numba", "torch"])


@st.composite
def crowds(draw: st.DrawFn, max_boxes: int = 80) -> tuple[Tensor, Tensor, Tensor]:
    """Boxes (N, 5) float64 around few objects, scores (N,) of which many are equal, and groups (N,)."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    num_boxes, num_objects = draw(st.integers(1, max_boxes)), draw(st.integers(1, 8))
    reach, jitter = draw(st.sampled_from([1.0, 60.0, 1e6])), draw(st.sampled_from([1e-3, 0.1, 1.0]))
    objects = np.column_stack(
        [
            rng.uniform(-reach, reach, (num_objects, 2)),
            np.exp(rng.uniform(0, 5, (num_objects, 2))),
            rng.uniform(-4, 4, num_objects),
        ]
    )
    boxes = objects[rng.integers(0, num_objects, num_boxes)]
    boxes[:, :2] += jitter * boxes[:, 2:4].min(axis=1, keepdims=True) * rng.normal(size=(num_boxes, 2))
    boxes[:, 2:] += jitter * rng.normal(size=(num_boxes, 3)) * [1, 1, 0.1]
    boxes[:, 2:4] = boxes[:, 2:4].clip(min=0)  # some without area
    scores = rng.integers(0, draw(st.sampled_from([3, 10**6])), num_boxes) / 7
    group = rng.integers(0, draw(st.sampled_from([1, 3])), num_boxes)
    return torch.from_numpy(boxes), torch.from_numpy(scores), torch.from_numpy(group)


thresholds = st.sampled_from([0.0, 1e-4, 0.1, 0.3, 0.5, 0.9])


def _distance_to(threshold: float, boxes: Tensor) -> Tensor:
    iou = rotated_iou(boxes, boxes).double()
    return (iou - threshold).abs()[iou > 0]  # boxes apart are exactly so


def _plain(boxes: Tensor, scores: Tensor, group: Tensor, threshold: float) -> list[int]:
    """The greedy rule as one would say it, over the matrix of all IoUs."""
    iou = rotated_iou(boxes.double(), boxes.double())
    kept: list[int] = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i].item()):  # stable, as all of Python's sorts
        if not any(group[i] == group[k] and iou[k, i] > threshold for k in kept):
            kept.append(i)
    return kept


# Stored answers


@pytest.mark.golden
@both
@pytest.mark.parametrize("case", ["c0", "c1"])
@pytest.mark.parametrize("percent", [10, 30, 50])
@pytest.mark.parametrize("kind", ["agnostic", "perclass"])
def test_equals_the_stored_truth(golden: Path, nms: Nms, case: str, percent: int, kind: str) -> None:
    stored = np.load(golden / "rotated" / "nms.npz")
    boxes, scores, labels = (torch.from_numpy(stored[f"{case}_{name}"]) for name in ("boxes", "scores", "labels"))
    group = labels if kind == "perclass" else torch.zeros_like(labels)
    kept = nms(boxes, scores, group, percent / 100, False)
    assert kept.tolist() == stored[f"{case}_t{percent}_{kind}_truth"].tolist()
    if kind == "agnostic":
        assert torch.equal(rotated_nms(boxes, scores, percent / 100), kept)


@pytest.mark.golden
@both
@pytest.mark.parametrize("state", ["rtr", "r3d", "rtr_2019", "r3d_2020"])
def test_equals_the_original_program(golden: Path, nms: Nms, state: str) -> None:
    """Its CPU code suppresses at IoU >= threshold, adds 1e-5 to the union and takes OpenCV's intersection.

    No pair is nearer to a threshold than 1e-5, where these differences could show; at 1e-4, the smallest threshold,
    OpenCV and we agree which boxes touch at all. It stops after as many boxes as asked for.
    """
    stored = np.load(golden / "tf" / "unit" / f"{state}.npz")
    for threshold in (0.0001, 0.1, 0.3):
        for most in (10, 100):
            name = f"nms_rotate_cpu_{threshold}_{most}"
            boxes, scores = (torch.from_numpy(stored[f"{name}.in.{part}"]) for part in ("boxes", "scores"))
            boxes[:, 4].deg2rad_()  # the 90 form: degrees, clockwise
            assert _distance_to(threshold, boxes).min() > 1e-5
            kept = nms(boxes, scores, torch.zeros(len(boxes), dtype=torch.int64), threshold, True)
            assert kept[:most].tolist() == stored[f"{name}.out"].tolist()


# Properties


@both
@given(crowds(), thresholds)
def test_equals_the_plain_loop(nms: Nms, crowd: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    assume((_distance_to(threshold, crowd[0]) > NEAR).all())
    assert nms(*crowd, threshold, False).tolist() == _plain(*crowd, threshold)


@given(crowds(), thresholds)
def test_float32_boxes_are_compared_in_float64(crowd: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    boxes, scores, group = crowd
    assume((_distance_to(threshold, boxes.float().double()) > NEAR).all())
    assert torch.equal(
        _public(boxes.float(), scores, group, threshold), _public(boxes.float().double(), scores, group, threshold)
    )


@both
@given(crowds(), thresholds)
def test_twice_is_once(nms: Nms, crowd: tuple[Tensor, Tensor, Tensor], threshold: float) -> None:
    once = nms(*crowd, threshold, False)
    again = nms(*(part[once] for part in crowd), threshold, False)
    assert again.tolist() == list(range(len(once)))


@given(crowds(), thresholds, st.integers(0, 2**32))
def test_the_given_order_does_not_matter(crowd: tuple[Tensor, Tensor, Tensor], threshold: float, seed: int) -> None:
    boxes, scores, group = crowd
    generator = torch.Generator().manual_seed(seed)
    shuffled = torch.randperm(len(scores), generator=generator)
    scores = scores + 1e-9 * torch.arange(len(scores))  # no two are equal
    kept = _public(boxes[shuffled], scores[shuffled], group[shuffled], threshold)
    assert torch.equal(shuffled[kept], _public(boxes, scores, group, threshold))


@both
@given(crowds())
def test_a_label_is_as_if_alone(nms: Nms, crowd: tuple[Tensor, Tensor, Tensor]) -> None:
    boxes, scores, group = crowd
    kept = nms(boxes, scores, group, 0.3, False)
    for label in group.unique():
        own = (group == label).nonzero()[:, 0]
        alone = own[nms(boxes[own], scores[own], group[own], 0.3, False)]
        assert torch.equal(kept[group[kept] == label], alone)


@given(crowds(max_boxes=40), thresholds, st.sampled_from([3, 7, 64]))
def test_portions_do_not_show(crowd: tuple[Tensor, Tensor, Tensor], threshold: float, portion: int) -> None:
    whole = _by_torch(*crowd, threshold)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "PORTION", portion)
        assert torch.equal(_by_torch(*crowd, threshold), whole)


@both
def test_a_large_crowd(nms: Nms) -> None:
    """More boxes than a block, a region or a portion holds; the plain loop would take minutes."""
    rng = np.random.default_rng(0)
    boxes = np.column_stack([rng.uniform(0, 700, (5000, 2)), rng.uniform(8, 90, (5000, 2)), rng.uniform(-4, 4, 5000)])
    crowd = torch.from_numpy(boxes), torch.from_numpy(rng.random(5000)), torch.from_numpy(rng.integers(0, 2, 5000))
    kept, scores, group = nms(*crowd, 0.2, False), crowd[1], crowd[2]
    assert (scores[kept].diff() < 0).all()
    iou = rotated_iou(crowd[0], crowd[0][kept]) * (group[:, None] == group[kept])
    earlier = scores[:, None] < scores[kept]
    suppressed = (iou.where(earlier, 0) > 0.2).any(dim=1)
    assert ((iou.where(earlier, 0) - 0.2).abs() > NEAR).all()
    assert torch.equal((~suppressed).nonzero()[:, 0], kept.sort().values)


@pytest.mark.parametrize("far", [False, True], ids=["", "small and far"])
@pytest.mark.parametrize("name", FAMILIES)
def test_no_bound_rules_out_what_the_iou_does_not(name: str, far: bool) -> None:
    """A hair below a pair's own IoU the threshold drops the worse box, a hair above it does not."""
    boxes = torch.from_numpy(np.stack(pairs_of(name, 20), axis=1))
    if far:
        boxes[..., :4] *= 1e-3
        boxes[..., :2] += 1e6
    scores = torch.tensor([0.9, 0.8])
    iou = rotated_iou_aligned(boxes[:, 0], boxes[:, 1])
    for pair, own in zip(boxes[iou > 1e-3], iou[iou > 1e-3].tolist(), strict=True):
        assert rotated_nms(pair, scores, own - NEAR).tolist() == [0]
        assert own + NEAR > 1 or rotated_nms(pair, scores, own + NEAR).tolist() == [0, 1]


# Ties


@both
def test_an_equal_iou_keeps_unless_asked_otherwise(nms: Nms) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [0, 1, 4, 2, 0], [20, 0, 4, 4, 0]])  # 8 / 16: exact in binary
    scores, group = torch.tensor([0.9, 0.8, 0.7]), torch.zeros(3, dtype=torch.int64)
    assert nms(boxes, scores, group, 0.5, False).tolist() == [0, 1, 2]
    assert nms(boxes, scores, group, 0.5, True).tolist() == [0, 2]
    assert nms(boxes[[0, 0, 2]], scores, group, 1.0, False).tolist() == [0, 1, 2]
    assert nms(boxes[[0, 0, 2]], scores, group, 1.0, True).tolist() == [0, 2]


@both
@pytest.mark.parametrize("suppress", [False, True])
def test_an_iou_of_0_suppresses_nothing(nms: Nms, suppress: bool) -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [9, 0, 4, 4, 0], [4, 0, 4, 4, 0], [1, 0, 0, 4, 0], [1, 0, 0, 4, 0]])
    kept = nms(boxes, torch.linspace(1, 0, 5), torch.zeros(5, dtype=torch.int64), 0.0, suppress)
    assert kept.tolist() == [0, 1, 2, 3, 4]  # 0 and 2 share an edge, 3 and 4 have no area


# Labels and images


def test_images_are_kept_apart_like_labels() -> None:
    boxes = torch.tensor([[0.0, 0, 4, 4, 0.3]]).repeat(6, 1)
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    labels, images = torch.tensor([0, 0, 1, 1, 0, 2]), torch.tensor([0, 1, 0, 0, 1, 2])
    assert batched_rotated_nms(boxes, scores, labels, 0.5, images).tolist() == [0, 1, 2, 5]
    assert rotated_nms_torch(boxes, scores, (labels, images), 0.5).tolist() == [0, 1, 2, 5]


@both
def test_labels_may_be_any_numbers(nms: Nms) -> None:
    ends = torch.iinfo(torch.int64)
    group = torch.tensor([ends.min, ends.max, 0, ends.max, ends.min])
    boxes = torch.tensor([[1e6, -1e6, 4, 4, 0.3]]).repeat(5, 1)
    assert nms(boxes, torch.linspace(1, 0, 5), group, 0.5, False).tolist() == [0, 1, 2]
    kept = batched_rotated_nms(boxes, torch.linspace(1, 0, 5), group, 0.5, images=group)
    assert kept.tolist() == [0, 1, 2]


# Hard crowds: each takes hours if every pair is looked at


def _repeated(*box: float) -> Tensor:
    return torch.tensor([box], dtype=torch.float64).repeat(MANY, 1)


@pytest.mark.skipif(bool(why_not("numba")), reason="minutes by torch")
@pytest.mark.parametrize(
    ("boxes", "labels", "threshold", "kept"),
    [
        (_repeated(5, 5, 4, 2, 0.3), torch.zeros(MANY), 0.5, 1),
        (_repeated(1e6, -1e6, 4, 2, 0.3), torch.zeros(MANY), 0.999, 1),
        (_repeated(5, 5, 4, 2, 0.3), torch.zeros(MANY), 1.0, MANY),
        (_repeated(5, 5, 4, 2, 0.3), torch.arange(MANY), 0.0, MANY),
        (_repeated(5, 5, 4, 0, 0.3), torch.zeros(MANY), 0.0, MANY),
        (_repeated(5, 5, 0, 0, 0.3), torch.zeros(MANY), 0.5, MANY),
    ],
    ids=["the same", "the same, far away", "the same at 1", "a label each", "lines", "points"],
)
def test_crowds_in_one_place(boxes: Tensor, labels: Tensor, threshold: float, kept: int) -> None:
    rotated_nms(boxes[:2], torch.ones(2), 0.5)  # loads the kernel
    memory, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    assert len(batched_rotated_nms(boxes, torch.ones(MANY), labels.long(), threshold)) == kept
    assert time.process_time() - start < 2  # 0.04 s; the limit is for a busy machine
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 200_000  # KiB


# What is taken and given


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_nothing_gives_nothing(nms: Nms, dtype: torch.dtype) -> None:
    kept = nms(
        torch.zeros(0, 5, dtype=dtype), torch.zeros(0, dtype=dtype), torch.zeros(0, dtype=torch.int64), 0.5, False
    )
    assert kept.shape == (0,) and kept.dtype == torch.int64


def test_takes_numpy_half_precision_gradients_and_views() -> None:
    wide = torch.tensor([[8.0, 8, 4, 2, 0.5, 9], [8, 8, 4, 2, 0.5, 9], [30, 8, 4, 2, 0.5, 9]])
    boxes, scores = wide[:, :5], torch.tensor([[0.5, 9], [0.75, 9], [0.25, 9]])[:, 0]
    answer = rotated_nms(boxes.numpy(), scores.numpy(), 0.5)
    assert isinstance(answer, np.ndarray) and answer.dtype == np.int64 and answer.tolist() == [1, 2]
    assert rotated_nms(boxes, scores.half(), 0.5).tolist() == [1, 2]
    assert rotated_nms(boxes.bfloat16(), scores.bfloat16(), 0.5).tolist() == [1, 2]
    kept = rotated_nms(boxes.clone().requires_grad_(), scores.clone().requires_grad_(), 0.5)
    assert kept.tolist() == [1, 2] and not kept.requires_grad


def test_torch_answers_where_numba_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "numba_fits", lambda *_: False)
    boxes = torch.tensor([[0.0, 0, 4, 4, 0], [0, 1, 4, 2, 0]])
    scores, labels = torch.tensor([0.1, 0.2]), torch.tensor([3, 3])
    assert rotated_nms(boxes, scores, 0.4).tolist() == [1]
    assert batched_rotated_nms(boxes, scores, labels, 0.5, images=labels).tolist() == [1, 0]
    assert batched_rotated_nms(boxes, scores, labels, 0.5, images=labels, equal="suppress").tolist() == [1]


def test_can_be_exported() -> None:
    class Last(torch.nn.Module):
        def forward(self, boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
            return batched_rotated_nms(boxes, scores, labels, 0.3)

    def crowd(size: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = np.random.default_rng(size)
        boxes = np.column_stack(
            [rng.uniform(0, 99, (size, 2)), rng.uniform(1, 60, (size, 2)), rng.uniform(-4, 4, size)]
        )
        return (
            torch.from_numpy(boxes).float(),
            torch.from_numpy(rng.random(size)),
            torch.from_numpy(rng.integers(0, 2, size)),
        )

    any_number = torch.export.Dim("boxes", min=2, max=5000)
    exported = torch.export.export(Last(), crowd(9), dynamic_shapes=({0: any_number},) * 3).module()
    for size in (2, 50, 400):
        assert torch.equal(exported(*crowd(size)), Last()(*crowd(size)))


# Faults


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"boxes": torch.zeros(3, 4)}, r"boxes has shape \(3, 4\); give rboxes"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1, 0], [0, 0, 1, -1, 0], [0, 0, 1, 1, 0]])}, r"boxes\[1\].*negative side"),
        ({"boxes": torch.tensor([[0.0, 0, 1, 1, 0]] * 2 + [[0, 0, 1, 1, torch.inf]])}, r"boxes\[2\].*finite"),
        ({"scores": torch.tensor([0.5, torch.nan, torch.nan])}, r"scores\[1\] is \[nan\]; give finite"),
        ({"scores": torch.tensor([0.5, 0.5, torch.inf])}, r"scores\[2\] is \[inf\]; give finite"),
        ({"scores": torch.ones(2)}, r"scores has shape \(2,\) for 3 boxes; give one number a box"),
        ({"scores": torch.ones(3, 1)}, r"scores has shape \(3, 1\) for 3 boxes"),
        ({"scores": torch.ones(3, dtype=torch.int64)}, "scores holds torch.int64; .* floating-point"),
        ({"scores": [0.1, 0.2, 0.3]}, "scores is a list; give one number a box"),
        ({"labels": torch.zeros(3)}, "labels holds torch.float32; give whole numbers as int64"),
        ({"labels": torch.zeros(4, dtype=torch.int64)}, r"labels has shape \(4,\) for 3 boxes"),
        ({"labels": torch.zeros(3, dtype=torch.int64, device="meta")}, "boxes is on cpu and labels on meta"),
        ({"images": torch.zeros(3, dtype=torch.bool)}, "images holds torch.bool"),
        ({"iou_threshold": 1.5}, "iou_threshold is 1.5; give a number from 0 to 1"),
        ({"iou_threshold": -0.1}, "iou_threshold is -0.1"),
        ({"iou_threshold": float("nan")}, "iou_threshold is nan"),
        ({"equal": "drop"}, "equal is 'drop'; give 'keep' or 'suppress'"),
    ],
)
def test_bad_arguments_are_named(change: dict[str, Any], message: str) -> None:
    good = {"boxes": torch.ones(3, 5), "scores": torch.ones(3), "labels": torch.ones(3, dtype=torch.int64)}
    with pytest.raises(FocaldetError, match=message):
        batched_rotated_nms(**{**good, "iou_threshold": 0.5, **change})
    if not {"labels", "images"} & change.keys():
        arguments = {**good, "iou_threshold": 0.5, **change}
        del arguments["labels"]
        with pytest.raises(FocaldetError, match=message):
            rotated_nms(**arguments)


def test_arrays_and_tensors_are_not_mixed() -> None:
    with pytest.raises(FocaldetError, match="tensors and numpy arrays"):
        rotated_nms(torch.zeros(1, 5), np.zeros(1), 0.5)
