"""`python benchmarks/memory_data.py [--quick] [--write]`: a label file of 100,000 pictures and 1,000,000 boxes.

How long opening it takes, and what the process that trains and its workers hold together (PSS, so that shared pages
count once) at the end of each of five epochs. The pictures are one of 64 x 64 pixels under 100,000 names. Linux only.

--quick takes a fifth of it and two workers; --write puts the tables into docs/benchmarks-data.md, between the marks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from focaldet.bench.label_memory import write_label_file
from focaldet.bench.machine import describe_machine
from focaldet.bench.report import OURS, BenchReport, Findings, Goal, Row
from page import show

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-data.md"
SIZES = {"quick": (20_000, 200_000, 2), "full": (100_000, 1_000_000, 4)}
"""Pictures, boxes, workers."""
EPOCHS = 5
GROWTH, SECONDS = 0.02, 10.0
"""Promised at most: from epoch 2 to 5, and to open the full size."""


def measure(pictures: int, boxes: int, workers: int) -> Findings:
    """Make the data in a folder that goes away, and measure in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_label_file(Path(folder) / "set", pictures, boxes)
        size = path.stat().st_size / 1e6
        words = [str(path.parent), *map(str, (pictures, boxes, workers, EPOCHS))]
        command = [sys.executable, "-m", "focaldet.bench.label_memory", *words]
        lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return tell([json.loads(line) for line in lines], f"{pictures:,} pictures, {boxes:,} boxes", workers, size)


def tell(epochs: list[dict[str, Any]], task: str, workers: int, size: float) -> Findings:
    """Put what was measured into rows and promises; `size` is the label file's, in MB."""
    found = Findings()
    opening, cpu = epochs[0]["opening"], epochs[0]["opening_cpu"]
    found.rows.append(Row("data", f"opening {task}, wall time", OURS, "s", opening, opening))
    found.rows.append(Row("data", f"opening {task}, CPU time", OURS, "s", cpu, cpu))
    for one in epochs:
        what = f"epoch {one['epoch']}, {workers} workers and the process that trains, PSS"
        own = one["mebibytes"] - one["of_files"]
        found.rows.append(Row("data", what, OURS, "MiB", one["mebibytes"], one["mebibytes"]))
        found.rows.append(Row("data", f"{what} without pages of files", OURS, "MiB", own, own))
    second, last = (epochs[k]["mebibytes"] - epochs[k]["of_files"] for k in (1, -1))
    growth = abs(last / second - 1)
    found.goals.append(
        Goal(task, f"change from epoch 2 to {EPOCHS}, without pages of files", growth, "at most", GROWTH, percent=True)
    )
    found.goals.append(Goal(task, "CPU-s to open", cpu, "at most", SECONDS))
    found.notes.append(f"The label file has {size:,.0f} MB.")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fifth of the data, two workers")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-data.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    machine = describe_machine(("focaldet", "torch", "numpy", "PIL"))
    found = measure(*SIZES["quick" if options.quick else "full"])
    show(BenchReport(machine, found), PAGE if options.write else None)


if __name__ == "__main__":
    main()
