"""Starting the other processes of a run on this machine; this one is the first of them."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from focaldet.engine.distributed import TOLD, LostProcess, Place
from focaldet.errors import FocaldetError

CHILD = "from focaldet.engine.launch import take_part; take_part()"
NOTICE = 30.0
"""Seconds that this process has to notice by itself that another one is gone."""
PARTING = 60.0
"""Seconds that the others have to end once this one has."""


@contextlib.contextmanager
def launched(count: int, arguments: dict[str, Any]) -> Iterator[Place]:
    """Start all processes of a run but this one, and end them with it.

    Args:
        count: of processes, this one included.
        arguments: of `engine.train.train`.

    Raises:
        LostProcess: one of them was killed or broke down; the sentence says which and how.
    """
    place = Place(count=count, port=free_port())
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    torch.set_num_threads(max(1, min(threads, cores // count)))
    others = [start(rank, place, arguments) for rank in range(1, count)]
    over = threading.Event()
    threading.Thread(target=watch, args=(others, over), daemon=True).start()
    try:
        yield place
    except LostProcess as error:
        raise LostProcess(f"{describe(others)}; go on from the last checkpoint with --resume") from error
    finally:
        over.set()
        torch.set_num_threads(threads)
        end(others)


def start(rank: int, place: Place, arguments: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start one process; it ends when this one does, whose end it notices by its standard input."""
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(place.count),
        "MASTER_ADDR": place.address,
        "MASTER_PORT": str(place.port),
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    process = subprocess.Popen([sys.executable, "-c", CHILD], stdin=subprocess.PIPE, env=environment)
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended already; `watch` tells
        process.stdin.write(pickle.dumps(arguments))
        process.stdin.flush()
    return process


def take_part() -> None:
    """Be one of the others: train with the arguments that come by standard input."""
    from focaldet.engine.train import train

    arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        train(**arguments)
    except (KeyboardInterrupt, LostProcess):
        sys.exit(1)
    except FocaldetError as error:
        if TOLD not in getattr(error, "__notes__", ()):
            print(f"focaldet: process {os.environ['RANK']}: {error}", file=sys.stderr)
        sys.exit(1)


def _end_with_parent() -> None:
    while os.read(0, 1):  # not through sys.stdin: a worker forked meanwhile would inherit its lock, and wait for ever
        pass
    os._exit(1)


def watch(others: Sequence[subprocess.Popen[bytes]], over: threading.Event) -> None:
    """End this process if another one is gone and this one does not notice, as in a sum on a GPU that never comes."""
    while not over.wait(1.0):
        if any(process.poll() for process in others):
            if not over.wait(NOTICE):
                print(f"focaldet: error: {describe(others)}; go on with --resume", file=sys.stderr, flush=True)
                end(others, patience=0)
                os._exit(1)
            return


def describe(others: Sequence[subprocess.Popen[bytes]]) -> str:
    """Say which of the processes has ended, and how.

    Args:
        others: those of rank 1 and up.
    """
    for _ in range(20):
        for rank, process in enumerate(others, 1):
            code = process.poll()
            if code:
                how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"broke down (exit code {code})"
                return f"process {rank} of this run's {len(others) + 1} {how}"
        time.sleep(0.1)  # its connection is closed before its parent hears of its end
    return f"the connection to one of this run's {len(others) + 1} processes was lost"


def end(others: Sequence[subprocess.Popen[bytes]], patience: float = PARTING) -> None:
    """Wait for the others to end, then make them."""
    limit = time.monotonic() + patience
    broken = sys.exc_info()[0] is not None
    for process in others:
        assert process.stdin is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0 if broken else max(limit - time.monotonic(), 0.1))
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        if process.poll() is None:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
