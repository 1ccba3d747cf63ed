"""Rotated boxes: IoU, NMS, assignment and DOTA's scores, alone or beside other programs (`benchmarks/geometry.py`).

All on one thread, from boxes in memory. A contender's answer is kept and compared with ours: speed alone says nothing.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focaldet.bench.clock import Task, Timing, take_turns
from focaldet.bench.memory import own_peak
from focaldet.bench.report import OURS, Answer, Findings, Goal, Row
from focaldet.bench.scenes import TILE, Contest, Scene, Spread, boxes_on_tile, contest, crowd
from focaldet.geometry import batched_rotated_nms, rotated_iou
from focaldet.geometry.kernels.choose import why_not
from focaldet.geometry.rotated_iou import rotated_iou_torch
from focaldet.metrics.dota import rotated_scores
from focaldet.models.anchors import OCTAVE, AnchorShapes, TurnedShapes
from focaldet.structures import AnchorGrid
from focaldet.targets.assign import Assignment, AssignRule, Claim, assign

TORCH = "focaldet, torch alone"
OVERWRITING = "focaldet, later truths overwrite"
UNIT = "CPU-ms"
WRONG = 1e-3
"""An IoU that is off by more than this changes what NMS keeps."""

IOU_BOXES = 2_000
IOU_MS = {OURS: 6.0, TORCH: 60.0}
NMS_MS = {
    (20, 0.1): {2_000: 1.0, 10_000: 6.0, 100_000: 250.0},
    (2, 0.5): {2_000: 4.0, 10_000: 15.0, 100_000: 300.0},
}
"""By boxes an object and threshold: boxes and the most that they may take."""
NUM_TRUTHS = 300
ASSIGN_MS = {9: 2.0, 126: 20.0}
"""By anchors a place: 196,416 and 2,749,824 on a tile."""
MANY_TRUTHS = 5_000
PEAK_MB = 200.0
CONTEST = (458, 5_000, 20_000)
"""Pictures, objects and detections of each class: DOTA's validation set and as much as a detector may give for it."""
SCORE_MS = 500.0
FIRST_CALL_MS = 100.0

STRIDES = (8, 16, 32, 64, 128)
SCALES = tuple(4 * step for step in OCTAVE)
GRIDS: dict[int, AnchorShapes] = {
    9: AnchorShapes(SCALES, (0.5, 1.0, 2.0), STRIDES, angle="le90"),
    126: TurnedShapes(
        SCALES, (1.0, 1 / 2, 2.0, 1 / 3, 3.0, 5.0, 1 / 5), STRIDES, offset=0.5, angles=(-90, -75, -60, -45, -30, -15)
    ),
}
"""By anchors a place: the common three scales of three ratios, and seven ratios at six angles besides."""

FIRST_CALLS = {
    "rotated_iou": "from focaldet.geometry import rotated_iou; run = lambda: rotated_iou(boxes, boxes)",
    "batched_rotated_nms": """
from focaldet.geometry import batched_rotated_nms
run = lambda: batched_rotated_nms(boxes, boxes[:, 0], boxes[:, 0].long(), 0.5)""",
    "assign": """
from focaldet.models.anchors import AnchorShapes
from focaldet.targets.assign import AssignRule, assign
grid = AnchorShapes((4.0,), (1.0,), (64, 128), angle="none").grid_for((512, 512))
run = lambda: assign(grid, boxes, AssignRule(0.5, 0.4))""",
    "rotated_scores": """
from focaldet.bench.scenes import contest
from focaldet.metrics.dota import rotated_scores
scored = contest(2, 10, 10)
run = lambda: rotated_scores(scored.truth, scored.found)""",
}
"""By name: what is imported before the clock starts, and what is called once."""
FIRST_CALL = """
import time, torch, numba
from empty import same
boxes = torch.tensor([[9.0, 9.0, 8.0, 4.0, 0.1]] * 3)
{prepare}
start = time.process_time()
same(1.0)
ready = time.process_time()
run()
print(ready - start, time.process_time() - ready)
"""
EMPTY = """
from numba import njit

@njit(cache=True)
def same(number):
    return number
"""
"""Whatever is compiled, numba loads most of itself when it is first called, and not when it is imported."""
PEAK = "import sys; from focaldet.bench.geometry import print_peak; print_peak(*map(int, sys.argv[1:]))"


@dataclass(frozen=True)
class Effort:
    """How much is measured.

    Attributes:
        repeats: turns, and fresh processes.
        turn: CPU seconds that a turn lasts.
        most: CPU seconds after which a contender has no further turn.
        patience: CPU seconds; a contender that can be expected to need more for one call is left out.
        share: part of the boxes to measure with; what is promised is promised for all of them.
    """

    repeats: int = 7
    turn: float = 0.3
    most: float = 10.0
    patience: float = 150.0
    share: float = 1.0

    def part_of(self, count: int) -> int:
        """Return how many boxes stand for `count`."""
        return max(round(self.share * count), 10)


FULL, QUICK = Effort(), Effort(repeats=2, turn=0.03, most=0.5, patience=10.0)


@dataclass(frozen=True)
class Peer:
    """Another program. What it cannot do is None; what it can takes boxes, and gives a task that starts from them.

    Attributes:
        name: what the report calls it.
        iou: takes (N, 5) and (M, 5) float32 rboxes; the task answers (N, M) IoUs.
        nms: takes a scene and a threshold; the task answers the numbers (K,) of the boxes it keeps.
        assign: takes anchors (A, 5), truths (G, 5) and a rule; the task answers (A,) owners as `Assignment.owners`.
        claim: the rule that its assignment can follow.
        score: takes a contest; the task answers the mean of AP50 by VOC's rule of 2007.
    """

    name: str
    iou: Callable[[Tensor, Tensor], Task] | None = None
    nms: Callable[[Scene, float], Task] | None = None
    assign: Callable[[Tensor, Tensor, AssignRule], Task] | None = None
    claim: Claim = "ties"
    score: Callable[[Contest], Task] | None = None


def measure(
    effort: Effort,
    peers: Sequence[Peer] = (),
    what: Sequence[str] = (),
    say: Callable[[str], None] = lambda line: None,
) -> Findings:
    """Measure on one thread.

    Args:
        effort: for how long.
        peers: other programs.
        what: names of `PARTS`; none means all.
        say: hears which part begins.
    """
    findings = Findings()
    with one_thread():
        for name in what or PARTS:
            say(f"measuring: {name}")
            findings.add(PARTS[name](effort, peers))
    return findings


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def compare(
    task: str,
    tasks: Mapping[str, Task],
    effort: Effort,
    bounds: Mapping[str, float],
    describe: Callable[[Any, Any], str],
    like: Mapping[str, str] | None = None,
) -> Findings:
    """Time contenders in turns, check the bounds of some, and say what each answered.

    Args:
        task: what they do.
        tasks: by contender, ours first.
        effort: for how long.
        bounds: by contender, the milliseconds that its minimum may be.
        describe: takes an answer and ours, and says in a few words what it is.
        like: by contender, which of ours it should be compared with, where that is not `OURS`.
    """
    answers: dict[str, Any] = {}

    def keep(name: str) -> None:
        answers[name] = tasks[name]()

    for who in tasks:
        if who.startswith(OURS):
            keep(who)  # its kernels are compiled where they were not
    timings = take_turns(
        {who: partial(keep, who) for who in tasks}, effort.repeats, least=effort.turn, most=effort.most
    )
    return Findings(
        rows=[row(task, who, timing) for who, timing in timings.items()],
        goals=[goal(f"{task}: {who}", timings[who], bound) for who, bound in bounds.items()],
        answers=[
            Answer(task, who, describe(answer, answers[(like or {}).get(who, OURS)])) for who, answer in answers.items()
        ],
    )


def row(task: str, who: str, timing: Timing) -> Row:
    """Return a line of the table, in milliseconds."""
    return Row("geometry", task, who, UNIT, 1e3 * timing.minimum, 1e3 * timing.median)


def goal(task: str, timing: Timing, milliseconds: float) -> Goal:
    """Return a promise about the minimum."""
    return Goal(task, f"minimum, {UNIT}", 1e3 * timing.minimum, "at most", milliseconds)


def measure_iou(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure all pairs of two sets on a tile: of sides even in their logarithm, as promised, and even in pixels."""
    findings = Findings()
    count = effort.part_of(IOU_BOXES)
    spreads: tuple[Spread, ...] = ("logarithm", "pixels")
    for spread in spreads:
        boxes1, boxes2 = (torch.from_numpy(boxes_on_tile(count, seed, spread)) for seed in (1, 2))
        tasks: dict[str, Task] = {
            OURS: partial(rotated_iou, boxes1, boxes2),
            TORCH: partial(rotated_iou_torch, boxes1, boxes2),
            **{peer.name: peer.iou(boxes1, boxes2) for peer in peers if peer.iou},
        }
        name = f"IoU, {count:,} x {count:,}, sides even in {spread}"
        findings.add(compare(name, tasks, effort, IOU_MS if spread == "logarithm" else {}, describe_ious))
    return findings


def describe_ious(answer: Any, ours: Any) -> str:
    """Say how far IoUs (N, M) are from ours, or how many are above 0."""
    if answer is ours:
        return f"{float((ours > 0).float().mean()):.1%} of the pairs overlap"
    off = (answer.double() - ours.double()).abs()
    return f"differs by up to {float(off.max()):.1e}; {int((off > WRONG).sum()):,} pairs differ by more than {WRONG}"


def measure_nms(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure crowds of boxes in 15 classes, from tensors to the indices of those kept."""
    findings = Findings()
    for (boxes_per_object, threshold), bounds in NMS_MS.items():
        expected = Expected(effort.patience)
        for count, bound in bounds.items():
            scene = crowd(effort.part_of(count), boxes_per_object)
            name = f"NMS of {len(scene.boxes):,} boxes, {boxes_per_object} an object, at IoU {threshold}"
            able = expected.in_time([peer for peer in peers if peer.nms], (count / expected.size) ** 2)
            boxes, scores, labels = map(torch.from_numpy, scene)
            tasks: dict[str, Task] = {
                OURS: partial(batched_rotated_nms, boxes, scores, labels, threshold),
                **{peer.name: peer.nms(scene, threshold) for peer in able if peer.nms},
            }
            found = compare(name, tasks, effort, {OURS: bound}, describe_kept)
            findings.add(found)
            findings.notes += expected.notes(name)
            expected.learn(count, found.rows)
    return findings


def describe_kept(answer: Any, ours: Any) -> str:
    """Say how many boxes were kept, and how many either we or the other kept alone."""
    kept, our_kept = set(answer.tolist()), set(ours.tolist())
    return f"keeps {len(kept):,}" + ("" if answer is ours else f"; {len(kept ^ our_kept):,} decided otherwise")


class Expected:
    """What contenders took at a smaller size, and so who would take too long at the next.

    Attributes:
        size: of the last task.
    """

    def __init__(self, patience: float) -> None:
        self.size = math.inf
        self._patience = patience
        self._seconds: dict[str, float] = {}

    def in_time(self, peers: Sequence[Peer], growth: float) -> list[Peer]:
        """Return those who need no more than `patience` for `growth` times the last task's work."""
        self._seconds = {peer.name: growth * self._seconds.get(peer.name, 0.0) for peer in peers}
        return [peer for peer in peers if self._seconds[peer.name] <= self._patience]

    def notes(self, task: str) -> list[str]:
        """Say who was left out of a task."""
        late = {name: seconds for name, seconds in self._seconds.items() if seconds > self._patience}
        return [f"{task}: {name} is left out; it would take about {seconds:,.0f} s." for name, seconds in late.items()]

    def learn(self, size: float, rows: Sequence[Row]) -> None:
        """Take the figures of a task of some size."""
        self.size = size
        self._seconds |= {row.who: row.minimum / 1e3 for row in rows}


def measure_assign(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure the assignment of 300 objects to all anchors of a tile, by both rules of the forced matches."""
    findings, expected = Findings(), Expected(effort.patience)
    truths = torch.from_numpy(boxes_on_tile(effort.part_of(NUM_TRUTHS)))
    rules = {OURS: assign_rule("ties"), OVERWRITING: assign_rule("ties-overwrite")}
    for num_shapes, bound in ASSIGN_MS.items():
        grid = tile_grid(num_shapes)
        name = f"assignment of {len(truths)} truths to {sum(grid.counts):,} anchors"
        able = expected.in_time([peer for peer in peers if peer.assign], sum(grid.counts) / expected.size)
        anchors = torch.cat(grid.levels()) if able else torch.empty(0, 5)
        tasks: dict[str, Task] = {
            **{who: partial(assign, grid, truths, rule) for who, rule in rules.items()},
            **{peer.name: peer.assign(anchors, truths, assign_rule(peer.claim)) for peer in able if peer.assign},
        }
        like = {OVERWRITING: OVERWRITING} | {peer.name: OVERWRITING for peer in able if peer.claim == "ties-overwrite"}
        found = compare(name, tasks, effort, dict.fromkeys(rules, bound), describe_owners, like)
        findings.add(found)
        findings.notes += expected.notes(name)
        expected.learn(sum(grid.counts), found.rows)
    return findings


def assign_rule(claim: Claim) -> AssignRule:
    """Return the usual thresholds with one rule of the forced matches."""
    return AssignRule(0.5, 0.4, claim)


def tile_grid(num_shapes: int) -> AnchorGrid:
    """Return the anchors of a tile, with one of the numbers of `GRIDS` at every place."""
    return GRIDS[num_shapes].grid_for((TILE, TILE))


def describe_owners(answer: Any, ours: Any) -> str:
    """Say how many anchors are positive, and how many have another owner than by ours."""
    owners, our_owners = (given.owners() if isinstance(given, Assignment) else given for given in (answer, ours))
    said = f"{int((owners >= 0).sum()):,} positive anchors"
    return said + ("" if answer is ours else f"; {int((owners != our_owners).sum()):,} with another owner")


def measure_peak(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure what the assignment of 5,000 objects on one tile needs, above what the process has when it begins."""
    findings = Findings()
    for num_shapes in GRIDS:
        count = effort.part_of(MANY_TRUTHS)
        name = f"memory to assign {count:,} truths to {sum(tile_grid(num_shapes).counts):,} anchors"
        peaks = sorted(numbers_from(PEAK, str(num_shapes), str(count))[0] for _ in range(min(effort.repeats, 3)))
        findings.rows.append(Row("geometry", name, OURS, "MB", peaks[0], peaks[len(peaks) // 2]))
        findings.goals.append(Goal(name, "largest peak over the start, MB", peaks[-1], "at most", PEAK_MB))
    return findings


def print_peak(num_shapes: int, num_truths: int) -> None:
    """Assign, and print by how many MB this process grew at most beyond what it held before."""
    grid, truths, rule = tile_grid(num_shapes), torch.from_numpy(boxes_on_tile(num_truths)), assign_rule("ties")
    with one_thread():
        assign(grid, truths[:1], rule)  # the kernels are loaded
        with suppress(OSError):  # Linux alone forgets a peak
            Path("/proc/self/clear_refs").write_text("5")
        start = own_peak()
        assign(grid, truths, rule)
    print((own_peak() - start) * 2**20 / 1e6)


def measure_score(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure the scoring of a whole validation set; ours gives COCO's figures too, the others AP50 alone."""
    numbers = [effort.part_of(number) for number in CONTEST]
    scored = contest(*numbers)
    name = "score of {:,} pictures, {:,} objects and {:,} detections of each class".format(*numbers)
    tasks: dict[str, Task] = {
        OURS: lambda: rotated_scores(scored.truth, scored.found)["AP50_voc07"],
        **{peer.name: peer.score(scored) for peer in peers if peer.score},
    }
    return compare(name, tasks, effort, {OURS: SCORE_MS}, lambda answer, _: f"mean AP50 of VOC 2007: {answer:.6f}")


def measure_first_call(effort: Effort, peers: Sequence[Peer]) -> Findings:
    """Measure what a first call costs in a fresh process, with kernels compiled before.

    What numba needs for the first call of anything, beyond its import, is measured apart, by an empty function.
    """
    if reason := why_not("numba"):
        return Findings(notes=[f"First calls are not measured: {reason}."])
    findings = Findings()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "empty.py").write_text(EMPTY)
        for name, prepare in FIRST_CALLS.items():
            code, task = FIRST_CALL.format(prepare=prepare), f"first call of {name}"
            calls = [numbers_from(code, folder=folder) for _ in range(1 + effort.repeats)][1:]  # the first may compile
            numbas, ours = (Timing(seconds) for seconds in zip(*calls, strict=True))
            findings.rows += [row(task, "numba, an empty function", numbas), row(task, f"{OURS}, after that", ours)]
            findings.goals.append(goal(f"{task}, after numba's", ours, FIRST_CALL_MS))
    return findings


def numbers_from(code: str, *arguments: str, folder: str | None = None) -> list[float]:
    """Run Python code in a fresh process in a folder, on one thread, and return the numbers that it prints."""
    command, environment = [sys.executable, "-c", code, *arguments], os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment, cwd=folder)
    return [float(number) for number in done.stdout.split()]


PARTS: dict[str, Callable[[Effort, Sequence[Peer]], Findings]] = {
    "iou": measure_iou,
    "nms": measure_nms,
    "assign": measure_assign,
    "peak": measure_peak,
    "score": measure_score,
    "first": measure_first_call,
}
"""By name, in the order in which they run."""
