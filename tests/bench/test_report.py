"""The report: every form of it tells of the same figures, and of what was not reached too."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from focaldet.bench.report import Answer, BenchReport, Findings, Goal, Row, figure_line, goal_line

FAST = Row("inference", "R-50", "focaldet", "CPU-s", 2.0, 2.5, 0.81, 0.79)
SLOW = Row("inference", "R-50", "torchvision", "CPU-s", 3.0, 3.5)
KEPT = Goal("R-50", "share", 0.81, "at least", 0.8, percent=True)
BROKEN = Goal("R-50", "time / torchvision's", 1.2, "at most", 1.0)


@pytest.fixture
def report() -> BenchReport:
    said = [Answer("NMS", "torchvision", "keeps 3")]
    return BenchReport({"cpu": "a fast one"}, Findings([FAST, SLOW], [KEPT, BROKEN], ["No bf16 here."], said))


def test_lines_have_units_ratios_and_shares() -> None:
    assert figure_line(FAST, [FAST, SLOW])[1:] == ["focaldet", "2 CPU-s", "2.5 CPU-s", "1.00", "81.0%", "79.0%"]
    assert figure_line(SLOW, [FAST, SLOW])[1:] == ["torchvision", "3 CPU-s", "3.5 CPU-s", "1.50", "", ""]
    assert figure_line(SLOW, [SLOW])[4] == ""


def test_goals_are_reached_or_not() -> None:
    assert goal_line(KEPT)[2:] == ["81.0%", "at least 80.0%", "yes"]
    assert goal_line(BROKEN)[2:] == ["1.2", "at most 1", "no"]


def test_markdown_and_terminal_show_everything(report: BenchReport) -> None:
    console = Console(file=io.StringIO(), width=200)
    console.print(report.table())
    assert isinstance(console.file, io.StringIO)
    for text in (report.markdown(), console.file.getvalue()):
        for part in ("a fast one", "torchvision", "81.0%", "at most 1", "no", "No bf16 here.", "keeps 3"):
            assert part in text


def test_markdown_tables_are_rectangular(report: BenchReport) -> None:
    widths = [line.count("|") for line in report.markdown().splitlines() if line.startswith("|")]
    assert widths == [8] * 4 + [6] * 4 + [4] * 3


def test_dict_is_plain(report: BenchReport) -> None:
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [goal["reached"] for goal in document["goals"]] == [True, False]
    assert document["rows"][0]["median"] == 2.5
    assert document["notes"] == ["No bf16 here."]
    assert document["answers"] == [{"task": "NMS", "who": "torchvision", "said": "keeps 3"}]
