"""`python benchmarks/exactness.py [--pairs N] [--peer-pairs N] [--write]`: how far rotated IoU is from the truth.

Every family of tests/strategies.py, N pairs each, against clipping in 31 digits (tests/oracle.py): first each back end
of focaldet on a CPU, then every other program that can be imported, then a search for the worst pair there is.
--write puts the tables into docs/exactness.md, between its two marks. Ends with 1 if a promise of docs/exactness.md
is broken. 100,000 pairs a family take about five minutes of one core.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from focaldet.bench.machine import describe_machine
from focaldet.geometry.rotated_iou import rotated_iou_aligned, rotated_iou_aligned_torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from oracle import true_ious  # noqa: E402
from strategies import FAMILIES, pairs_of  # noqa: E402

PAGE = ROOT / "docs" / "exactness.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"
SEED = 2026  # the tests have others
WRONG = 1e-3
"""An IoU that is off by more than this changes what NMS keeps and what counts as a hit."""

Array = NDArray[Any]


@dataclass(frozen=True)
class Contender:
    """A program for rotated IoU.

    Attributes:
        name: with what it computes.
        ious: takes what `given` answered, twice; (n,) IoUs of row with row.
        given: (n, 5) rboxes in float64 -> what the program is handed, in its own units and type.
        meant: the reverse, in float64: the boxes whose IoU the program was asked for. The rounding of its input is
            not counted as its error.
        promise: largest error allowed; None where nobody promised any.
    """

    name: str
    ious: Callable[[Array, Array], Array]
    given: Callable[[Array], Array] = lambda boxes: boxes
    meant: Callable[[Array], Array] = lambda boxes: boxes.astype(np.float64)
    promise: float | None = None


def float32(boxes: Array) -> Array:
    return boxes.astype(np.float32)


def degrees(boxes: Array) -> Array:
    """Return float32 boxes with counter-clockwise degrees."""
    return np.column_stack([boxes[:, :4], -np.rad2deg(boxes[:, 4])]).astype(np.float32)


def radians(boxes: Array) -> Array:
    """Return what `degrees` made, in radians clockwise, without rounding it to float32."""
    boxes = boxes.astype(np.float64)
    return np.column_stack([boxes[:, :4], -np.deg2rad(boxes[:, 4])])


# Contenders


def ours() -> list[Contender]:
    numba, text = by_torch(rotated_iou_aligned), by_torch(rotated_iou_aligned_torch)
    return [
        Contender("numba, float64", numba, promise=1e-11),
        Contender("torch, float64", text, promise=1e-11),
        Contender("numba, float32", numba, float32, promise=1e-6),
        Contender("torch, float32", text, float32, promise=1e-6),
    ]


def by_torch(function: Callable[..., torch.Tensor]) -> Callable[[Array, Array], Array]:
    return lambda boxes1, boxes2: function(torch.from_numpy(boxes1), torch.from_numpy(boxes2)).numpy()


def peers() -> list[Contender]:
    """Return the other programs that are there."""
    makers = {"shapely": shapely, "cv2": opencv, "torchvision": torchvision, "detectron2": detectron2, "mmcv": mmcv}
    found = [make() for module, make in makers.items() if importlib.util.find_spec(module) is not None]
    return [contender for contender in found if contender is not None]


def shapely() -> Contender:
    """GEOS, in float64."""
    import shapely

    def polygons(boxes: Array) -> Array:
        cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
        u, v = (0.5 * boxes[:, [side]] * np.column_stack(way) for side, way in ((2, (cos, sin)), (3, (-sin, cos))))
        corners = np.stack([-u - v, u - v, u + v, v - u], 1) + boxes[:, None, :2]
        return np.asarray(shapely.polygons(corners))

    def ious(boxes1: Array, boxes2: Array) -> Array:
        areas = shapely.area(shapely.intersection(polygons(boxes1), polygons(boxes2)))
        return over_union(areas, boxes1, boxes2)

    return Contender("shapely", ious)


def over_union(areas: Array, boxes1: Array, boxes2: Array) -> Array:
    union = boxes1[:, 2] * boxes1[:, 3] + boxes2[:, 2] * boxes2[:, 3] - areas
    return np.divide(areas, union, out=np.zeros(len(areas)), where=union > 0)


def opencv() -> Contender:
    """rotatedRectangleIntersection, as the loops of many repositories call it."""
    import cv2

    def area(box1: list[float], box2: list[float]) -> float:
        first, second = (((x, y), (w, h), -theta) for x, y, w, h, theta in (box1, box2))
        try:
            _, points = cv2.rotatedRectangleIntersection(first, second)
        except cv2.error:
            return np.nan
        return 0.0 if points is None else float(cv2.contourArea(cv2.convexHull(points)))

    def ious(boxes1: Array, boxes2: Array) -> Array:
        areas = np.array([area(*pair) for pair in zip(boxes1.tolist(), boxes2.tolist(), strict=True)])
        return over_union(areas, boxes1.astype(np.float64), boxes2.astype(np.float64))

    return Contender("OpenCV", ious, degrees, radians)


def torchvision() -> Contender:
    """box_iou with fmt="cxcywhr"."""
    from torchvision.ops import box_iou

    return Contender("torchvision", diagonal(partial(box_iou, fmt="cxcywhr")), degrees, radians)


def detectron2() -> Contender | None:
    """pairwise_iou_rotated, where the package's compiled operators are there."""
    try:
        from detectron2.layers.rotated_boxes import pairwise_iou_rotated

        return Contender("detectron2", diagonal(pairwise_iou_rotated), degrees, radians)
    except (ImportError, AttributeError, RuntimeError):
        return None


def mmcv() -> Contender | None:
    """box_iou_rotated in its clockwise form, where the package's compiled operators are there."""
    try:
        from mmcv.ops import box_iou_rotated
    except ImportError:
        return None

    def ious(boxes1: Array, boxes2: Array) -> Array:
        answer = box_iou_rotated(torch.from_numpy(boxes1), torch.from_numpy(boxes2), aligned=True)
        return np.asarray(answer.numpy())

    return Contender("mmcv", ious, float32)


def diagonal(pairwise: Callable[..., torch.Tensor]) -> Callable[[Array, Array], Array]:
    """Take pairs, row by row, from a function of all pairs."""

    def ious(boxes1: Array, boxes2: Array) -> Array:
        blocks = zip(torch.from_numpy(boxes1).split(8), torch.from_numpy(boxes2).split(8), strict=True)
        return torch.cat([pairwise(*block).diagonal() for block in blocks]).numpy()

    return ious


# Measuring


@dataclass(frozen=True)
class Errors:
    """What one contender did on one family: largest error (nan if an answer is), share off by `WRONG`, range kept."""

    largest: float
    wrong: float
    in_range: bool


def measure(contenders: list[Contender], num_pairs: int) -> Iterator[tuple[str, list[Errors]]]:
    """Yield every family with what each contender did on it."""
    for name in FAMILIES:
        pair = pairs_of(name, num_pairs, SEED)
        yield name, [errors_of(contender, *pair) for contender in contenders]
        print(f"{time.process_time():.0f} s: {name}", file=sys.stderr, flush=True)


def errors_of(contender: Contender, boxes1: Array, boxes2: Array) -> Errors:
    given = contender.given(boxes1), contender.given(boxes2)
    answer = contender.ious(*given)
    error = np.abs(answer - true_ious(*(contender.meant(boxes) for boxes in given)))
    return Errors(float(error.max()), float((~(error <= WRONG)).mean()), bool(((answer >= 0) & (answer <= 1)).all()))


def search(contender: Contender, generations: int = 150, survivors: int = 7_000) -> tuple[float, Array, Array]:
    """Look for the worst pair by mutation and selection, from pairs of all families; return its error and boxes.

    Numbers are changed by 1e-17 to 1 of the sides. Boxes stay within what is promised: sides of 0.001 to 2,000 with
    aspect up to 10,000, centres up to 10^6.
    """
    rng = np.random.default_rng(SEED)
    start = [pairs_of(name, survivors // len(FAMILIES), SEED) for name in FAMILIES]
    boxes = np.stack([np.concatenate(side) for side in zip(*start, strict=True)], 1)  # (n, 2, 5)
    errors = np.abs(contender.ious(*both(boxes)) - true_ious(*both(boxes)))
    for _ in range(generations):
        children = boxes[rng.choice(np.argsort(-errors)[: survivors // 2], survivors)]
        unit = np.concatenate([children[:, 1, [2, 3, 2, 3]], np.ones((survivors, 1))], 1)
        size = 10.0 ** rng.uniform(-17, 0, unit.shape) * (rng.random(unit.shape) < 0.4)
        children[:, 1] += rng.choice([-1, 1], unit.shape) * size * unit
        exchanged = rng.random(survivors) < 0.2
        children[exchanged] = children[exchanged, ::-1]
        children = children[promised(children)]
        boxes = np.concatenate([boxes, children])
        errors = np.concatenate([errors, np.abs(contender.ious(*both(children)) - true_ious(*both(children)))])
        best = np.argsort(-errors)[:survivors]
        boxes, errors = boxes[best], errors[best]
    return float(errors[0]), boxes[0, 0], boxes[0, 1]


def both(boxes: Array) -> tuple[Array, Array]:
    return np.ascontiguousarray(boxes[:, 0]), np.ascontiguousarray(boxes[:, 1])


def promised(boxes: Array) -> NDArray[np.bool_]:
    """Return (n,) which pairs (n, 2, 5) the promise is about."""
    short, long = boxes[..., 2:4].min(-1), boxes[..., 2:4].max(-1)
    fair = (short >= 1e-3) & (long <= 2e3) & (long <= 1e4 * short)
    return np.asarray((fair & (np.abs(boxes[..., :2]).max(-1) <= 1e6)).all(1))


# Telling


def table(contenders: list[Contender], rows: dict[str, list[Errors]]) -> list[str]:
    lines = ["| family | " + " | ".join(contender.name for contender in contenders) + " |"]
    lines += ["|---" * (len(contenders) + 1) + "|"]
    lines += [
        f"| {name} | " + " | ".join(number(errors.largest) for errors in row) + " |" for name, row in rows.items()
    ]
    columns = list(zip(*rows.values(), strict=True))
    largest = [number(float(np.max([errors.largest for errors in column]))) for column in columns]
    wrong = [f"{100 * np.mean([errors.wrong for errors in column]):.3g} %" for column in columns]
    kept = ["yes" if all(errors.in_range for errors in column) else "**no**" for column in columns]
    ends = {"largest of all": largest, f"pairs off by more than {WRONG:g}": wrong, "always in [0, 1]": kept}
    lines += [f"| **{label}** | " + " | ".join(cells) + " |" for label, cells in ends.items()]
    return lines


def number(value: float) -> str:
    if value == 0:
        return "0"
    return f"**{value:.2g}**" if value > WRONG else f"{value:.1e}"


def circumstances() -> list[str]:
    """Return what figures belong to: machine, date, commit, versions, command."""
    facts = describe_machine(VERSIONS)
    facts["command"] = f"`{shlex.join(['python', 'benchmarks/exactness.py', *sys.argv[1:]])}`"
    return [f"* {name}: {value}" for name, value in facts.items() if name != "load before"]


VERSIONS = ["focaldet", "torch", "numpy", "numba", "mpmath", "shapely", "cv2", "torchvision", "detectron2", "mmcv"]


def report(num_pairs: int, num_peer_pairs: int) -> tuple[list[str], bool]:
    """Return the lines of the page and whether every promise was kept."""
    begin, others = time.process_time(), peers()
    own = dict(measure(ours(), num_pairs))
    theirs = dict(measure(others, num_peer_pairs)) if others else {}
    lines = [*circumstances(), "", f"## focaldet: {num_pairs:,} pairs a family", "", *table(ours(), own), ""]
    if others:
        lines += [f"## Others: {num_peer_pairs:,} pairs a family", "", *table(others, theirs), ""]
    lines += ["## The worst pair that a search finds", ""]
    worst = [search(contender) for contender in ours()[:2]]
    for contender, (error, box1, box2) in zip(ours()[:2], worst, strict=True):
        lines += [f"* {contender.name}: {error:.1e} at `{box1.tolist()}`, `{box2.tolist()}`"]
    lines += ["", f"{time.process_time() - begin:.0f} CPU-seconds in all."]
    kept = all(error <= 1e-11 for error, *_ in worst) and all(
        errors.in_range and errors.largest <= (contender.promise or np.inf)
        for row in own.values()
        for contender, errors in zip(ours(), row, strict=True)
    )
    return lines, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100_000, help="of each family, for focaldet")
    parser.add_argument("--peer-pairs", type=int, default=5_000, help="of each family, for other programs")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/exactness.md")
    options = parser.parse_args()
    lines, kept = report(options.pairs, options.peer_pairs)
    print("\n".join(lines))
    if options.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}", encoding="utf-8")
    raise SystemExit(not kept)


if __name__ == "__main__":
    main()
