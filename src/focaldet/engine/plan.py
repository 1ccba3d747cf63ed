"""What a training run would do, without doing it: `focaldet train --dry-run`."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from focaldet.engine.build import find_device
from focaldet.engine.job import prepare
from focaldet.engine.trainer import Trainer
from focaldet.recipes import Recipe


@dataclass(frozen=True)
class Plan:
    """What a run would do, worked out without training.

    Attributes:
        recipe: own data fitted in.
        notes: what was fitted, a line each.
        pictures, steps_per_epoch, steps: how much there is to do.
        parameters, trained: numbers of parameters.
        rates: learning rate at some steps.
        hours: estimated from one training step on this machine.
    """

    recipe: str
    notes: list[str]
    pictures: int
    steps_per_epoch: int
    steps: int
    batch: int
    parameters: int
    trained: int
    rates: dict[int, float]
    hours: float

    def to_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings."""
        return asdict(self)


def plan(
    recipe: Recipe | str,
    data: str | Path,
    *,
    device: torch.device | str = "cpu",
    format: str | None = None,
    **changes: Any,
) -> Plan:
    """Say what `train` would do; writes nothing.

    The hours are measured: two training steps are taken on the first pictures, reading and validation not counted.
    """
    job = prepare(recipe, data, changes, format=format)
    trainer = Trainer(job, Path(), find_device(device))
    schedule = job.schedule
    total = schedule.total_steps
    groups = next(iter(trainer.loader()))
    trainer.step(groups)  # the first step also packs weights and takes memory
    started = time.perf_counter()
    trainer.step(groups)
    seconds = time.perf_counter() - started
    marks = sorted({0, min(job.recipe.warmup_steps, total - 1), total // 2, total - 1})
    return Plan(
        recipe=job.recipe.name,
        notes=job.notes,
        pictures=len(job.training),
        steps_per_epoch=schedule.steps_per_epoch,
        steps=total,
        batch=job.recipe.batch,
        parameters=sum(parameter.numel() for parameter in trainer.updater.model.parameters()),
        trained=sum(parameter.numel() for parameter in trainer.updater.model.parameters() if parameter.requires_grad),
        rates={step: schedule.rate(step) for step in marks},
        hours=round(seconds * total / 3600, 3),
    )
