"""`python benchmarks/run.py [WHAT ...] [--quick] [--write]`: `focaldet bench`, with all peers that can be imported.

--write puts the tables into docs/benchmarks.md, between its two marks.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from focaldet import bench
from peers import importable_peers

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", nargs="*", help=f"{', '.join(bench.PARTS)}; all without")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    report = bench.run(options.what, quick=options.quick, peers=importable_peers())
    Console(width=160).print(report.table())
    if options.write:
        write(report.markdown())


def write(tables: str) -> None:
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
