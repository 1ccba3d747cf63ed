"""`python benchmarks/gpu.py [--quick] [--write FILE]`: rotated IoU and NMS on a CUDA device, beside other programs.

Times are from tensors on the device to tensors on the device, in milliseconds by the device's own clock; checks of the
arguments count, compiling does not. --write puts them into FILE, as a table if it ends in .md, else as json.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor

from focaldet.bench.scenes import crowd
from focaldet.geometry import batched_rotated_nms, rbox_to_hbox, rotated_iou, rotated_iou_aligned
from focaldet.geometry.nms import rotated_nms_torch
from focaldet.geometry.rotated_iou import rotated_iou_aligned_torch, rotated_iou_torch

IOU_BOXES, ALIGNED_PAIRS, NMS_BOXES = 2_000, 100_000, (2_000, 10_000, 100_000)
MOST_FOR_TORCH = 10_000
"""Boxes that NMS in torch is asked to settle: its time grows with their square."""
REPEATS, QUICK_REPEATS = 50, 5


class Contender(NamedTuple):
    """A program at a task, ready to run."""

    task: str
    name: str
    run: Callable[[], Tensor]


class Row(NamedTuple):
    """What was measured: milliseconds, or why not."""

    task: str
    name: str
    minimum: float | None
    median: float | None
    note: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write a .md table or .json there")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py measures a CUDA device and finds none; run it on a machine that has one")
    repeats = QUICK_REPEATS if options.quick else REPEATS
    rows = [measure(contender, repeats) for contender in contenders(torch.device("cuda"))]
    report = {
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "rows": [row._asdict() for row in rows],
    }
    table = f"{report['device']}, torch {report['torch']}\n\n{markdown(rows)}"
    print(table)
    if options.write:
        text = table if options.write.suffix == ".md" else json.dumps(report, indent=1)
        options.write.write_text(text + "\n", encoding="utf-8")


def contenders(
    device: torch.device,
    iou_boxes: int = IOU_BOXES,
    aligned_pairs: int = ALIGNED_PAIRS,
    nms_boxes: tuple[int, ...] = NMS_BOXES,
) -> Iterator[Contender]:
    """Yield every program at every task, with its boxes already on the device."""
    yield from _pairwise(device, iou_boxes)
    yield from _aligned(device, aligned_pairs)
    for boxes_per_object, iou_threshold in ((20, 0.1), (2, 0.5)):
        for num_boxes in nms_boxes:
            yield from _nms(device, num_boxes, boxes_per_object, iou_threshold)


def measure(contender: Contender, repeats: int) -> Row:
    """Time a contender on the CUDA device; one that cannot run says why, in the first line of its error."""
    times = []
    try:
        for _ in range(3):
            contender.run()
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            contender.run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end))
    except (RuntimeError, NotImplementedError) as error:
        return Row(contender.task, contender.name, None, None, str(error).splitlines()[0][:80])
    return Row(contender.task, contender.name, min(times), statistics.median(times), "")


def markdown(rows: list[Row]) -> str:
    """Return the rows as a table."""
    lines = ["| task | program | minimum, ms | median, ms |", "|---|---|--:|--:|"]
    for row in rows:
        figures = row.note + " |" if row.minimum is None else f"{row.minimum:.3f} | {row.median:.3f}"
        lines.append(f"| {row.task} | {row.name} | {figures} |")
    return "\n".join(lines)


def _pairwise(device: torch.device, count: int) -> Iterator[Contender]:
    task = f"IoU {count:,} x {count:,}"
    first, second = (_boxes_in_a_tile(count, seed).to(device) for seed in (1, 2))
    degrees1, degrees2 = (_in_degrees(boxes) for boxes in (first, second))
    yield Contender(task, "focaldet", lambda: rotated_iou(first, second))
    yield Contender(task, "focaldet, torch alone", lambda: rotated_iou_torch(first, second))
    yield Contender(task, "torchvision", lambda: torchvision.ops.box_iou(degrees1, degrees2, fmt="cxcywhr"))


def _aligned(device: torch.device, count: int) -> Iterator[Contender]:
    task = f"IoU of {count:,} pairs"
    first, second = (_boxes_in_a_tile(count, seed).to(device) for seed in (1, 2))
    yield Contender(task, "focaldet", lambda: rotated_iou_aligned(first, second))
    yield Contender(task, "focaldet, torch alone", lambda: rotated_iou_aligned_torch(first, second))


def _nms(device: torch.device, num_boxes: int, boxes_per_object: int, threshold: float) -> Iterator[Contender]:
    task = f"NMS of {num_boxes:,} boxes, {boxes_per_object} an object, at {threshold}"
    boxes, scores, labels = (torch.from_numpy(part).to(device) for part in crowd(num_boxes, boxes_per_object))
    hulls = rbox_to_hbox(boxes)
    yield Contender(task, "focaldet", lambda: batched_rotated_nms(boxes, scores, labels, threshold))
    if num_boxes <= MOST_FOR_TORCH:
        yield Contender(task, "focaldet, torch alone", lambda: rotated_nms_torch(boxes, scores, (labels,), threshold))
    yield Contender(
        task,
        "torchvision, of the upright hulls (easier)",
        lambda: torchvision.ops.batched_nms(hulls, scores, labels, threshold),
    )


def _boxes_in_a_tile(count: int, seed: int) -> Tensor:
    """Return (count, 5) float32 rboxes with sides of 8 to 400 pixels, evenly in their logarithm, in 1024 x 1024."""
    rng = np.random.default_rng(seed)
    sides = np.exp(rng.uniform(np.log(8), np.log(400), (count, 2)))
    boxes = np.column_stack([rng.uniform(0, 1024, (count, 2)), sides, rng.uniform(-np.pi, np.pi, count)])
    return torch.from_numpy(boxes.astype(np.float32))


def _in_degrees(boxes: Tensor) -> Tensor:
    """Return what torchvision takes: degrees, counter-clockwise."""
    return torch.cat([boxes[:, :4], -boxes[:, 4:].rad2deg()], dim=1)


if __name__ == "__main__":
    main()
