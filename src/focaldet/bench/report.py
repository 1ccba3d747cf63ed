"""What was measured, as tables for people, as markdown for the documentation, and as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

OURS = "focaldet"


@dataclass(frozen=True)
class Row:
    """One contender at one task.

    Attributes:
        part: what was asked for, such as "inference".
        task: what exactly was done.
        who: the contender.
        unit: of minimum and median.
        minimum, median: over the repetitions.
        share: part of the machine's own rate that the convolutions reach, by the minima; None where that says nothing.
        median_share: the same by the medians.
    """

    part: str
    task: str
    who: str
    unit: str
    minimum: float
    median: float
    share: float | None = None
    median_share: float | None = None


@dataclass(frozen=True)
class Goal:
    """A figure that focaldet promises, and what it came to here.

    Attributes:
        task: what it is about.
        figure: which figure.
        value: measured.
        sense: whether the value should be "at least" or "at most" the bound.
        bound: promised.
        percent: write value and bound as percentages.
    """

    task: str
    figure: str
    value: float
    sense: Literal["at least", "at most"]
    bound: float
    percent: bool = False

    @property
    def reached(self) -> bool:
        """Whether the promise is kept."""
        return self.value >= self.bound if self.sense == "at least" else self.value <= self.bound


@dataclass(frozen=True)
class Answer:
    """What one contender answered at a task, beside the others: who is fast and wrong should be seen to be.

    Attributes:
        task: what was done.
        who: the contender.
        said: its answer, and how far that is from focaldet's, in a few words.
    """

    task: str
    who: str
    said: str


@dataclass
class Findings:
    """What one part of the bench found.

    Attributes:
        rows: figures.
        goals: promises.
        notes: what else a reader must know, a sentence each.
        answers: what contenders answered, where they may differ.
    """

    rows: list[Row] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def add(self, other: Findings) -> None:
        """Append what another part found."""
        self.rows += other.rows
        self.goals += other.goals
        self.notes += other.notes
        self.answers += other.answers


@dataclass
class BenchReport:
    """All findings of a run, with the machine that they hold for.

    Attributes:
        machine: what `describe_machine` returned.
        findings: of all parts.
    """

    machine: dict[str, str | int]
    findings: Findings

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists, numbers and strings."""
        return {
            "machine": self.machine,
            "rows": [asdict(row) for row in self.findings.rows],
            "goals": [{**asdict(goal), "reached": goal.reached} for goal in self.findings.goals],
            "notes": self.findings.notes,
            "answers": [asdict(answer) for answer in self.findings.answers],
        }

    def table(self) -> Any:
        """Return tables for the terminal (rich)."""
        from rich.console import Group
        from rich.table import Table

        parts: list[Any] = [line for line in self._machine_lines()]
        for title, header, words, lines in self._sheets():
            table = Table(title=title, title_justify="left")
            for position, name in enumerate(header):
                table.add_column(name, justify="left" if position < words else "right")
            for line in lines:
                table.add_row(*line)
            parts.append(table)
        return Group(*parts, *self.findings.notes)

    def markdown(self) -> str:
        """Return the same tables as markdown."""
        blocks = ["\n".join(f"* {line}" for line in self._machine_lines())]
        for title, header, words, lines in self._sheets():
            rule = ["---" if position < words else "---:" for position in range(len(header))]
            blocks.append(f"### {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in (header, rule, *lines)))
        return "\n\n".join([*blocks, *self.findings.notes]) + "\n"

    def _machine_lines(self) -> list[str]:
        return [f"{name}: {value}" for name, value in self.machine.items()]

    def _sheets(self) -> list[tuple[str, list[str], int, list[list[str]]]]:
        """Return (title, header, columns of words before those of numbers, lines) of each table that has any line."""
        figures = ["task", "by", "minimum", "median", "x focaldet", "share of the rate", "by medians"]
        promises = ["task", "figure", "measured", "target", "reached"]
        found = self.findings
        sheets = [
            ("Figures", figures, 2, [figure_line(row, found.rows) for row in found.rows]),
            ("Targets", promises, 2, [goal_line(goal) for goal in found.goals]),
            ("Answers", ["task", "by", "answer"], 3, [[item.task, item.who, item.said] for item in found.answers]),
        ]
        return [sheet for sheet in sheets if sheet[3]]


def figure_line(row: Row, rows: Iterable[Row]) -> list[str]:
    """Write a row: numbers with units, and how many times focaldet's minimum it is."""
    own = next((item for item in rows if (item.part, item.task, item.who) == (row.part, row.task, OURS)), None)
    return [
        row.task,
        row.who,
        f"{number(row.minimum)} {row.unit}",
        f"{number(row.median)} {row.unit}",
        f"{row.minimum / own.minimum:.2f}" if own else "",
        *(f"{share:.1%}" if share is not None else "" for share in (row.share, row.median_share)),
    ]


def goal_line(goal: Goal) -> list[str]:
    """Write a promise and what became of it."""
    value, bound = (f"{item:.1%}" if goal.percent else number(item) for item in (goal.value, goal.bound))
    return [goal.task, goal.figure, value, f"{goal.sense} {bound}", "yes" if goal.reached else "no"]


def number(value: float) -> str:
    """Write a number with three digits.

    >>> [number(value) for value in (0.012345, 5.678, 1234.5)]
    ['0.0123', '5.68', '1,234']
    """
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
