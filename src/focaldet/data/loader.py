"""Samples of coming steps, read and put together in other processes."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from focaldet.data.dataset import Dataset
from focaldet.data.sampler import GroupedSampler, InOrder, MicroBatch
from focaldet.errors import FocaldetError
from focaldet.structures import Batch, Sample

PR_SET_PDEATHSIG = 1
"""Of Linux's `prctl`: which signal this process gets when its parent ends."""
PATIENCE = 900.0
"""Seconds that a run waits for a batch of its workers before it takes them for stuck."""

Transform = Callable[[Sample, np.random.Generator], Sample]
Collate = Callable[[Sequence[Sample]], Batch]
Sampler = GroupedSampler | InOrder
Share = Callable[[list[MicroBatch]], Sequence[MicroBatch]]
"""Which micro-batches of a step are this process's."""


class PictureLoader:
    """Iterates over the steps of an epoch; each is the list of its micro-batches, one Batch each.

    The sampler's position counts a step as soon as it is handed out, however far the workers are ahead; when the last
    one is done the sampler goes to the next epoch. Random choices of a sample depend on (seed, epoch, draw) alone:
    neither the number of workers nor an interruption changes them, and torch's global generator is left alone.

    Args:
        dataset: the pictures.
        transform: what is done to each sample.
        sampler: which pictures make up a step.
        collate: makes a Batch of a micro-batch's samples; it runs in the worker, so it may work out targets too.
        workers: processes; 0 does all in this one.
        seed: of the samples' random choices.
        channels: of the pictures.
        share: picks this process's micro-batches out of a step's; None for all.
    """

    def __init__(
        self,
        dataset: Dataset,
        transform: Transform,
        sampler: Sampler,
        collate: Collate,
        *,
        workers: int = 0,
        seed: int = 0,
        channels: int = 3,
        share: Share | None = None,
    ) -> None:
        self._sampler = sampler
        self._share = share or (lambda step: step)
        self._loader = DataLoader(
            _Station(dataset, transform, collate, seed, channels, packs=workers > 0),
            sampler=_Tasks(sampler, self._share),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=2 if workers else None,
            multiprocessing_context=_context() if workers else None,
            timeout=PATIENCE if workers else 0,
            worker_init_fn=_start_worker,
            generator=torch.Generator(),  # else every pass would draw from the global one
        )

    def __len__(self) -> int:
        """Return the steps of a whole epoch."""
        return len(self._sampler)

    def __iter__(self) -> Iterator[list[Batch]]:
        """Yield the rest of the epoch, step by step.

        Raises:
            FocaldetError: a picture cannot be read; the sentence is the reader's own. Or nothing comes.
        """
        sizes = [len(self._share(step)) for step in self._sampler.steps()]
        micro_batches = iter(self._loader)
        workers: list[BaseProcess] = list(getattr(micro_batches, "_workers", ()))  # torch has no public name for them
        # Before multiprocessing's own end, which asks them by the signal that they ignore, and waits for them.
        at_exit = Finalize(None, _end_at_exit, args=(workers,), exitpriority=1)
        try:
            for size in sizes:
                step = [_unpack(_answer(micro_batches)) for _ in range(size)]
                self._sampler.advance()
                yield step
        finally:
            held = weakref.ref(micro_batches)
            del micro_batches  # ends the workers now; left to the garbage collector, each takes five seconds
            if held() is None:  # else a traceback keeps it, and with it the workers
                at_exit.cancel()
                for worker in workers:
                    worker.kill()  # if it is stuck, it did not hear of the end
        self._sampler.finish_epoch()


@contextmanager
def worker_deaths_told() -> Iterator[None]:
    """Say in one sentence that a worker was killed.

    For a whole loop over a loader's steps: torch hears of the death by a signal, and raises wherever the loop is.

    Raises:
        FocaldetError: so it was.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_worker_death(error):
            raise
        raise FocaldetError(
            "a process that reads pictures was killed, most likely by the system for want of memory; "
            "fewer --workers take less"
        ) from error


def is_worker_death(error: RuntimeError) -> bool:
    """Whether torch raised an error because a worker was killed."""
    return "DataLoader worker" in str(error)


def sample_rng(seed: int, epoch: int, draw: int) -> np.random.Generator:
    """Return the generator of one sample's random choices."""
    return np.random.default_rng(np.random.SeedSequence((seed, epoch, draw)))


@dataclass(frozen=True)
class _Task:
    epoch: int
    draws: MicroBatch


@dataclass(frozen=True)
class _Failure:
    sentence: str


@dataclass(frozen=True)
class _Packed:
    """A Batch on its way between processes: pictures through shared memory, the many small tensors as bytes.

    Each tensor in shared memory costs an open file; batches that are kept would run into the system's limit.
    """

    images: Tensor
    rest: bytes


Answer = Batch | _Packed | _Failure
"""What a worker brings of a task."""


class _Tasks:
    """The micro-batches of the epoch's remaining steps, one after the other, for the DataLoader."""

    def __init__(self, sampler: Sampler, share: Share) -> None:
        self.sampler = sampler
        self.share = share

    def __iter__(self) -> Iterator[_Task]:
        epoch = self.sampler.epoch
        return (_Task(epoch, draws) for step in list(self.sampler.steps()) for draws in self.share(step))


class _Station(TorchDataset[object]):
    """What a worker does: read, transform and collate one micro-batch."""

    def __init__(
        self, dataset: Dataset, transform: Transform, collate: Collate, seed: int, channels: int, packs: bool
    ) -> None:
        self.dataset = dataset
        self.transform = transform
        self.collate = collate
        self.seed = seed
        self.channels = channels
        self.packs = packs

    def __getitem__(self, task: _Task) -> Answer:
        try:
            batch = self.collate([self._sample(task.epoch, draw) for draw in task.draws])
        except FocaldetError as error:  # an exception would arrive wrapped in the worker's traceback
            return _Failure(str(error))
        return _pack(batch) if self.packs else batch

    def _sample(self, epoch: int, draw: int) -> Sample:
        sample = self.dataset.sample(draw % len(self.dataset), self.channels)
        return self.transform(sample, sample_rng(self.seed, epoch, draw))


def _answer(micro_batches: Iterator[Answer]) -> Answer:
    """Wait for the next answer, but not for ever.

    That none comes is an answer too: raised here, it would keep torch's frames, these the iterator, and it the workers.
    """
    try:
        return next(micro_batches)
    except RuntimeError as error:
        if "timed out" not in str(error):
            raise
        return _Failure(
            f"the processes that read pictures have brought none for {PATIENCE / 60:g} minutes; is their disk still "
            "there? With --workers 0 this process reads them itself"
        )


def _pack(batch: Batch) -> _Packed:
    return _Packed(batch.images, pickle.dumps(replace(batch, images=torch.empty(0))))


def _unpack(answer: Answer) -> Batch:
    if isinstance(answer, _Failure):
        raise FocaldetError(answer.sentence)
    if isinstance(answer, _Packed):
        batch: Batch = pickle.loads(answer.rest)
        return replace(batch, images=answer.images)
    return answer


def _context() -> str | None:
    """Fork where the system can: a forked worker shares the dataset's arrays, a spawned one gets a copy."""
    return "fork" if "fork" in multiprocessing.get_all_start_methods() else None


def _end_at_exit(workers: Sequence[BaseProcess]) -> None:
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler would take their end for a failure
    for worker in workers:
        worker.kill()


def _start_worker(_: int) -> None:
    _end_with_parent()
    gc.freeze()  # a full collection would write to, and so copy, every page of objects that is shared with the parent
    torch.set_num_threads(1)  # the cores belong to the workers and to the model
    for number in (signal.SIGINT, signal.SIGTERM):  # a terminal or a batch system sends them to the whole group: the
        signal.signal(number, signal.SIG_IGN)  # process that trains decides, and needs its pictures until then


def _end_with_parent() -> None:
    """Let the system end this process when the one that forked it does, however that ends; Linux alone can.

    Without it a worker that waits to hand over a batch waits for ever: its sisters hold the other end of the pipe open.
    """
    if not sys.platform.startswith("linux"):
        return
    parent = multiprocessing.parent_process()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if parent is not None and os.getppid() != parent.pid:  # it ended before the line above
        os._exit(1)
