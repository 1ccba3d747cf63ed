"""`python benchmarks/run.py [WHAT ...] [--quick] [--write]`: `focaldet bench`, with all peers that can be imported.

--write puts the tables into docs/benchmarks.md, between its two marks. Rotated boxes have peers of their own, and are
for `geometry.py`; here they are measured only when asked for by name.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from focaldet import bench
from page import put_between_marks
from peers import importable_peers

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(bench.PARTS)}; all but geometry without")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    what = options.what or [name for name in bench.PARTS if name != "geometry"]
    report = bench.run(what, quick=options.quick, peers=importable_peers())
    Console(width=160).print(report.table())
    if options.write:
        put_between_marks(PAGE, report.markdown())


if __name__ == "__main__":
    main()
