"""Peak memory of a contender: a fresh process for each, since a peak never comes down again."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import torch

from focaldet.bench.contenders import CONTENDERS
from focaldet.bench.networks import COCO
from focaldet.structures import Size

CHILD = "import sys; from focaldet.bench.memory import print_peak; print_peak(*sys.argv[1:])"
RUNS = 3
"""A second and third run may need more than the first: what was freed lies in pieces."""


def peak_memory(name: str, task: str, size: Size, dtype: torch.dtype) -> float:
    """Return the most memory, in MiB, that a process holds which imports, builds and runs one contender.

    Args:
        name: of the contender.
        task: "inference" or "training".
        size: (height, width) of the picture.
        dtype: what to compute in; of training, float32.
    """
    arguments = [name, task, *map(str, size), str(dtype).removeprefix("torch.")]
    command = [sys.executable, "-c", CHILD, *arguments]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def print_peak(name: str, task: str, height: str, width: str, dtype: str) -> None:
    """Build and run a contender of the COCO rows' network, and print the peak of this process in MiB."""
    contender = next(who for who in CONTENDERS if (who.name, who.network) == (name, COCO))
    size = (int(height), int(width))
    made = contender.training(size) if task == "training" else contender.inference(size, getattr(torch, dtype))
    assert made is not None  # those whose memory is measured have all precisions
    for _ in range(RUNS):
        made.run()
    print(own_peak())


def own_peak() -> float:
    """Return the peak resident memory of this process, in MiB.

    Linux starts the counter of getrusage at the size of the parent, which may be larger; its own page on the process
    does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
