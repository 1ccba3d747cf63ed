"""The parts of `focaldet bench`, and the promises that each of them checks (`docs/benchmarks.md`)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from focaldet.bench import geometry
from focaldet.bench.clock import Task, Timing, take_turns, time_process
from focaldet.bench.contenders import CONTENDERS, Contender, Pass
from focaldet.bench.machine import current_load, describe_machine
from focaldet.bench.memory import peak_memory
from focaldet.bench.networks import COCO, R3DET, RETINANET_R, ROTATED, Network
from focaldet.bench.operations import NUM_CANDIDATES, NUM_TRUTHS, assign_tasks, focal_tasks, nms_tasks, sampling_tasks
from focaldet.bench.rate import P3_SIZE, rate_task
from focaldet.bench.report import OURS, BenchReport, Findings, Goal, Row
from focaldet.engine.build import bf16_is_native
from focaldet.errors import UsageError, did_you_mean
from focaldet.structures import Size

MACHINE = "machine"
SHARE = "share of the machine's rate"
INFERENCE_SHARES = {torch.float32: 0.80, torch.bfloat16: 0.78}
TRAINING_SHARE = 0.75
SAMPLING_SHARE = 0.05
IMPORT_SECONDS, HELP_SECONDS = 0.1, 0.3


@dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        repeats: timed rounds of whole networks and processes.
        small_repeats: timed rounds of single operations.
        inference_size, training_size: (height, width) of the pictures.
        tile_size: the same of those that rotated networks look at.
        rate_size: (height, width) of the map that the machine's rate is measured on.
        geometry: how much of rotated boxes.
    """

    repeats: int = 7
    small_repeats: int = 30
    inference_size: Size = (800, 1344)
    training_size: Size = (512, 512)
    tile_size: Size = (1024, 1024)
    rate_size: Size = P3_SIZE
    geometry: geometry.Effort = geometry.FULL


FULL, QUICK = Plan(), Plan(repeats=2, small_repeats=5, geometry=geometry.QUICK)


def run(
    what: Sequence[str] = (),
    *,
    quick: bool = False,
    plan: Plan | None = None,
    peers: Sequence[Contender] = (),
    say: Callable[[str], None] | None = None,
) -> BenchReport:
    """Measure on this machine what focaldet promises, beside torchvision and other peers in the same run.

    Args:
        what: names of `PARTS`; none means all. The machine's own rate is always measured first.
        quick: fewer repetitions.
        plan: sizes and repetitions of one's own.
        peers: programs to measure besides (`benchmarks/peers.py`).
        say: hears which part begins; None tells it on standard error.

    Raises:
        UsageError: there is no such part.
    """
    for name in what:
        if name not in PARTS:
            raise UsageError(
                f"there is no {name!r} to measure{did_you_mean(name, PARTS)}; there are {', '.join(PARTS)}"
            )
    plan = plan or (QUICK if quick else FULL)
    report = BenchReport(describe_machine(), Findings())
    for name in dict.fromkeys(["rate", *(what or PARTS)]):
        (say or tell)(f"measuring: {name}")
        report.findings.add(PARTS[name](plan, [*CONTENDERS, *peers]))
    report.machine["load after"] = current_load()  # above the threads: others were at work too
    return report


def measure_rate(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure what this machine computes at best, in each precision that it has."""
    findings = Findings()
    for dtype in native_dtypes():
        task, gflop = rate_task(dtype, plan.rate_size)
        timing = take_turns({MACHINE: task}, plan.small_repeats)[MACHINE]
        name = f"3x3 convolution, 256 to 256 channels, {dtype_name(dtype)}"
        best, usual = gflop / timing.minimum, gflop / timing.median
        findings.rows.append(Row("rate", name, MACHINE, "GFLOP/CPU-s", best, usual))
    if torch.bfloat16 not in native_dtypes():
        findings.notes.append("This machine only emulates bf16: nothing is measured in it.")
    return findings


def measure_inference(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure from the normalized picture to its detections."""
    return detect_with(COCO, "inference", plan.inference_size, plan, contenders, INFERENCE_SHARES)


def measure_training(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure a training step: forward, assignment, losses, backward, SGD."""
    return train_with(COCO, "training", plan, contenders, TRAINING_SHARE)


def measure_rotated(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure rotated RetinaNets, from a normalized tile to its detections and in training steps."""
    findings = detect_with(ROTATED, "rotated", plan.tile_size, plan, contenders, {torch.float32: 0.80})
    findings.add(train_with(ROTATED, "rotated", plan, contenders, TRAINING_SHARE))
    findings.add(detect_with(RETINANET_R, "rotated", plan.tile_size, plan, contenders, {}))
    findings.add(train_with(RETINANET_R, "rotated", plan, contenders, None))
    return findings


def measure_r3det(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure R3Det, from a normalized tile to its detections and in training steps, and what its sampling adds."""
    findings = detect_with(R3DET, "r3det", plan.tile_size, plan, contenders, INFERENCE_SHARES)
    findings.add(train_with(R3DET, "r3det", plan, contenders, TRAINING_SHARE))
    for dtype in native_dtypes():
        findings.add(measure_sampling(plan, dtype))
    return findings


def measure_sampling(plan: Plan, dtype: torch.dtype) -> Findings:
    """Measure what R3Det's feature refinement does beside its convolutions."""
    task = f"R3Det's feature refinement {size_name(plan.tile_size)}, {dtype_name(dtype)}"
    timings = take_turns(sampling_tasks(plan.tile_size, dtype), plan.small_repeats, warmups=2)
    rows = [
        Row("r3det", task, who, "CPU-ms", 1e3 * timing.minimum, 1e3 * timing.median) for who, timing in timings.items()
    ]
    convolutions, others = (timing.minimum for timing in timings.values())
    share = Goal(task, "sampling / convolutions", others / convolutions, "at most", SAMPLING_SHARE, percent=True)
    return Findings(rows, [share])


def detect_with(
    network: Network,
    part: str,
    size: Size,
    plan: Plan,
    contenders: Sequence[Contender],
    least_shares: Mapping[torch.dtype, float],
) -> Findings:
    """Measure from a normalized picture to its detections, in each precision, who has this network."""
    findings = Findings()
    for dtype in native_dtypes():
        task = f"{network.name} {size_name(size)}, {dtype_name(dtype)}"
        ways = {who.name: who.inference(size, dtype) for who in contenders if who.network == network}
        passes = {name: way for name, way in ways.items() if way is not None}
        findings.add(compare_networks(part, task, passes, dtype, plan, least_shares.get(dtype)))
    return findings


def train_with(
    network: Network, part: str, plan: Plan, contenders: Sequence[Contender], least_share: float | None
) -> Findings:
    """Measure float32 training steps of who has this network."""
    passes = {who.name: who.training(plan.training_size) for who in contenders if who.network == network}
    task = f"{network.name} step {size_name(plan.training_size)}"
    return compare_networks(part, task, passes, torch.float32, plan, least_share)


def compare_networks(
    part: str, task: str, passes: Mapping[str, Pass], dtype: torch.dtype, plan: Plan, least_share: float | None
) -> Findings:
    """Time networks and, before and in turns with them, the machine's rate; check what is promised of either."""
    rate, gflop = rate_task(dtype, plan.rate_size)
    alone = take_turns({MACHINE: rate}, plan.small_repeats)[MACHINE]
    tasks: dict[str, Task] = {MACHINE: rate, **{name: made.run for name, made in passes.items()}}
    timings = take_turns(tasks, plan.repeats)
    machine = timings.pop(MACHINE)
    best = min(alone.minimum, machine.minimum)

    def row(name: str, timing: Timing) -> Row:
        work = 2 * passes[name].count() / gflop  # in runs of the rate's task
        shares = work * best / timing.minimum, work * machine.median / timing.median
        return Row(part, task, name, "CPU-s", timing.minimum, timing.median, *shares)

    rows = {name: row(name, timing) for name, timing in timings.items()}
    return Findings([*rows.values()], network_goals(task, rows, least_share))


def network_goals(task: str, rows: Mapping[str, Row], least_share: float | None) -> list[Goal]:
    """Return what is promised of focaldet's row: a share of the machine's rate, and no more time than torchvision."""
    ours, goals = rows[OURS], []
    if least_share is not None:
        goals.append(Goal(task, SHARE, ours.share or 0.0, "at least", least_share, percent=True))
    rivals = [row.minimum for name, row in rows.items() if name.startswith("torchvision")]
    if rivals:
        goals.append(Goal(task, "CPU time / torchvision's (faster layout)", ours.minimum / min(rivals), "at most", 1.0))
    return goals


def measure_memory(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure the peak memory of whole processes, ours and torchvision's."""
    findings = Findings()
    jobs = [("inference", plan.inference_size, dtype) for dtype in native_dtypes()]
    for kind, size, dtype in [*jobs, ("training", plan.training_size, torch.float32)]:
        task = f"peak of R-50 {kind} {size_name(size)}, {dtype_name(dtype)}"
        peaks = {name: peak_memory(name, kind, size, dtype) for name in (OURS, "torchvision")}
        findings.rows += [Row("memory", task, name, "MiB", peak, peak) for name, peak in peaks.items()]
        findings.goals.append(Goal(task, "memory / torchvision's", peaks[OURS] / peaks["torchvision"], "at most", 1.0))
    return findings


def measure_operation(
    part: str, name: str, tasks: Callable[[Size], dict[str, Task]], plan: Plan, contenders: Sequence[Contender]
) -> Findings:
    """Measure one step of detection beside torchvision's."""
    timings = take_turns(tasks(plan.inference_size), plan.small_repeats, warmups=2)
    return Findings(
        [Row(part, name, who, "CPU-ms", 1e3 * timing.minimum, 1e3 * timing.median) for who, timing in timings.items()]
    )


def measure_geometry(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure what is done with rotated boxes, focaldet alone (`benchmarks/geometry.py` has others beside it)."""
    return geometry.measure(plan.geometry)


def measure_start(plan: Plan, contenders: Sequence[Contender]) -> Findings:
    """Measure how long a user waits for the import and for the help text, on the wall clock."""
    bare = time_process(["-c", "pass"], plan.repeats)
    imported = time_process(["-c", "import focaldet"], plan.repeats)
    helped = time_process(["-m", "focaldet", "--help"], plan.repeats)
    rows = [
        Row("import", task, who, "s", timing.minimum, timing.median)
        for task, who, timing in (
            ("process: python -c pass", "Python", bare),
            ("process: import focaldet", OURS, imported),
            ("process: focaldet --help", OURS, helped),
        )
    ]
    goals = [
        Goal("import focaldet", "median s over bare Python", imported.median - bare.median, "at most", IMPORT_SECONDS),
        Goal("focaldet --help", "median s", helped.median, "at most", HELP_SECONDS),
    ]
    return Findings(rows, goals)


PARTS: dict[str, Callable[[Plan, Sequence[Contender]], Findings]] = {
    "rate": measure_rate,
    "inference": measure_inference,
    "training": measure_training,
    "rotated": measure_rotated,
    "r3det": measure_r3det,
    "memory": measure_memory,
    "assign": partial(measure_operation, "assign", f"assignment of {NUM_TRUTHS} objects", assign_tasks),
    "focal": partial(measure_operation, "focal", "focal loss, forward and backward", focal_tasks),
    "nms": partial(measure_operation, "nms", f"NMS of {NUM_CANDIDATES:,} boxes", nms_tasks),
    "geometry": measure_geometry,
    "import": measure_start,
}
"""By name, in the order in which they run."""


def tell(line: str) -> None:
    """Print on standard error: standard output belongs to the answer."""
    print(line, file=sys.stderr, flush=True)


def native_dtypes() -> list[torch.dtype]:
    """Return what this machine computes in by itself."""
    return [torch.float32, *([torch.bfloat16] if bf16_is_native(torch.device("cpu")) else [])]


def dtype_name(dtype: Any) -> str:
    """Return "float32" or "bf16"."""
    return "bf16" if dtype == torch.bfloat16 else str(dtype).removeprefix("torch.")


def size_name(size: Size) -> str:
    """Return (height, width) as "800 x 1344"."""
    return f"{size[0]} x {size[1]}"
