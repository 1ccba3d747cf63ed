"""Which machine, which versions and which commit figures belong to: without these they say nothing."""

from __future__ import annotations

import datetime
import importlib.util
import os
import platform
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path

import torch

PACKAGES = ("focaldet", "torch", "torchvision", "timm", "numpy")


def describe_machine(modules: Sequence[str] = PACKAGES) -> dict[str, str | int]:
    """Return date, commit, processor, threads, load and the versions of those of `modules` that are installed."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit(),
        "cpu": cpu_model(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load before": current_load(),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": ", ".join(f"{name} {found}" for name in modules if (found := version_of(name))),
    }


def version_of(module: str) -> str | None:
    """Return the version of what a module is installed from, or that it gives itself; None if it is not there.

    >>> version_of("no_such_module") is None
    True
    """
    if importlib.util.find_spec(module) is None:
        return None
    with suppress(PackageNotFoundError):
        return version(module)
    for name in packages_distributions().get(module, []):  # takes a while
        return version(name)
    found: str | None = getattr(importlib.import_module(module), "__version__", None)
    return found


def current_load() -> str:
    """Return how many threads of the whole machine were at work on average over the last minute."""
    return f"{os.getloadavg()[0]:.2f}" if hasattr(os, "getloadavg") else "unknown"


def cpu_model() -> str:
    """Return what the processor calls itself."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Return the commit of the source tree that is running, with a + if it was changed since; "none" outside of git."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", str(folder.parent))
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "none"
