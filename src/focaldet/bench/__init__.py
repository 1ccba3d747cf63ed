"""What `focaldet bench` measures: the machine's own rate first, then focaldet beside its peers.

Read `parts.py` first; `docs/benchmarks.md` says how figures are counted.
"""

from focaldet.bench.parts import FULL, PARTS, QUICK, Plan, run
from focaldet.bench.report import BenchReport

__all__ = ["FULL", "PARTS", "QUICK", "BenchReport", "Plan", "run"]
