"""Listeners of long work."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from focaldet.engine.progress import Listener, PlainLines, Quiet


@pytest.fixture
def times() -> list[float]:
    return [0.0]


def plain_lines(times: list[float]) -> tuple[PlainLines, io.StringIO]:
    stream = io.StringIO()
    return PlainLines(stream, interval=10, clock=lambda: times[0]), stream


def test_lines_come_at_intervals_with_the_time_left(times: list[float]) -> None:
    lines, stream = plain_lines(times)
    lines.start(100, "epoch 1/2")
    for _ in range(25):
        times[0] += 1
        lines.advance(1, loss=times[0])
    assert stream.getvalue().splitlines() == [
        "epoch 1/2: 10/100, loss 10, 1:30 min left",
        "epoch 1/2: 20/100, loss 20, 1:20 min left",
    ]
    lines.finish()
    assert stream.getvalue().splitlines()[-1] == "epoch 1/2: 25/100, loss 25, in 25 s"


def test_a_new_task_ends_the_old_one(times: list[float]) -> None:
    lines, stream = plain_lines(times)
    lines.start(2, "first")
    lines.advance(2)
    lines.start(None, "second")
    times[0] = 11
    lines.advance(3)
    lines.finish()
    lines.finish()
    assert stream.getvalue().splitlines() == ["first: 2/2, in 0 s", "second: 3", "second: 3, in 11 s"]


def test_messages_stay(times: list[float]) -> None:
    lines, stream = plain_lines(times)
    lines.message("weights: none")
    assert stream.getvalue() == "weights: none\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    def use(listener: Listener) -> Iterator[None]:
        yield listener.start(1, "x")
        yield listener.advance(1, loss=0.1)
        yield listener.message("x")
        yield listener.finish()

    assert list(use(Quiet())) == [None] * 4
    assert capsys.readouterr() == ("", "")
