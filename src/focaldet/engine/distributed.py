"""Several processes that make one update together: who they are, and what they tell each other.

Each holds the whole network and takes its share of a step's groups of pictures; gradients are summed, so that all take
the same update. What is summed is on the CPU over gloo, or on the GPU over nccl; what they agree on always goes over
gloo, which notices at once when a process has ended.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from focaldet.data.loader import is_worker_death
from focaldet.errors import FocaldetError, UsageError

T = TypeVar("T")

BUCKET = 1 << 24
"""Numbers that are summed in one go."""
TOLD = "told by every process"
"""Note on an error that all processes of the run raise."""
PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others, such as for the one that scores."""


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this one is.

    Attributes:
        rank: from 0; the process of rank 0 writes all files and speaks.
        count: how many there are.
        local_rank: from 0 on this machine: the number of its GPU.
        address, port: where the process of rank 0 listens.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    address: str = "127.0.0.1"
    port: int = 29500


def find_place(environment: Mapping[str, str] = os.environ) -> Place:
    """Return the place that torchrun or SLURM's srun gave this process; rank 0 of 1 where neither did.

    Raises:
        UsageError: torchrun's variables are there in part.

    >>> find_place({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "node1", "MASTER_PORT": "29400"})
    Place(rank=1, count=2, local_rank=1, address='node1', port=29400)
    >>> find_place({"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "7",
    ...     "SLURM_STEP_NODELIST": "gpu[07-08,11]"})
    Place(rank=3, count=4, local_rank=1, address='gpu07', port=29507)
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in environment]
        if missing:
            raise UsageError(f"RANK and WORLD_SIZE are set, but not {' and '.join(missing)}; start with torchrun")
        return Place(
            rank=int(environment["RANK"]),
            count=int(environment["WORLD_SIZE"]),
            local_rank=int(environment.get("LOCAL_RANK", environment["RANK"])),
            address=environment["MASTER_ADDR"],
            port=int(environment["MASTER_PORT"]),
        )
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:  # of one srun; sbatch alone sets it not
        return Place(
            rank=int(environment["SLURM_PROCID"]),
            count=int(environment["SLURM_STEP_NUM_TASKS"]),
            local_rank=int(environment.get("SLURM_LOCALID", "0")),
            address=environment.get("MASTER_ADDR", first_host(environment.get("SLURM_STEP_NODELIST", "127.0.0.1"))),
            port=int(environment.get("MASTER_PORT", 29500 + int(environment.get("SLURM_JOB_ID", "0")) % 1000)),
        )
    return Place()


def first_host(nodes: str) -> str:
    """Return the first host of a list as SLURM abbreviates it.

    >>> first_host("gpu[07-08,11],login1"), first_host("one,two")
    ('gpu07', 'one')
    """
    head = re.match(r"([^,\[]+)(?:\[(\d+))?", nodes)
    return "".join(part or "" for part in head.groups()) if head else nodes


class Processes:
    """All processes of a run, seen from one of them; alone, it has nothing to ask and answers at once.

    Args:
        place: which this one is.
    """

    def __init__(self, place: Place | None = None) -> None:
        place = place or Place()
        self.rank, self.count, self.local_rank = place.rank, place.count, place.local_rank

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Return this process's part of what is dealt: neighbours stay together, no two parts differ by over one.

        >>> [list(Processes(Place(rank, 3)).share(range(8))) for rank in range(3)]
        [[0, 1, 2], [3, 4, 5], [6, 7]]
        """
        size, more = divmod(len(items), self.count)
        start = self.rank * size + min(self.rank, more)
        return items[start : start + size + (self.rank < more)]

    def sum(self, numbers: Iterable[float]) -> list[float]:
        """Return numbers, summed over all processes; each brings as many."""
        values = torch.tensor(list(numbers), dtype=torch.float64)
        if self.count > 1:
            with self._told():
                dist.all_reduce(values)
        summed: list[float] = values.tolist()
        return summed

    def sum_tensors(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all processes, in place, where they are; each brings the same shapes."""
        if self.count == 1:
            return
        for bucket in buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            with self._told():
                dist.all_reduce(flat)
            parts = torch.split(flat, [tensor.numel() for tensor in bucket])
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors by those of the first process."""
        for tensor in tensors if self.count > 1 else ():
            with self._told(), torch.no_grad():
                dist.broadcast(tensor, 0)

    def collect(self, thing: T) -> list[T]:
        """Return what each process brings, by rank; anything that pickle knows."""
        if self.count == 1:
            return [thing]
        packed = torch.frombuffer(bytearray(pickle.dumps(thing)), dtype=torch.uint8)
        sizes = [int(size) for size in self.sum(len(packed) * (rank == self.rank) for rank in range(self.count))]
        parts = [torch.empty(max(sizes), dtype=torch.uint8) for _ in range(self.count)]
        with self._told():
            dist.all_gather(parts, torch.nn.functional.pad(packed, (0, max(sizes) - len(packed))))
        return [pickle.loads(part[:size].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def told_by_first(self, make: Callable[[], T]) -> T:
        """Return what the first process makes; the others do not make it."""
        answer: T = self.collect(make() if self.first else None)[0]  # type: ignore[assignment]
        return answer

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Make an error of one process the error of all: nobody waits for one that has given up.

        Raises:
            FocaldetError: that of the lowest rank, in every process.
        """
        mine: FocaldetError | None = None
        try:
            yield
        except FocaldetError as error:
            if self.count == 1:
                raise
            mine = error
        if self.count > 1 and self.sum([mine is not None])[0]:
            told = next(error for error in self.collect(mine) if error is not None)
            told.add_note(TOLD)
            raise told

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say in one sentence that another process is gone."""
        try:
            yield
        except RuntimeError as error:
            if is_worker_death(error):  # it may be heard of while this process waits for the others
                raise
            raise LostProcess(
                f"one of the other processes of this run (there were {self.count}) has ended or cannot be reached "
                f"({str(error).splitlines()[0][:200]}); go on from the last checkpoint with --resume"
            ) from error


class LostProcess(FocaldetError):
    """Another process is gone."""


ALONE = Processes()
"""The one process of an ordinary run."""


def buckets(tensors: Sequence[Tensor], size: int = BUCKET) -> Iterator[list[Tensor]]:
    """Cut a list of tensors into runs of one dtype and about `size` numbers.

    >>> [len(bucket) for bucket in buckets([torch.zeros(2), torch.zeros(1), torch.zeros(1, dtype=torch.int64)], 3)]
    [2, 1]
    """
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(each.numel() for each in bucket) + tensor.numel() > size
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@contextlib.contextmanager
def joined(place: Place, device: torch.device) -> Iterator[Processes]:
    """Meet the other processes, and part from them at the end.

    Raises:
        FocaldetError: they do not come.
    """
    if place.count == 1:
        yield ALONE
        return
    processes = Processes(place)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    address = f"tcp://{place.address}:{place.port}"
    try:
        dist.init_process_group(backend, init_method=address, rank=place.rank, world_size=place.count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise FocaldetError(
            f"process {place.rank} cannot meet the other {place.count - 1} at {place.address}:{place.port} "
            f"({str(error).splitlines()[0][:200]}); is the port free, and can the machines reach each other?"
        ) from error
    try:
        yield processes
    finally:
        dist.destroy_process_group()
