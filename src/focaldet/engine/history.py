"""What a run has reached so far: metrics.csv and log.txt."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from focaldet.results.files import write_beside

COLUMNS = (
    "epoch", "step", "time_s", "cpu_s", "lr", "loss", "class", "box", "val_loss", "AP", "AP50", "AP75", "AP_small",
    "AP_medium", "AP_large",
)  # fmt: skip
"""Columns of metrics.csv; a cell is empty where nothing was measured."""


class History:
    """Collects the figures of steps; writes a row of their means when asked."""

    def __init__(self, path: Path) -> None:
        """Keep rows in `path`, lines in log.txt beside it; nothing is written yet."""
        self.path = path
        self.log_path = path.with_name("log.txt")
        self._sums: dict[str, float] = {}
        self._count = 0
        self.rows: list[dict[str, float]] = []

    def clear(self) -> None:
        """Begin with empty files."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.rows = []
        self._save()
        self.log_path.write_text("", encoding="utf-8")

    @property
    def pending(self) -> bool:
        """Whether steps were taken in that no row tells of yet."""
        return self._count > 0

    def add(self, figures: dict[str, float]) -> None:
        """Take in the figures of one step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._count += 1

    def write(self, **figures: float | None) -> None:
        """Close a row: the means of the steps since the last one, and figures of its own."""
        means = {name: value / self._count for name, value in self._sums.items()} if self._count else {}
        row = {name: value for name, value in {**means, **figures}.items() if name in COLUMNS and value is not None}
        self.rows.append(row)
        self._sums, self._count = {}, 0
        self._save()

    def cut(self, step: int) -> None:
        """Read the rows back and drop those after `step`: they will be trained again."""
        self.rows = [row for row in read_history(self.path) if row["step"] <= step]
        self._save()

    def state_dict(self) -> dict[str, Any]:
        """Return the steps that no row tells of yet, as plain numbers."""
        return {"sums": dict(self._sums), "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up again."""
        self._sums, self._count = dict(state["sums"]), state["count"]

    def line(self) -> str:
        """Describe the last row in a line."""
        row = self.rows[-1]
        parts = [f"epoch {row['epoch']:.3g}", f"step {row['step']:.0f}"]
        parts += [f"{name} {row[name]:.3f}" for name in ("loss", "val_loss") if name in row]
        parts += [f"{name} {100 * row[name]:.1f}" for name in ("AP", "AP50") if name in row]
        return ", ".join(parts)

    def log(self, line: str) -> None:
        """Append a line to log.txt where the run has a folder."""
        if self.log_path.parent.is_dir() and self.path.exists():
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _save(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: write_number(value) for name, value in row.items()} for row in self.rows)
        with write_beside(self.path, "w") as file:
            file.write(text.getvalue())


def write_number(value: float) -> str:
    """Write six digits of a fraction and all of a whole number.

    >>> write_number(1 / 3), write_number(1_234_567)
    ('0.333333', '1234567')
    """
    return f"{value:.0f}" if value == int(value) else f"{value:.6g}"


def read_history(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv; cells that were not measured are absent from their row."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]
