"""The clock: turns, warm-ups, minimum and median."""

from __future__ import annotations

from functools import partial

import pytest

from focaldet.bench.clock import Timing, cpu_time, take_turns, time_process


def test_contenders_take_turns_and_warmups_are_not_counted() -> None:
    calls: list[str] = []
    timings = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=2, warmups=1)
    assert calls == ["a", "b"] * 3
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 2, "b": 2}


def test_a_turn_lasts_and_who_has_had_enough_has_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {"quick": 0.25, "slow": 4.0, "endless": 100.0}
    monkeypatch.setattr("focaldet.bench.clock.cpu_time", lambda task: task())
    timings = take_turns({name: partial(needs.get, name) for name in needs}, repeats=3, least=1.0, most=8.0)
    # quick: 3 turns of 4 calls; slow: a warm-up and a turn; endless: its warm-up is all there is.
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"quick": 12, "slow": 1, "endless": 1}


def test_minimum_and_median() -> None:
    timing = Timing((3.0, 1.0, 2.0, 8.0))
    assert (timing.minimum, timing.median) == (1.0, 2.5)


def test_cpu_time_counts_work() -> None:
    assert cpu_time(lambda: sum(range(100_000))) > 0


def test_a_process_is_timed_without_its_first_run() -> None:
    assert len(time_process(["-S", "-c", "pass"], repeats=2).seconds) == 2
