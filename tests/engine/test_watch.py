"""What looks wrong is said, once."""

from __future__ import annotations

import pytest
import torch

from focaldet.engine import stopwatch as stopwatch_module
from focaldet.engine.stopwatch import PARTS, WARM_UP, Stopwatch
from focaldet.engine.watch import KNOWN, Watch


def test_a_term_that_dominates_is_said_once() -> None:
    said: list[str] = []
    watch = Watch(said.append, window=10)
    for step in range(9):
        watch.look(step, {"class": 0.99, "box": 0.01}, 1.0)
    assert said == []  # not before a whole window
    for step in range(9, 40):
        watch.look(step, {"class": 0.99, "box": 0.01}, 1.0)
    (line,) = said
    assert "step 9 the term class makes 99 % of the loss of the last 10 steps (over 95 %)" in line


def test_balanced_terms_and_a_single_one_are_fine() -> None:
    said: list[str] = []
    for terms in ({"class": 0.9, "box": 0.1}, {"loss": 1.0}):
        watch = Watch(said.append, window=5)
        for step in range(20):
            watch.look(step, terms, 1.0)
    assert said == []


def test_a_norm_that_explodes_is_said_once() -> None:
    said: list[str] = []
    watch = Watch(said.append)
    watch.look(0, {}, 1e9)  # nothing is known yet
    for step in range(1, KNOWN + 1):
        watch.look(step, {}, 2.0)
    watch.look(50, {}, 59.0)
    assert said == []
    watch.look(51, {}, 61.0)
    watch.look(52, {}, 1e6)
    (line,) = said
    assert "step 51 the gradient's norm is 61, 30 times the median" in line and "lower lr" in line


def test_shares_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(stopwatch_module.time, "perf_counter", lambda: now)
    watch = Stopwatch(torch.device("cpu"), on=True)
    assert "nothing to show" in watch.table()
    for _ in range(WARM_UP + 4):
        for name, seconds in (("data", 3.0), ("forward", 2.0), ("backward", 4.0), ("optimizer", 0.5)):
            with watch.part(name):
                now += seconds
        watch.assigned(1.0, in_worker=False)  # of the data's seconds
        now += 0.5
        watch.lap()
    shares = watch.shares()
    assert tuple(shares) == PARTS
    assert shares == pytest.approx(
        {"data": 0.2, "assignment": 0.1, "forward": 0.2, "backward": 0.4, "optimizer": 0.05, "other": 0.05}
    )
    assert "profile: 10 s a step, mean of 4" in watch.table()


def test_a_stopwatch_that_is_off_has_nothing() -> None:
    watch = Stopwatch(torch.device("cpu"), on=False)
    with watch.part("data"):
        pass
    watch.lap()
    assert watch.shares() == {}
