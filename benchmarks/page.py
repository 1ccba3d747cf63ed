"""A page of the documentation that holds figures between two marks."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from focaldet.bench.machine import current_load
from focaldet.bench.report import BenchReport

BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


def put_between_marks(page: Path, tables: str) -> None:
    """Replace what the page holds between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(BEGIN)
    after = rest.split(END)[1]
    page.write_text(f"{before}{BEGIN}\n{tables}\n{END}{after}", encoding="utf-8")


def show(report: BenchReport, page: Path | None) -> None:
    """Print a report, with the load after it, and put it between a page's marks, if one is given."""
    report.machine["load after"] = current_load()
    Console(width=180).print(report.table())
    if page is not None:
        put_between_marks(page, report.markdown())
