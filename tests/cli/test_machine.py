"""The verbs `bench` and `demo`: what they hand on, and what they say."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


def test_demo_hands_on_folder_and_minutes(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run_demo(output: Path, *, minutes: float, listener: object) -> Any:
        asked.update(output=output, minutes=minutes)
        return SimpleNamespace(
            report=output / "report.html", to_dict=lambda: {"AP": 0.5}, summary=lambda: "reached AP 0.5"
        )

    monkeypatch.setattr("focaldet.report.demo.run_demo", run_demo)
    assert command("demo", "--output", tmp_path / "demo", "--minutes", "2").out == "reached AP 0.5\n"
    assert asked == {"output": tmp_path / "demo", "minutes": 2.0}
    assert json.loads(command("demo", "--output", tmp_path / "demo", "--json").out) == {"AP": 0.5}
    assert asked["minutes"] == 5.0


def test_a_demo_is_not_overwritten(command: Any, tmp_path: Path) -> None:
    (tmp_path / "report.html").touch()
    exit_code, _, err = command("demo", "--output", tmp_path)
    assert exit_code == 2
    assert "add --overwrite" in err


def test_bench_hands_on_what_to_measure(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], bool]] = []

    def run(what: list[str], *, quick: bool) -> Any:
        asked.append((what, quick))
        return SimpleNamespace(to_dict=lambda: {"machine": 1.0}, table=lambda: "machine 1.0")

    monkeypatch.setattr("focaldet.bench.run", run, raising=False)
    assert command("bench").out == "machine 1.0\n"
    assert json.loads(command("bench", "machine", "--quick", "--json").out) == {"machine": 1.0}
    assert asked == [([], False), (["machine"], True)]
