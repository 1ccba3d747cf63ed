"""The training loop: steps, validation after each epoch, files that allow to go on from where a run stopped."""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from focaldet.data.loader import PictureLoader
from focaldet.data.sampler import GroupedSampler
from focaldet.engine.build import (
    build_collate,
    build_criterion,
    build_model,
    build_optimizer,
    build_stage_targets,
    build_steps,
    build_update_rule,
    check_precision,
)
from focaldet.engine.checkpoint import (
    load_checkpoint,
    rng_state,
    save_checkpoint,
    save_weights,
    set_rng_state,
)
from focaldet.engine.detector import Detector, Weights
from focaldet.engine.evaluate import Evaluation, evaluate_detector
from focaldet.engine.history import History
from focaldet.engine.job import Job
from focaldet.engine.optimizer import Gradients
from focaldet.engine.progress import Listener
from focaldet.engine.run import Run
from focaldet.engine.weights import read_weights
from focaldet.errors import FocaldetError
from focaldet.metrics.scores import Scores
from focaldet.models.imagenet import imagenet_weights
from focaldet.models.weights import load_backbone, load_fitting, load_strict
from focaldet.recipes import Recipe
from focaldet.structures import Batch


class Trainer:
    """One run: the parts, the position, and the files."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        device: torch.device,
        *,
        workers: int,
        listener: Listener,
        max_minutes: float | None = None,
    ) -> None:
        """Build all parts; nothing is written yet."""
        recipe = job.recipe
        check_precision(recipe, device)
        torch.manual_seed(recipe.seed)
        self.job, self.folder, self.device, self.workers, self.listener = job, folder, device, workers, listener
        self.recipe = recipe
        self.model = build_model(recipe).to(device).to(memory_format=torch.channels_last)
        self.criterion = build_criterion(recipe)
        self.targets = build_stage_targets(recipe)
        self.optimizer = build_optimizer(recipe, self.model)
        self.gradients = Gradients(self.model, build_update_rule(recipe))
        self.schedule = job.schedule
        self.sampler = GroupedSampler(
            job.training.tall,
            batch=recipe.batch,
            normalize_over=recipe.normalize_over,
            seed=recipe.seed,
            images_per_epoch=recipe.images_per_epoch,
        )
        self.history = History(folder / "metrics.csv")
        self.step_number = 0
        self.best = -1.0
        self.scores: Scores | None = None
        self.max_seconds = math.inf if max_minutes is None else 60 * max_minutes
        self.validation_seconds = 0.0
        self.validated_at = 0.0
        self.seconds_before = self.cpu_before = 0.0
        self.started, self.cpu_started = time.perf_counter(), cpu_seconds()

    # --- where it stands ---
    @property
    def seconds(self) -> float:
        """Time spent on the run, earlier sittings included."""
        return self.seconds_before + time.perf_counter() - self.started

    @property
    def cpu_seconds(self) -> float:
        """CPU time spent on the run, workers that have ended and earlier sittings included."""
        return self.cpu_before + cpu_seconds() - self.cpu_started

    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by the clock; the clock leaves time for the last validation."""
        by_clock = self.seconds / max(self.max_seconds - self.validation_seconds, 1e-9)
        return max(self.step_number / self.schedule.total_steps, by_clock)

    def say(self, line: str) -> None:
        """Tell the listener and keep the line in log.txt."""
        self.listener.message(line)
        self.history.log(line)

    # --- beginnings ---
    def clear(self) -> None:
        """Begin with an empty run folder: what an earlier run left would pass for this one's."""
        for name in ("checkpoints/last.pt", "checkpoints/best.pt", "model.safetensors", "report.html"):
            (self.folder / name).unlink(missing_ok=True)
        self.history.clear()

    def start_from(self, weights: Weights) -> None:
        """Load initial weights."""
        if weights is None:
            self.say("weights: none, all parts start anew")
        elif weights == "imagenet":
            load_backbone(self.model, imagenet_weights(self.recipe.backbone, self.recipe.style))
            self.say(f"weights: {self.recipe.backbone} from ImageNet; neck and head start anew")
        else:
            given = read_weights(weights)
            report = load_fitting(self.model, given.state, self.recipe.classes, given.classes)
            for line in report.lines():
                self.say(line)

    def loader(self) -> PictureLoader:
        """Return the rest of this epoch, a step at a time, each as its groups that share a normalizer."""
        recipe = self.recipe
        return PictureLoader(
            self.job.training,
            build_steps(recipe, train=True),
            self.sampler,
            build_collate(recipe, self.model.anchors),
            workers=self.workers,
            seed=recipe.seed,
            channels=recipe.in_channels,
        )

    # --- the loop ---
    def run(self) -> Run:
        """Train to the end; an interrupt saves first."""
        try:
            if self.history.pending and self.sampler.position == 0:
                self.finish_epoch()  # the last sitting ended between an epoch's steps and its row
            while self.progress < 1:
                self.run_epoch()
                self.finish_epoch()
            self.recall_scores()
        except KeyboardInterrupt:
            self.take_back_step()
            self.save()
            self.say(f"stopped at step {self.step_number}; go on with --resume")
            raise
        return Run(self.folder, self.recipe, self.scores, self.step_number, self.seconds, self.cpu_seconds)

    def take_back_step(self) -> None:
        """Hand a step that was dealt but not finished out again."""
        dealt = self.sampler.epoch * len(self.sampler) + self.sampler.position
        self.sampler.position -= dealt - self.step_number

    def recall_scores(self) -> None:
        """Measure the kept weights again where an earlier sitting made them and nothing better came since."""
        if self.scores is None and self.best >= 0:
            best = load_checkpoint(self.folder / "checkpoints" / "best.pt", self.device)
            self.model.load_state_dict(best["model"])
            self.scores = self.validate().scores

    def run_epoch(self) -> None:
        """Take the steps of the epoch that are left."""
        self.model.train()
        left = self.schedule.steps_per_epoch - self.sampler.position
        self.listener.start(left, f"epoch {self.sampler.epoch + 1}/{self.recipe.epochs}")
        for groups in self.loader():
            figures = self.step(groups)
            self.history.add(figures)
            self.listener.advance(1, **figures)
            if self.progress >= 1 and self.sampler.position < len(self.sampler):
                break  # the time is over; after the last step the loader still turns the epoch
        self.listener.finish()

    def step(self, groups: list[Batch]) -> dict[str, float]:
        """Make one update from the pictures of a step; returns losses and learning rate.

        The gradients of the groups are averaged, each normalized by its own positives (`horizontal.md` section 11).
        """
        rate = self.schedule.rate(self.step_number, self.progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        sums: dict[str, float] = {}
        for number, batch in enumerate(groups, 1):
            losses = self.losses(batch)
            self.gradients.add(losses["loss"] / len(groups), last=number == len(groups))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / len(groups)
        self.optimizer.step()
        self.step_number += 1
        return {**sums, "lr": rate}

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of one group of pictures; forward in the recipe's precision, losses in float32.

        Raises:
            FocaldetError: a loss is not finite.
        """
        images = batch.images.to(self.device, memory_format=torch.channels_last, non_blocking=True)
        bf16 = self.recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            stages = self.model(images)
        losses = self.criterion(stages, self.targets(stages, batch))
        if not bool(torch.isfinite(losses["loss"])):
            bad = ", ".join(name for name, value in losses.items() if not bool(torch.isfinite(value)))
            raise FocaldetError(
                f"the loss is not finite ({bad}) at step {self.step_number} on {', '.join(batch.names)}; "
                "look at these pictures and their labels, or lower lr"
            )
        return losses

    def finish_epoch(self) -> None:
        """Validate, write a row, save."""
        evaluation = self.validate() if self.validation_is_due else None
        figures: dict[str, float | None] = {}
        if evaluation is not None:
            figures = {**evaluation.scores.figures, "val_loss": evaluation.losses.get("loss")}
        epochs = self.step_number / self.schedule.steps_per_epoch
        self.history.write(epoch=epochs, step=self.step_number, time_s=self.seconds, cpu_s=self.cpu_seconds, **figures)
        self.say(self.history.line())
        reached = figures.get("AP") or 0.0
        better = evaluation is not None and reached > self.best
        if evaluation is not None and better:
            self.best, self.scores = reached, evaluation.scores
        self.save(best=better)

    @property
    def validation_is_due(self) -> bool:
        """Whether to validate now: after each epoch and at the end.

        A run with a time limit skips those that would take more than a sixth of the time since the last one.
        """
        if self.job.validation is None:
            return False
        since = self.seconds - self.validated_at
        return math.isinf(self.max_seconds) or self.progress >= 1 or since >= 5 * self.validation_seconds

    def validate(self) -> Evaluation:
        """Score the weights as they are."""
        assert self.job.validation is not None
        started = self.seconds
        detector = Detector(self.recipe, self.model, self.device)
        evaluation = evaluate_detector(detector, self.job.validation, workers=self.workers, listener=self.listener)
        self.validated_at = self.seconds
        self.validation_seconds = self.validated_at - started
        return evaluation

    # --- files ---
    def save(self, *, best: bool = False) -> None:
        """Write checkpoint and weights; the best so far is kept apart."""
        state = self.state()
        if best or self.job.validation is None:
            save_weights(self.folder / "model.safetensors", self.model.state_dict(), self.recipe)
        if best:
            save_checkpoint(self.folder / "checkpoints" / "best.pt", state)
        # comes last: a run that ends between these files goes on from before the step that made them
        save_checkpoint(self.folder / "checkpoints" / "last.pt", state)

    def state(self) -> dict[str, Any]:
        """Return all that going on needs: tensors, numbers and strings."""
        return {
            "recipe": self.recipe.to_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": self.sampler.state_dict(),
            "rng": rng_state(),
            "history": self.history.state_dict(),
            "step": self.step_number,
            "best": self.best,
            "seconds": self.seconds,
            "cpu_seconds": self.cpu_seconds,
        }

    def load(self, path: Path) -> None:
        """Go back to where `state` was taken.

        Raises:
            FocaldetError: the checkpoint is of another network or other classes.
        """
        state = load_checkpoint(path, self.device)
        load_strict(self.model, state["model"], self.recipe.classes, Recipe.from_dict(state["recipe"]).classes)
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        set_rng_state(state["rng"])
        self.step_number, self.best = state["step"], state["best"]
        self.seconds_before, self.cpu_before = state["seconds"], state["cpu_seconds"]
        self.history.load_state_dict(state["history"])
        self.history.cut(self.step_number)
        self.say(f"going on at step {self.step_number} of {self.schedule.total_steps}")


def cpu_seconds() -> float:
    """Return the CPU time of this process and of those children that have ended."""
    parts = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)
