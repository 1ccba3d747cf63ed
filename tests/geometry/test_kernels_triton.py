"""The Triton kernels without a GPU: run by Triton's interpreter, and compiled for one; with a GPU, run on it.

The interpreter must be asked for before Triton is imported, so it lives in a process of its own, which this file is
when it is run as a script. It costs some 30 ms a program however small, so most tests ask for large tiles.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

if __name__ != "__main__":  # the interpreter's process has no need of them, and starts faster without
    from focaldet.geometry import batched_rotated_nms, rotated_iou
    from focaldet.geometry.kernels import iou as exact
    from strategies import FAMILIES, pairs_of

    pytest.importorskip("triton")

Array = NDArray[Any]

TOLERANCE = 2e-6
"""Measured: 8e-7, of 2,000 pairs a family. The promise is 1e-5 up to 100:1 and 1e-4 at 1000:1."""
ONE_TILE = {"PAIR_ROWS": 512, "PAIR_COLUMNS": 512, "ALIGNED_PAIRS": 8192, "NMS_ROWS": 1024, "SEGMENT_WORDS": 16}


class Interpreter:
    """Calls functions of `focaldet.geometry.kernels.triton` in a process where CPU tensors are their device."""

    def __init__(self) -> None:
        environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-W", "ignore", __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def __call__(self, name: str, *arguments: Any, **settings: int) -> Any:
        """Return `name(*arguments)`, as arrays, with module constants set as `settings` say."""
        assert self.process.stdin is not None and self.process.stdout is not None
        pickle.dump((name, arguments, settings), self.process.stdin)
        self.process.stdin.flush()
        return pickle.load(self.process.stdout)


def serve() -> None:
    """Answer the calls of an `Interpreter` until it closes the pipe."""
    from focaldet.geometry.kernels import triton as kernels

    shipped = {name: getattr(kernels, name) for name in ONE_TILE}
    answers, sys.stdout = sys.stdout.buffer, sys.stderr
    while True:
        try:
            name, arguments, settings = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        for constant, value in {**shipped, **settings}.items():
            setattr(kernels, constant, value)
        given = [torch.from_numpy(item) if isinstance(item, np.ndarray) else item for item in arguments]
        pickle.dump(getattr(kernels, name)(*given).numpy(), answers)
        answers.flush()


@pytest.fixture(scope="module")
def interpret() -> Iterator[Interpreter]:
    interpreter = Interpreter()
    yield interpreter
    interpreter.process.communicate()


def some_boxes(count: int, seed: int = 0, extent: float = 200.0) -> Array:
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(4), np.log(80), (count, 2)))
    boxes = np.column_stack([rng.uniform(0, extent, (count, 2)), sides, rng.uniform(-4, 4, count)])
    return boxes.astype(np.float32)


def greedy(boxes: Array, scores: Array, group: Array, iou_threshold: float, equal_suppresses: bool = False) -> Array:
    """NMS by its definition, on the exact matrix."""
    iou = exact.pairwise_iou(boxes.astype(np.float64), boxes.astype(np.float64), False)
    over = (iou >= iou_threshold if equal_suppresses else iou > iou_threshold) & (group[:, None] == group)
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not over[kept, index].any():
            kept.append(int(index))
    return np.array(kept, dtype=np.int64)


# Run by the interpreter


@pytest.mark.parametrize("over_first", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nasty_pairs_of_every_family(interpret: Interpreter, dtype: type, over_first: bool) -> None:
    pairs = [pairs_of(name, 100) for name in FAMILIES]
    boxes1, boxes2 = (np.concatenate(side).astype(dtype) for side in zip(*pairs, strict=True))
    answer = interpret("aligned_iou", boxes1, boxes2, over_first, **ONE_TILE)
    assert answer.dtype == dtype and ((answer >= 0) & (answer <= 1)).all()  # a NaN is neither
    expected = exact.aligned_iou(boxes1.astype(np.float64), boxes2.astype(np.float64), over_first)
    errors = np.abs(answer - expected).reshape(len(FAMILIES), -1).max(axis=1)
    assert not {name: error for name, error in zip(FAMILIES, errors, strict=True) if not error <= TOLERANCE}


@pytest.mark.golden
def test_equals_the_stored_iou(interpret: Interpreter, golden: Path) -> None:
    with np.load(golden / "rotated" / "iou.npz") as stored:
        boxes1, boxes2, truth, shared = (stored[name] for name in ("boxes1", "boxes2", "iou_shapely", "inter_shapely"))
    iou = interpret("pairwise_iou", boxes1, boxes2, False, **ONE_TILE)
    np.testing.assert_allclose(iou, truth, rtol=0, atol=TOLERANCE)
    area = boxes1[:, 2:3].astype(np.float64) * boxes1[:, 3:4]
    share = interpret("pairwise_iou", boxes1, boxes2, True, **ONE_TILE)
    np.testing.assert_allclose(share, shared / np.where(area > 0, area, 1), rtol=0, atol=TOLERANCE)


def test_tiles_as_they_ship(interpret: Interpreter) -> None:
    boxes1, boxes2 = some_boxes(37, seed=1), some_boxes(70, seed=2)  # neither fills its last tile
    expected = exact.pairwise_iou(boxes1.astype(np.float64), boxes2.astype(np.float64), False)
    np.testing.assert_allclose(interpret("pairwise_iou", boxes1, boxes2, False), expected, rtol=0, atol=TOLERANCE)
    aligned = interpret("aligned_iou", np.repeat(boxes1, 4, 0), np.repeat(boxes2[:37], 4, 0), False)
    np.testing.assert_allclose(aligned, expected.diagonal().repeat(4), rtol=0, atol=TOLERANCE)


def test_boxes_far_apart_are_exactly_zero(interpret: Interpreter) -> None:
    boxes = some_boxes(20)
    beyond = boxes + np.float32([1000, 0, 0, 0, 0])
    assert not interpret("pairwise_iou", boxes, beyond, False).any()
    assert not interpret("aligned_iou", boxes, beyond, True).any()


def test_no_boxes(interpret: Interpreter) -> None:
    none, boxes = some_boxes(0), some_boxes(3)
    assert interpret("pairwise_iou", none, boxes, False).shape == (0, 3)
    assert interpret("pairwise_iou", boxes, none, False).shape == (3, 0)
    assert interpret("aligned_iou", none, none, False).shape == (0,)
    assert interpret("nms", none, none[:, 0], np.zeros(0, np.int64), 0.5).shape == (0,)


@pytest.mark.parametrize("scale", [1e-15, 1e-3, 1e9, 1e18])
def test_unmoved_by_scale(interpret: Interpreter, scale: float) -> None:
    """Areas stay in the range of float32 for sides from 1e-15 to 1e18."""
    boxes1, boxes2 = some_boxes(64, seed=1, extent=30) / 80, some_boxes(64, seed=2, extent=30) / 80
    scales = np.array([scale] * 4 + [1])
    expected = exact.aligned_iou(boxes1.astype(np.float64), boxes2.astype(np.float64), False)
    answer = interpret("aligned_iou", boxes1 * scales, boxes2 * scales, False)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=TOLERANCE)


def test_never_a_nan(interpret: Interpreter) -> None:
    """Not even of numbers that the public functions refuse."""
    nan, inf = np.nan, np.inf
    checked = [[0, 0, 0, 0, 0], [0, 0, 3, 0, 1], [0, 0, 3e38, 3e38, 0.3], [0, 0, 1e-30, 1e-30, 0]]
    unchecked = [[nan, 0, 1, 1, 0], [inf, 0, 1, 1, 0], [0, 0, inf, 1, 0], [0, 0, 1, 1, nan]]
    boxes = np.array([*checked, *unchecked], np.float32)
    for over_first in (False, True):
        answer = interpret("pairwise_iou", boxes, boxes, over_first)
        assert ((answer >= 0) & (answer <= 1)).all()


@pytest.mark.parametrize("angle", [1e-45, 1e-39, 1e-20])
def test_sines_too_small_for_float32(interpret: Interpreter, angle: float) -> None:
    boxes = np.array([[10, 20, 4, 2, 0]], np.float64)
    turned = np.array([[11, 20, 4, 2, angle]], np.float64)
    assert interpret("aligned_iou", boxes, turned, False)[0] == pytest.approx(0.6, abs=TOLERANCE)
    assert interpret("aligned_iou", turned, boxes, False)[0] == pytest.approx(0.6, abs=TOLERANCE)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "segment"), [("c0", 4096), ("c1", 128)])
def test_equals_the_stored_nms(interpret: Interpreter, golden: Path, case: str, segment: int) -> None:
    with np.load(golden / "rotated" / "nms.npz") as file:
        stored = {name: file[name] for name in file.files if name.startswith(case)}
    boxes, scores, labels = (stored[f"{case}_{name}"] for name in ("boxes", "scores", "labels"))
    for group, name in ((labels, "perclass"), (np.zeros_like(labels), "agnostic")):
        for percent in (10, 30, 50):
            kept = interpret("nms", boxes, scores, group, percent / 100, False, segment, **ONE_TILE)
            assert kept.tolist() == stored[f"{case}_t{percent}_{name}_truth"].tolist()


@pytest.mark.parametrize("segment", [4096, 64])
def test_nms_as_it_ships(interpret: Interpreter, segment: int) -> None:
    """Equal scores, groups with any numbers, several words; no IoU of these boxes is within 1e-5 of the threshold."""
    boxes, rng = some_boxes(150, seed=3), np.random.default_rng(4)
    scores, group = rng.integers(0, 8, 150).astype(np.float32), rng.choice([-(2**40), 0, 7, 2**62], 150)
    kept = interpret("nms", boxes, scores, group, 0.1, False, segment)
    assert kept.tolist() == greedy(boxes, scores, group, 0.1).tolist()


def test_a_long_chain(interpret: Interpreter) -> None:
    """Every box suppresses only the next, so that the 64 boxes of a word are settled one after the other."""
    chain = np.zeros((130, 5), np.float32)
    chain[:, 0], chain[:, 2], chain[:, 3] = np.arange(130), 1.9, 1.0
    scores = np.linspace(1, 0, 130, dtype=np.float32)
    kept = interpret("nms", chain, scores, np.zeros(130, np.int64), 0.2, **ONE_TILE)
    assert kept.tolist() == list(range(0, 130, 2))


def test_equal_to_the_threshold(interpret: Interpreter) -> None:
    boxes = np.array([[0, 0, 4, 2, 0], [0, 0, 2, 2, 0], [50, 0, 1, 1, 0]], np.float32)  # halves: an IoU of 0.5
    scores, group = np.array([0.9, 0.8, 0.7], np.float32), np.zeros(3, np.int64)
    assert interpret("nms", boxes, scores, group, 0.5).tolist() == [0, 1, 2]
    assert interpret("nms", boxes, scores, group, 0.5, True).tolist() == [0, 2]
    assert interpret("nms", boxes, scores, group, 0.0, True).tolist() == [0, 2]


# Compiled for a GPU


@contextmanager
def cache_in(folder: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_CACHE_DIR", str(folder))
        yield


def resources(kernel: Any, types: dict[str, str], constants: dict[str, Any], options: dict[str, Any]) -> dict[str, int]:
    """Compile for an H100 and return what a thread needs: REG, STACK, LOCAL, ... as the code's own tables say.

    Registers that do not fit are spilled into the stack, so that an empty stack means that none was.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = list(kernel.arg_names)
    signature = {name: types.get(name, "constexpr") for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    binary = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with cubin_file(binary) as path:
        listing = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True)
    (usage,) = [line.split() for line in listing.stdout.splitlines() if "REG:" in line]
    return {key: int(value) for key, value in (item.split(":") for item in usage if item.count(":") == 1)}


@contextmanager
def cubin_file(binary: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        yield file.name


BOXES = {"table": "*fp32", "group": "*i64", "gone": "*i8", "first": "i32", "last": "i32", "count": "i32"}


def shipped() -> Iterator[Any]:
    """Every kernel with the tile sizes, types and options that it is launched with."""
    from focaldet.geometry.kernels import triton as host
    from focaldet.geometry.kernels import triton_kernels as kernels

    tables = {"table1": "*fp32", "table2": "*fp32"}
    for over_first in (False, True):
        for answer in ("*fp32", "*fp64") if not over_first else ("*fp32",):
            sizes = {"OVER_FIRST": over_first, "ROWS": host.PAIR_ROWS, "COLUMNS": host.PAIR_COLUMNS}
            types = {**tables, "answer": answer, "count1": "i32", "count2": "i32"}
            yield kernels.fill_pairwise, types, sizes, host.OPTIONS
        sizes = {"OVER_FIRST": over_first, "PAIRS": host.ALIGNED_PAIRS}
        yield kernels.fill_aligned, {**tables, "answer": "*fp32", "count": "i32"}, sizes, host.OPTIONS
    sizes = {"WORDS": host.SEGMENT_WORDS, "ROWS": host.NMS_ROWS}
    yield kernels.fill_mask, {**BOXES, "limit": "fp32", "mask": "*i64"}, sizes, host.OPTIONS
    yield kernels.suppress, {**BOXES, "limit": "fp32"}, {"ROWS": host.NMS_ROWS}, host.OPTIONS
    types = {"mask": "*i64", "gone": "*i8", "first": "i32", "last": "i32"}
    yield kernels.resolve, types, {"WORDS": host.SEGMENT_WORDS}, host.RESOLVE_OPTIONS


def test_compiled_without_stack_or_spills(tmp_path: Path) -> None:
    with cache_in(tmp_path):
        for kernel, types, constants, options in shipped():
            needs = resources(kernel, types, constants, options)
            assert needs["STACK"] == needs["LOCAL"] == 0, (kernel.__name__, constants, needs)


def test_a_spill_is_noticed(tmp_path: Path) -> None:
    """The check above does find spills: a tile that is far too large for its threads has them."""
    from focaldet.geometry.kernels import triton_kernels as kernels

    types = {"table1": "*fp32", "table2": "*fp32", "answer": "*fp32", "count": "i32"}
    with cache_in(tmp_path):
        options = {"num_warps": 1, "enable_fp_fusion": True}
        needs = resources(kernels.fill_aligned, types, {"OVER_FIRST": False, "PAIRS": 512}, options)
    assert needs["STACK"] > 0


# Run on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnDevice:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("over_first", [False, True])
    def test_iou(self, dtype: torch.dtype, over_first: bool) -> None:
        from focaldet.geometry.kernels import triton as kernels

        boxes1, boxes2 = (
            torch.from_numpy(np.concatenate(side)).to(dtype)
            for side in zip(*(pairs_of(name, 500) for name in FAMILIES), strict=True)
        )
        expected = exact.aligned_iou(boxes1.double().numpy(), boxes2.double().numpy(), over_first)
        answer = kernels.aligned_iou(boxes1.cuda(), boxes2.cuda(), over_first).cpu()
        assert answer.dtype == dtype and ((answer >= 0) & (answer <= 1)).all()
        np.testing.assert_allclose(answer, expected, rtol=0, atol=TOLERANCE)
        matrix = kernels.pairwise_iou(boxes1[:3000].cuda(), boxes2[:3001].cuda(), over_first).cpu()
        expected = exact.pairwise_iou(boxes1[:3000].double().numpy(), boxes2[:3001].double().numpy(), over_first)
        np.testing.assert_allclose(matrix, expected, rtol=0, atol=TOLERANCE)

    def test_public_iou(self) -> None:
        boxes = torch.from_numpy(some_boxes(500))
        answer = rotated_iou(boxes.cuda(), boxes.cuda())
        assert answer.is_cuda
        torch.testing.assert_close(answer.cpu(), rotated_iou(boxes, boxes), rtol=0, atol=TOLERANCE)

    @pytest.mark.golden
    @pytest.mark.parametrize("segment", [4096, 128])
    @pytest.mark.parametrize("case", ["c0", "c1"])
    def test_nms(self, golden: Path, case: str, segment: int) -> None:
        from focaldet.geometry.kernels import triton as kernels

        with np.load(golden / "rotated" / "nms.npz") as file:
            stored = {name: torch.from_numpy(file[name]) for name in file.files if name.startswith(case)}
        boxes, scores, labels = (stored[f"{case}_{name}"].cuda() for name in ("boxes", "scores", "labels"))
        for percent in (10, 30, 50):
            kept = kernels.nms(boxes, scores, labels, percent / 100, False, segment).cpu()
            assert torch.equal(kept, stored[f"{case}_t{percent}_perclass_truth"])

    def test_nms_of_many(self) -> None:
        """Of 20,000 boxes, some IoUs are within rounding of the threshold: hardly any box may come or go."""
        boxes, rng = torch.from_numpy(some_boxes(20_000, extent=1500.0)), np.random.default_rng(1)
        scores, labels = torch.from_numpy(rng.random(20_000)).float(), torch.from_numpy(rng.integers(0, 15, 20_000))
        expected = set(batched_rotated_nms(boxes, scores, labels, 0.1).tolist())
        kept = set(batched_rotated_nms(boxes.cuda(), scores.cuda(), labels.cuda(), 0.1).tolist())
        assert len(expected ^ kept) <= 10


if __name__ == "__main__":
    serve()
