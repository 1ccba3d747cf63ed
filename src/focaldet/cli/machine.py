"""The verbs about this machine: `bench`, `doctor` and `demo`."""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from focaldet.cli.options import Overwrite
from focaldet.cli.verb import Answer, verb
from focaldet.errors import UsageError


@verb
def bench(
    what: Annotated[list[str] | None, typer.Argument(metavar="WHAT", help="Which figures; all without.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions.")] = False,
) -> Answer:
    """Measure the figures of the README on this machine."""
    from focaldet import bench as benchmarks

    report = benchmarks.run(what or [], quick=quick)
    return Answer(report.to_dict(), report.table())


@verb
def doctor() -> Answer:
    """Look at this machine: versions, devices, a self-test."""
    from focaldet.cli.doctor import examine

    findings = examine()
    return Answer(findings.to_dict(), findings.text(), exit_code=0 if findings.ready else 1)


@verb
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For run and report.")] = Path(
        "runs/demo"
    ),
    minutes: Annotated[float, typer.Option("--minutes", min=0.1, help="Of training in each half, at most.")] = 5.0,
    overwrite: Overwrite = False,
) -> Answer:
    """Train on small real pictures, upright boxes then rotated ones, score, predict, and write reports."""
    if (output / "report.html").exists() and not overwrite:
        raise UsageError(f"{output} holds a demo already; add --overwrite to replace it, or name another --output")
    from focaldet.cli.progress import new_listener
    from focaldet.report.demo import run_demo

    result = run_demo(output, minutes=minutes, listener=new_listener())
    if has_desktop():
        webbrowser.open(Path(result.report).resolve().as_uri())
    return Answer(result.to_dict(), result.summary())


def has_desktop() -> bool:
    """Say whether somebody sits in front of a screen that can show a page."""
    screen = sys.platform in ("darwin", "win32") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    return screen and sys.stderr.isatty() and "SSH_CONNECTION" not in os.environ
