"""The bar of terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from focaldet.cli import progress
from focaldet.cli.progress import Bar, new_listener
from focaldet.engine.progress import PlainLines


def test_plain_lines_where_there_is_no_terminal() -> None:
    assert isinstance(new_listener(), PlainLines)


def test_a_bar_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert isinstance(new_listener(), progress.Bar)


def test_the_bar_shows_count_figures_and_messages() -> None:
    screen = io.StringIO()
    bar = Bar(Console(file=screen, force_terminal=True, width=120))
    bar.start(3, "epoch 1/2")
    bar.advance(2, loss=0.5)
    bar.message("[no markup] here")
    bar.start(2, "scoring")  # the first task ends by itself
    bar.advance(2)
    bar.finish()
    bar.finish()
    shown = screen.getvalue()
    assert "epoch 1/2" in shown
    assert "2/3" in shown
    assert "loss 0.5" in shown
    assert "[no markup] here" in shown
    assert "scoring" in shown
