"""CPU time of contenders that take turns, so that whatever else the machine does meets all of them alike."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Task = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """How long something took, again and again.

    Attributes:
        seconds: one entry a repetition.
    """

    seconds: tuple[float, ...]

    @property
    def minimum(self) -> float:
        """The fastest repetition: what is least disturbed, so ratios are taken of it."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """The repetition in the middle: what to expect."""
        return statistics.median(self.seconds)


def take_turns(
    contenders: Mapping[str, Task], repeats: int, warmups: int = 1, *, least: float = 0.0, most: float = math.inf
) -> dict[str, Timing]:
    """Time tasks in turns: all of them once, then all of them again.

    Args:
        contenders: tasks by name.
        repeats: how many turns each is timed for.
        warmups: rounds before that, not timed: first calls compile kernels and lay out weights.
        least: CPU seconds that a turn lasts; a task that needs less is called, and timed, again and again.
        most: CPU seconds after which a contender has no further turn. If its warm-ups took that long already, they
            are what is timed of it.

    Returns:
        By name, CPU seconds: the time of all threads of this process together.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    used = dict.fromkeys(contenders, 0.0)
    for turn in range(warmups + repeats):
        for name, task in contenders.items():
            if seconds[name] and used[name] >= most:
                continue
            taken = take_turn(task, least if turn >= warmups else 0.0)
            used[name] += sum(taken)
            if turn >= warmups or used[name] >= most:
                seconds[name] += taken
    return {name: Timing(tuple(taken)) for name, taken in seconds.items()}


def take_turn(task: Task, least: float) -> list[float]:
    """Call a task until that took `least` CPU seconds, at least once, and return what each call took."""
    taken = [cpu_time(task)]
    while sum(taken) < least:
        taken.append(cpu_time(task))
    return taken


def cpu_time(task: Task) -> float:
    """Return the CPU seconds that a task takes, over all threads of this process."""
    start = time.process_time()
    task()
    return time.process_time() - start


def time_process(arguments: Sequence[str], repeats: int) -> Timing:
    """Time fresh Python processes from start to end, in seconds on the wall clock; the first one is not counted."""
    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return Timing(tuple(seconds[1:]))
