"""What time a run has taken, earlier sittings included."""

from __future__ import annotations

import resource
import time


class Clock:
    """Runs from when it is made; `go_on` adds what earlier sittings took."""

    def __init__(self) -> None:
        self._before = self._cpu_before = 0.0
        self._started, self._cpu_started = time.perf_counter(), cpu_seconds()

    @property
    def seconds(self) -> float:
        """Time spent on the run."""
        return self._before + time.perf_counter() - self._started

    @property
    def cpu_seconds(self) -> float:
        """CPU time spent on the run by this process and its workers that have ended."""
        return self._cpu_before + cpu_seconds() - self._cpu_started

    def go_on(self, seconds: float, cpu_seconds: float) -> None:
        """Count what earlier sittings took."""
        self._before, self._cpu_before = seconds, cpu_seconds


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def peak_gigabytes() -> float:
    """Return the most memory that this process has held so far, in units of 10^9 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9  # Linux counts in KiB
