"""A large data set costs the same memory in every epoch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from focaldet.bench.label_memory import SMAPS, pss, write_label_file
from focaldet.data.formats import open_dataset

only_linux = pytest.mark.skipif(not SMAPS.exists(), reason="only Linux tells what processes hold together")


def test_label_file(tmp_path: Path) -> None:
    dataset = open_dataset(write_label_file(tmp_path / "set", 30, 200), "train")
    assert (len(dataset), dataset.num_objects, dataset.kind) == (30, 200, "hbox")
    assert dataset.counts.max() < 30  # dealt to all
    assert len({dataset.path(k).stat().st_ino for k in range(30)}) == 1
    assert dataset.sample(29).size == (64, 64)


@only_linux
def test_memory_of_this_process() -> None:
    """What is shared with other processes counts in part, so it is at most what is resident."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    assert 20 < pss([os.getpid()]) < resident * 1.05  # it may have grown since


@only_linux
@pytest.mark.slow
def test_memory_does_not_grow_from_epoch_to_epoch(tmp_path: Path) -> None:
    """The bound of 2 % is the promise; the numbers are a fifth of those of benchmarks/memory_data.py.

    Pages of libraries are left out: they count less while another program, another test for instance, has them too.
    """
    words = [str(tmp_path / "set"), "20000", "200000", "2", "5"]
    command = [sys.executable, "-m", "focaldet.bench.label_memory", *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    held = [one["mebibytes"] - one["of_files"] for one in found]
    assert len(held) == 5
    assert held[4] == pytest.approx(held[1], rel=0.02)
