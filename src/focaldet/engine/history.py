"""What a run has reached so far: metrics.csv and log.txt."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from focaldet.results.files import write_beside

COLUMNS = (
    "epoch", "step", "time_s", "cpu_s", "lr", "loss", "class", "box", "val_loss", "AP", "AP50", "AP75", "AP_small",
    "AP_medium", "AP_large", "grad_norm", "pictures_s", "memory_gb",
)  # fmt: skip
"""Columns of metrics.csv, before those of a run's own, such as "refine1_box"; empty cells were not measured."""
CLASS_COLUMNS = ("epoch", "step", "class", "AP", "AP50", "AP75", "objects")
"""Columns of metrics_classes.csv: a row a validation and class."""


class History:
    """Collects the figures of steps; writes a row of their means when asked."""

    def __init__(self, path: Path, *, writes: bool = True) -> None:
        """Keep rows in `path`, lines in log.txt beside it; nothing is written yet, and never unless it `writes`."""
        self.path, self.writes = path, writes
        self.log_path = path.with_name("log.txt")
        self.classes_path = path.with_name("metrics_classes.csv")
        self.class_rows: list[dict[str, Any]] = []
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}
        self.rows: list[dict[str, float]] = []

    def clear(self) -> None:
        """Begin with empty files."""
        self.rows, self.class_rows = [], []
        if self.writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._save()
            self.log_path.write_text("", encoding="utf-8")
            self.classes_path.unlink(missing_ok=True)

    @property
    def pending(self) -> bool:
        """Whether steps were taken in that no row tells of yet."""
        return bool(self._counts)

    def add(self, figures: dict[str, float]) -> None:
        """Take in the figures of one step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def write(self, **figures: float | None) -> None:
        """Close a row: the means of the steps since the last one, and figures of its own."""
        means = {name: value / self._counts[name] for name, value in self._sums.items()}
        kept = {**means, **{name: value for name, value in figures.items() if name in COLUMNS}}
        self.rows.append({name: value for name, value in kept.items() if value is not None})
        self._sums, self._counts = {}, {}
        self._save()

    def write_classes(self, classes: Mapping[str, Mapping[str, Any]], *, epoch: float, step: int) -> None:
        """Add what a validation found of each class."""
        for name, figures in classes.items():
            known = {column: figures.get(column) for column in CLASS_COLUMNS}
            self.class_rows.append(known | {"epoch": epoch, "step": step, "class": name})
        self._save_table(self.classes_path, CLASS_COLUMNS, self.class_rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the steps that no row tells of yet, and how many rows there are, as plain numbers."""
        counts = {"rows": len(self.rows), "class_rows": len(self.class_rows)}
        return {"sums": dict(self._sums), "counts": dict(self._counts), **counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take them up again; rows that were written later are dropped, as their steps will be trained again."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        if not self.writes:
            return
        self.rows = read_history(self.path)[: state["rows"]]
        self._save()
        if self.classes_path.is_file():
            self.class_rows = read_class_history(self.classes_path)[: state["class_rows"]]
            self._save_table(self.classes_path, CLASS_COLUMNS, self.class_rows)

    def line(self) -> str:
        """Describe the last row in a line."""
        row = self.rows[-1]
        parts = [f"epoch {row['epoch']:.3g}", f"step {row['step']:.0f}"]
        parts += [f"{name} {row[name]:.3f}" for name in ("loss", "val_loss") if name in row]
        parts += [f"{name} {100 * row[name]:.1f}" for name in ("AP", "AP50") if name in row]
        return ", ".join(parts)

    def log(self, line: str) -> None:
        """Append a line to log.txt where the run has a folder."""
        if self.writes and self.log_path.parent.is_dir() and self.path.exists():
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

    def _save(self) -> None:
        own = {name: None for row in self.rows for name in row if name not in COLUMNS}
        self._save_table(self.path, (*COLUMNS, *own), self.rows)

    def _save_table(self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        if not self.writes:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: write_cell(value) for name, value in row.items()} for row in rows)
        with write_beside(path, "w") as file:
            file.write(text.getvalue())


def write_cell(value: float | str | None) -> str:
    """Write a number short, a word as it is, and nothing where nothing was measured."""
    if value is None or isinstance(value, str):
        return value or ""
    return write_number(value)


def write_number(value: float) -> str:
    """Write six digits of a fraction and all of a whole number.

    >>> write_number(1 / 3), write_number(1_234_567)
    ('0.333333', '1234567')
    """
    return f"{value:.0f}" if math.isfinite(value) and value == int(value) else f"{value:.6g}"


def read_history(path: Path) -> list[dict[str, float]]:
    """Read metrics.csv; cells that were not measured are absent from their row."""
    with path.open(encoding="utf-8", newline="") as file:
        return [{name: float(cell) for name, cell in row.items() if cell} for row in csv.DictReader(file)]


def read_class_history(path: Path) -> list[dict[str, Any]]:
    """Read metrics_classes.csv: words in the column "class", numbers or None in the others."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {name: cell if name == "class" else float(cell) if cell else None for name, cell in row.items()} for row in rows
    ]
