"""`python benchmarks/geometry.py [WHAT ...] [--quick] [--write] [--devkit FOLDER]`: rotated boxes, with all peers.

`focaldet bench geometry` measures the same without peers. --write puts the tables into docs/benchmarks-geometry.md,
between its two marks.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import torch
from rich.console import Console

from focaldet.bench import geometry
from focaldet.bench.machine import current_load, describe_machine
from focaldet.bench.report import BenchReport
from page import put_between_marks
from rotated_peers import MODULES, importable_peers

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks-geometry.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", metavar="WHAT", help=f"{', '.join(geometry.PARTS)}; all without")
    parser.add_argument("--quick", action="store_true", help="few repetitions, and none that takes long")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks-geometry.md")
    parser.add_argument("--devkit", type=Path, metavar="FOLDER", help="of DOTA_devkit, with its polyiou compiled")
    options = parser.parse_args()
    if unknown := set(options.what) - geometry.PARTS.keys():
        parser.error(f"there is no {', '.join(unknown)}; there are {', '.join(geometry.PARTS)}")
    report = measure(options.what, quick=options.quick, devkit=options.devkit)
    Console(width=190).print(report.table())
    if options.write:
        put_between_marks(PAGE, report.markdown())


def measure(what: list[str], *, quick: bool, devkit: Path | None) -> BenchReport:
    torch.set_num_threads(1)
    peers, missing = importable_peers(devkit)
    machine = describe_machine(("focaldet", "torch", "numpy", "numba", *MODULES))
    words = ["FOLDER" if word == str(devkit) else word for word in sys.argv[1:]]
    machine["command"] = f"`{shlex.join(['python', 'benchmarks/geometry.py', *words])}`"
    found = geometry.measure(geometry.QUICK if quick else geometry.FULL, peers, what, tell)
    found.notes += missing
    machine["load after"] = current_load()  # above 1: others were at work too
    return BenchReport(machine, found)


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
