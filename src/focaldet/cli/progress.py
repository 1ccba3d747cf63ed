"""A bar with the time left in a terminal, plain lines elsewhere; both on standard error."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from focaldet.engine.progress import Listener, PlainLines, figures_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID


def new_listener() -> Listener:
    """Return what fits where standard error goes."""
    return Bar() if sys.stderr.isatty() else PlainLines()


class Bar:
    """The listener of terminals.

    Args:
        console: where to draw; standard error unless told.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, total: int | None, what: str) -> None:
        """Show an empty bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.finish()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("{task.fields[figures]}", style="dim"),
        )
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task(what, total=total, figures="")
        self._progress.start()

    def advance(self, n: int = 1, **figures: float) -> None:
        """Move the bar on."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, n)
            if figures:
                self._progress.update(self._task, figures=figures_text(figures))

    def message(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(text, markup=False, highlight=False)

    def finish(self) -> None:
        """Leave the bar where it is and go on below it."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
