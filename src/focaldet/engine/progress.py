"""How long work tells how far it is: a listener, which the engine calls and never has to know.

`Quiet` is for libraries and tests, `PlainLines` for logs; the command line adds a bar for terminals.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO


class Listener(Protocol):
    """Told about one task after the other; a task runs from `start` to `finish` or to the next `start`."""

    def start(self, total: int | None, what: str) -> None:
        """Begin a task of `total` units (None: unknown), called `what`."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count `n` more units as done; `figures` are worth seeing beside, such as loss=0.4."""

    def message(self, text: str) -> None:
        """Say a line that is to stay."""

    def finish(self) -> None:
        """End the task."""


class Quiet:
    """The listener that says nothing."""

    def start(self, total: int | None, what: str) -> None:
        """Say nothing."""

    def advance(self, n: int = 1, **figures: float) -> None:
        """Say nothing."""

    def message(self, text: str) -> None:
        """Say nothing."""

    def finish(self) -> None:
        """Say nothing."""


class PlainLines:
    """Prints a line at the start of a task, about every `interval` seconds, and at its end.

    Args:
        stream: where to print; standard error unless told.
        interval: seconds between two lines.
        clock: seconds that only grow; another one in tests.
    """

    def __init__(
        self, stream: TextIO | None = None, interval: float = 15.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream if stream is not None else sys.stderr
        self._interval = interval
        self._clock = clock
        self._what = ""
        self._running = False

    def start(self, total: int | None, what: str) -> None:
        """Begin a task; the line of its start comes with the first interval, so that short tasks take one line."""
        self.finish()
        self._total, self._what, self._done, self._running = total, what, 0, True
        self._figures: dict[str, float] = {}
        self._began = self._said = self._clock()

    def advance(self, n: int = 1, **figures: float) -> None:
        """Count, and print when the interval is over."""
        self._done += n
        self._figures.update(figures)
        if self._clock() - self._said >= self._interval:
            self._said = self._clock()
            self._print_state(self._time_left())

    def message(self, text: str) -> None:
        """Print the line."""
        print(text, file=self._stream, flush=True)

    def finish(self) -> None:
        """Print the last state and how long it took."""
        if self._running:
            self._running = False
            self._print_state(f"in {duration(self._clock() - self._began)}")

    def _time_left(self) -> str:
        if not self._total or not self._done:
            return ""
        spent = self._clock() - self._began
        return f"{duration(spent * max(self._total - self._done, 0) / self._done)} left"

    def _print_state(self, timing: str) -> None:
        count = f"{self._done}/{self._total}" if self._total is not None else str(self._done)
        self.message(
            ", ".join(part for part in (f"{self._what}: {count}", figures_text(self._figures), timing) if part)
        )


def figures_text(figures: dict[str, float]) -> str:
    """Write figures for people, four digits each.

    >>> figures_text({"loss": 0.123456, "AP": 0.5})
    'loss 0.1235, AP 0.5'
    """
    return ", ".join(f"{name} {value:.4g}" for name, value in figures.items())


def duration(seconds: float) -> str:
    """Write a time for people.

    >>> duration(7.2), duration(130), duration(7320)
    ('7 s', '2:10 min', '2:02 h')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    return f"{whole // 3600}:{whole % 3600 // 60:02} h"
