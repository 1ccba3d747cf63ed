"""Batch -> its losses: the network in the recipe's precision, the losses in float32."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from focaldet.engine.build import build_criterion, build_stage_targets
from focaldet.engine.distributed import Processes
from focaldet.engine.options import Options
from focaldet.engine.recompute import parts_to_recompute, recomputing
from focaldet.engine.stopwatch import Stopwatch
from focaldet.models.retinanet import RetinaNet
from focaldet.recipes import Recipe
from focaldet.structures import Batch, StageOutput

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""What the network computes in, by the recipe's precision, where that is not float32."""


class Forward:
    """A network with all that its losses need.

    Args:
        recipe: what is trained.
        model: the network, on its device.
        device: where to compute.
        options: whether to compile, to recompute and to lay maps out with the channels last.
        stopwatch: measures the parts.
    """

    def __init__(
        self, recipe: Recipe, model: RetinaNet, device: torch.device, options: Options, stopwatch: Stopwatch
    ) -> None:
        self.model, self.device, self.stopwatch = model, device, stopwatch
        self.half = HALVES.get(recipe.precision)
        self.layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.network = torch.compile(model) if options.compile else model
        self.recomputed = parts_to_recompute(model) if options.recompute else []
        self.criterion = build_criterion(recipe)
        self.targets = build_stage_targets(recipe)

    def __call__(self, batch: Batch, group: int = 0) -> dict[str, Tensor]:
        """Return the losses of a group of pictures by name, "loss" being their sum, with gradients.

        Args:
            batch: the group.
            group: its number in the step, by which losses that follow an average over steps know theirs.
        """
        self.criterion.average.calls = group
        with self.stopwatch.part("forward"):
            stages = self.stages(batch.images)
        with self.stopwatch.part("assignment"):
            targets = self.targets(stages, batch)
        with self.stopwatch.part("forward"):
            return self.criterion(stages, targets)

    def share_normalizers(self, processes: Processes) -> None:
        """Take over what other processes made of the averages of their groups."""
        average = self.criterion.average
        if processes.count == 1 or self.criterion.normalizer != "moving":
            return
        own = processes.share(range(len(average.values)))
        sums = processes.sum(float(value) if slot in own else 0.0 for slot, value in enumerate(average.values))
        average.values = [torch.tensor(value, dtype=torch.float64) for value in sums]

    def stages(self, images: Tensor) -> list[StageOutput]:
        """Run the network."""
        images = images.to(self.device, memory_format=self.layout, non_blocking=True)
        autocast = torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)
        with autocast, recomputing(self.recomputed):
            stages: list[StageOutput] = self.network(images)
        # the losses compute in float32 whatever comes in, but hand gradients back in its type: many would vanish
        return [in_float32(stage) for stage in stages] if self.half == torch.float16 else stages


def in_float32(stage: StageOutput) -> StageOutput:
    """Return a stage's maps in float32."""
    return replace(
        stage,
        logits=[level.float() for level in stage.logits],
        deltas=[level.float() for level in stage.deltas],
        extra={name: [level.float() for level in levels] for name, levels in stage.extra.items()},
    )
