"""In which order pictures are dealt to the steps of an epoch, and where in it a run stands."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from focaldet.data.dataset import Bools
from focaldet.errors import FocaldetError

MicroBatch = list[int]
"""Draws that share a loss normalizer. Draw d is of picture d modulo P; beyond P it is a further draw of an epoch."""


class GroupedSampler:
    """The published order: permute, deal to groups, batch by aspect (spec section 10).

    The permutation of an epoch, seeded by `seed + epoch`, is repeated up to a multiple of `groups` and dealt round
    robin: group r takes every groups-th place from r on. Each group puts pictures that are narrower than high and the
    others into micro-batches of their own; what is left of both at the epoch's end shares batches. A group stands for
    a GPU of the published runs, so the order does not depend on how many processes there are.

    The state is the epoch and the number of steps handed out in it: a run that resumes meets the same pictures.

    Args:
        tall: (P,) pictures that are narrower than high.
        batch: pictures a step.
        normalize_over: pictures a micro-batch; `batch` is a multiple.
        seed: of the order.
        images_per_epoch: draws of an epoch; None takes each picture once.
    """

    def __init__(
        self, tall: Bools, *, batch: int, normalize_over: int, seed: int, images_per_epoch: int | None = None
    ) -> None:
        if len(tall) == 0:
            raise FocaldetError("there is no picture to train on; check that the data set has annotated pictures")
        if batch % normalize_over:
            raise FocaldetError(f"batch={batch} is no multiple of normalize_over={normalize_over}")
        self.tall = np.asarray(tall, dtype=bool)
        self.groups = batch // normalize_over
        self.micro_batch = normalize_over
        self.seed = seed
        self.draws = images_per_epoch or len(tall)
        self.epoch = 0
        self.position = 0

    def __len__(self) -> int:
        """Return the steps of an epoch."""
        return math.ceil(math.ceil(self.draws / self.groups) / self.micro_batch)

    def order(self, epoch: int) -> list[int]:
        """Return the draws of an epoch, repeated up to a multiple of the groups."""
        generator = torch.Generator().manual_seed(self.seed + epoch)
        pool = math.ceil(self.draws / len(self.tall)) * len(self.tall)
        permuted: list[int] = torch.randperm(pool, generator=generator)[: self.draws].tolist()
        total = math.ceil(self.draws / self.groups) * self.groups
        return (permuted * math.ceil(total / self.draws))[:total]

    def epoch_steps(self, epoch: int) -> list[list[MicroBatch]]:
        """Return all steps of an epoch, each with one micro-batch of every group."""
        order = self.order(epoch)
        streams = [self._batch_by_aspect(order[group :: self.groups]) for group in range(self.groups)]
        return [list(step) for step in zip(*streams, strict=True)]

    def steps(self) -> Iterator[list[MicroBatch]]:
        """Yield the steps of the current epoch that have not been handed out."""
        yield from self.epoch_steps(self.epoch)[self.position :]

    def advance(self) -> None:
        """Note that a step was handed out."""
        self.position += 1

    def finish_epoch(self) -> None:
        """Go to the start of the next epoch."""
        self.epoch += 1
        self.position = 0

    def state_dict(self) -> dict[str, Any]:
        """Return where the run stands, as plain numbers, and what the order depends on."""
        return {"epoch": self.epoch, "position": self.position, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to where another run stood.

        Raises:
            FocaldetError: that run dealt other pictures or in another way, so that its position means nothing here.
        """
        for name, value in self._identity().items():
            if state[name] != value:
                raise FocaldetError(f"cannot resume: the run had {name}={state[name]}, now it is {value}")
        self.epoch, self.position = int(state["epoch"]), int(state["position"])

    def _identity(self) -> dict[str, int]:
        """What the order of an epoch depends on."""
        return {
            "pictures": len(self.tall),
            "images_per_epoch": self.draws,
            "groups": self.groups,
            "normalize_over": self.micro_batch,
            "seed": self.seed,
        }

    def _batch_by_aspect(self, draws: list[int]) -> list[MicroBatch]:
        batches: list[MicroBatch] = []
        waiting: dict[bool, MicroBatch] = {True: [], False: []}
        for draw in draws:
            kind = bool(self.tall[draw % len(self.tall)])
            waiting[kind].append(draw)
            if len(waiting[kind]) == self.micro_batch:
                batches.append(waiting[kind])
                waiting[kind] = []
        left = waiting[True] + waiting[False]
        size = self.micro_batch
        return batches + [left[start : start + size] for start in range(0, len(left), size)]


class InOrder:
    """Every picture once, in order: for evaluation. A step is one micro-batch.

    Args:
        num_pictures: P.
        batch: pictures a step.
    """

    epoch = 0

    def __init__(self, num_pictures: int, batch: int = 1) -> None:
        self.num_pictures = num_pictures
        self.batch = batch

    def __len__(self) -> int:
        """Return the steps."""
        return math.ceil(self.num_pictures / self.batch)

    def steps(self) -> Iterator[list[MicroBatch]]:
        """Yield every step."""
        for start in range(0, self.num_pictures, self.batch):
            yield [list(range(start, min(start + self.batch, self.num_pictures)))]

    def advance(self) -> None:
        """Nothing to note: every pass is the whole set."""

    def finish_epoch(self) -> None:
        """Nothing to note either."""
