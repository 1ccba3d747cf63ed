"""`python benchmarks/run.py [WHAT ...] [--quick] [--write]`: `focaldet bench`, with all peers that can be imported.

--write puts the tables between the two marks of a page: docs/benchmarks.md, or docs/benchmarks-rotated.md if rotated
networks (rotated, r3det) are what was measured. Rotated boxes have peers of their own, and are for `geometry.py`; here
they, and rotated networks, are measured only when asked for by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from focaldet import bench
from page import put_between_marks
from peers import importable_peers

DOCS = Path(__file__).parents[1] / "docs"
ROTATED = {"rotated", "r3det"}
APART = {"geometry", *ROTATED}
"""What is measured only when asked for."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(bench.PARTS)}; all but {', '.join(APART)} without")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--write", action="store_true", help="put the tables into the page they belong to")
    options = parser.parse_args()
    what = options.what or [name for name in bench.PARTS if name not in APART]
    if options.write and ROTATED & {*what} and not {*what} <= ROTATED:
        parser.error("upright and rotated networks have pages of their own; --write one after the other")
    report = bench.run(what, quick=options.quick, peers=importable_peers())
    Console(width=160).print(report.table())
    if options.write:
        page = "benchmarks-rotated.md" if {*what} <= ROTATED else "benchmarks.md"
        put_between_marks(DOCS / page, report.markdown())


if __name__ == "__main__":
    main()
