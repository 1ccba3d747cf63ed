"""Ctrl-C and SIGTERM at a moment that suits: at once while a run waits, behind the step while it takes one."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""What a terminal sends for Ctrl-C, and what `kill`, SLURM and containers send before they use force."""


class Signals:
    """Takes the two signals over while it is entered, in the main thread; elsewhere it does nothing.

    SIGINT becomes KeyboardInterrupt, SIGTERM SystemExit with the exit code that a shell would report, 143. A second
    signal waits for nothing.

    Attributes:
        forced: whether a second one came, which may have cut a step in two.

    Args:
        patient: never raise by itself: the run asks for `asked` when all its processes can hear the answer.
    """

    def __init__(self, *, patient: bool = False) -> None:
        self.patient = patient
        self.asked: int | None = None
        self.forced = False
        self._holding = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._hear) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Let what must not be cut in two come to its end first."""
        self._holding = True
        try:
            yield
        finally:
            self._holding = False
        if self.asked is not None and not self.patient:
            self.stop()

    def stop(self, number: int | None = None) -> None:
        """Raise what the signal means.

        Args:
            number: of the signal; None: the one that came.
        """
        number = number or self.asked
        self.asked = None
        if number == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _hear(self, number: int, _: FrameType | None) -> None:
        self.forced = self.asked is not None
        self.asked = number
        if self.forced or not (self._holding or self.patient):
            self.stop()
