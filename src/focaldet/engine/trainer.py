"""The training loop: steps, validation after epochs, files that allow to go on from where a run stopped."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from focaldet.data.loader import PictureLoader, worker_deaths_told
from focaldet.data.sampler import GroupedSampler
from focaldet.engine.build import build_collate, build_steps, check_precision
from focaldet.engine.checkpoint import (
    Checkpoints,
    load_checkpoint,
    rng_state,
    save_checkpoint,
    save_weights,
    set_rng_state,
)
from focaldet.engine.clock import Clock, peak_gigabytes
from focaldet.engine.detector import Detector, Weights
from focaldet.engine.distributed import ALONE, Processes
from focaldet.engine.evaluate import Evaluation, evaluate_detector
from focaldet.engine.failure import NotFinite
from focaldet.engine.history import History
from focaldet.engine.job import Job
from focaldet.engine.options import Options
from focaldet.engine.progress import Listener, Quiet
from focaldet.engine.run import Run
from focaldet.engine.signals import Signals
from focaldet.engine.stopwatch import Stopwatch
from focaldet.engine.tensorboard import Board
from focaldet.engine.update import Groups, Updater
from focaldet.engine.watch import Watch
from focaldet.errors import FocaldetError, UsageError
from focaldet.metrics.scores import Scores
from focaldet.recipes import Recipe


class Trainer:
    """One run: the parts, the position, and the files.

    Args:
        job: recipe and data.
        folder: of the run; nothing is written before `clear` or `run`.
        device: where to compute.
        options: how to work.
        listener: hears about progress.
        processes: who shares the work.
    """

    def __init__(
        self,
        job: Job,
        folder: Path,
        device: torch.device,
        *,
        options: Options | None = None,
        listener: Listener | None = None,
        processes: Processes = ALONE,
    ) -> None:
        recipe = job.recipe
        check_precision(recipe, device)
        torch.manual_seed(recipe.seed)
        self.job, self.recipe, self.folder, self.device, self.processes = job, recipe, folder, device, processes
        self.options = options or Options()
        self.listener = (listener if processes.first else None) or Quiet()
        self.schedule = job.schedule
        self.sampler = GroupedSampler(
            job.training.tall,
            batch=recipe.batch,
            normalize_over=recipe.normalize_over,
            seed=recipe.seed,
            images_per_epoch=recipe.images_per_epoch,
        )
        check_share(recipe, self.sampler.groups, processes)
        self.stopwatch = Stopwatch(device, on=self.options.profile)
        self.updater = Updater(recipe, device, self.options, processes, self.stopwatch, self.sampler.groups)
        self._build_books()

    def _build_books(self) -> None:
        """Build what keeps the position, the figures and the files."""
        self.history = History(self.folder / "metrics.csv", writes=self.processes.first)
        self.checkpoints = Checkpoints(self.folder)
        self.board = Board(self.folder / "tensorboard") if self.options.tensorboard and self.processes.first else None
        self.watch = Watch(self.say)
        self.signals = Signals(patient=self.processes.count > 1)
        self.clock = Clock()
        self.elapsed = self.saved_at = self.validated_at = self.validation_seconds = 0.0
        self.step_number = 0
        self.best, self.waited = -1.0, 0
        self.scores: Scores | None = None
        self.way_on = "--resume"

    # --- where it stands ---
    @property
    def progress(self) -> float:
        """Share of the run that is over, by steps or by the clock; the clock leaves time for the last validation."""
        by_steps = self.step_number / self.schedule.total_steps
        if self.options.max_minutes is None:
            return by_steps
        left_to_train = 60 * self.options.max_minutes - self.validation_seconds
        return max(by_steps, self.elapsed / max(left_to_train, 1e-9))

    @property
    def over(self) -> bool:
        """Whether all steps are done, the time is, or nothing has become better for long."""
        patience = self.options.patience
        return self.progress >= 1 or (patience is not None and self.waited >= patience)

    def say(self, line: str) -> None:
        """Tell the listener and keep the line in log.txt."""
        self.listener.message(line)
        self.history.log(line)

    # --- beginnings ---
    def clear(self) -> None:
        """Begin with an empty run folder: what an earlier run left would pass for this one's."""
        if not self.processes.first:
            return
        self.checkpoints.clear()
        for name in ("model.safetensors", "report.html", "failure.pt"):
            (self.folder / name).unlink(missing_ok=True)
        self.history.clear()

    def start_from(self, weights: Weights) -> None:
        """Load initial weights, and say what came of it."""
        for line in self.updater.start_from(weights):
            self.say(line)

    def loader(self) -> PictureLoader:
        """Return the rest of this epoch, a step at a time, each as this process's groups."""
        recipe = self.recipe
        return PictureLoader(
            self.job.training,
            build_steps(recipe, train=True),
            self.sampler,
            build_collate(recipe, self.updater.model.anchors),
            workers=self.options.workers,
            seed=recipe.seed,
            channels=recipe.in_channels,
            share=self.processes.share,
        )

    # --- the loop ---
    def run(self) -> Run:
        """Train to the end; Ctrl-C and SIGTERM save first.

        Raises:
            FocaldetError: a loss or gradient is not finite; what computes it again is in `failure.pt`. Or a worker was
                killed.
        """
        model = self.updater.model
        self.processes.copy_from_first([*model.parameters(), *model.buffers()])
        with self.signals, worker_deaths_told():
            try:
                self._run_epochs()
            except NotFinite as error:
                raise self.keep_failure(error) from error
            except (KeyboardInterrupt, SystemExit):
                if not self.signals.forced:
                    self.stop_here()
                raise
            finally:
                if self.board is not None:
                    self.board.close()
        if self.options.profile:
            self.say(self.stopwatch.table())
        return Run(
            self.folder,
            self.recipe,
            self.scores,
            self.step_number,
            self.clock.seconds,
            self.clock.cpu_seconds,
            self.stopwatch.shares(),
        )

    def _run_epochs(self) -> None:
        if self.sampler.position == len(self.sampler):  # the last sitting ended right behind an epoch's last step
            self.sampler.finish_epoch()
        if self.history.pending and self.sampler.position == 0:  # or before the epoch's row
            self.finish_epoch()
        while not self.over:
            self.run_epoch()
            self.finish_epoch()
        self.recall_scores()

    def stop_here(self) -> None:
        """Save the state after the last whole step, and say how to go on."""
        dealt = self.sampler.epoch * len(self.sampler) + self.sampler.position
        self.sampler.position -= dealt - self.step_number  # a step that was dealt but not finished is dealt again
        self.save()
        self.say(f"stopped at step {self.step_number} of {self.schedule.total_steps}; go on with {self.way_on}")

    def recall_scores(self) -> None:
        """Measure the kept weights again where an earlier sitting made them and nothing better came since."""
        if self.scores is None and self.best >= 0:
            self.updater.recall_weights(load_checkpoint(self.checkpoints.best, self.device))
            self.scores = self.validate().scores

    def run_epoch(self) -> None:
        """Take the steps of the epoch that are left."""
        self.updater.model.train()
        left = self.schedule.steps_per_epoch - self.sampler.position
        self.listener.start(left, f"epoch {self.sampler.epoch + 1}/{self.recipe.epochs}")
        self.stopwatch.pause()
        steps = iter(self.loader())
        began = self.clock.seconds
        while (groups := self._next(steps)) is not None:
            with self.signals.held():
                figures = self.step(groups)
                now = self.clock.seconds
                figures |= {"pictures_s": self.recipe.batch / max(now - began, 1e-9), "memory_gb": self.memory}
                began = now
                self.history.add(figures)
            self._after_step(figures)
            if self.progress >= 1 and self.sampler.position < len(self.sampler):
                break  # the time is over; after the last step the loader still turns the epoch
        self.listener.finish()

    def _next(self, steps: Iterator[Groups]) -> Groups | FocaldetError | None:
        """Return the next step's groups; a picture that cannot be read is told within the step, to all processes."""
        with self.stopwatch.part("data"):
            try:
                groups = next(steps, None)
            except FocaldetError as error:
                if self.processes.count == 1:
                    raise
                return error
        for batch in groups or ():
            self.stopwatch.assigned(batch.assign_seconds, in_worker=self.options.workers > 0)
        return groups

    def step(self, groups: Groups | FocaldetError) -> dict[str, float]:
        """Take the next step at the rate that is due; returns what `Updater.take` does."""
        rate = self.schedule.rate(self.step_number, self.progress)
        figures = self.updater.take(groups, self.step_number, rate)
        self.step_number += 1
        return figures

    def keep_failure(self, error: NotFinite) -> FocaldetError:
        """Save what computes a failure again; returns the error that says where."""
        path = self.folder / "failure.pt"
        if self.processes.first:
            state = {"recipe": self.recipe.to_dict(), "model": self.updater.model.state_dict(), **error.failure}
            save_checkpoint(path, state)
        sentence = (
            f"{error}; look at these pictures and their labels, or lower lr. Batch and weights are in {path}: "
            f"`focaldet train --replay {path}` computes it again"
        )
        self.history.log(sentence)
        return FocaldetError(sentence)

    @property
    def memory(self) -> float:
        """The most memory that was taken so far, of the GPU or else of this process, in 10^9 bytes."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return peak_gigabytes()

    def _after_step(self, figures: dict[str, float]) -> None:
        """Tell of a step, agree on the time and on whether to stop, and save when it is time to."""
        self.stopwatch.lap()
        terms = {name: value for name, value in figures.items() if name in ("class", "box", "mask") or "refine" in name}
        self.watch.look(self.step_number, terms, figures.get("grad_norm", 0.0))
        if self.board is not None:
            self.board.add(self.step_number, figures)
        self.listener.advance(1, **figures)
        self._agree()
        every = self.options.save_every
        if every is not None and self.elapsed - self.saved_at >= 60 * every:
            self.save()

    def _agree(self) -> None:
        """Take over the first process's clock, and stop together if a signal came to any."""
        heard = self.signals.asked
        own = (self.clock.seconds * self.processes.first, heard == signal.SIGINT, heard == signal.SIGTERM)
        self.elapsed, interrupts, ends = self.processes.sum(own)
        if interrupts or ends:
            self.signals.stop(signal.SIGTERM if ends else signal.SIGINT)

    # --- after an epoch ---
    def finish_epoch(self) -> None:
        """Validate, write a row, save."""
        evaluation = None
        if self.validation_is_due:
            self.save()  # a run that is killed while it validates loses no step
            evaluation = self.validate()
        with self.signals.held():
            self._write_row(evaluation)
            self.save(best=evaluation is not None and self._is_better(evaluation))

    def _write_row(self, evaluation: Evaluation | None) -> None:
        figures: dict[str, float | None] = {}
        if evaluation is not None:
            figures = {**evaluation.scores.figures, "val_loss": evaluation.losses.get("loss")}
        epoch, clock = self.step_number / self.schedule.steps_per_epoch, self.clock
        self.history.write(epoch=epoch, step=self.step_number, time_s=clock.seconds, cpu_s=clock.cpu_seconds, **figures)
        if evaluation is not None:
            self.history.write_classes(evaluation.scores.classes, epoch=epoch, step=self.step_number)
            if self.board is not None:
                self.board.add(self.step_number, {name: value for name, value in figures.items() if value is not None})
        self.say(self.history.line())

    def _is_better(self, evaluation: Evaluation) -> bool:
        """Compare with the best validation so far, and count those in vain."""
        reached = evaluation.scores.figures.get("AP") or 0.0
        if reached > self.best:
            self.best, self.scores, self.waited = reached, evaluation.scores, 0
            return True
        self.waited += 1
        if self.options.patience is not None and self.waited >= self.options.patience:
            self.say(f"no better AP in {self.waited} validations: the run ends at step {self.step_number}")
        return False

    @property
    def validation_is_due(self) -> bool:
        """Whether to validate now: after every `eval_every` epochs and at the end.

        A run with a time limit skips those that would take more than a sixth of the time since the last one.
        """
        if self.job.validation is None:
            return False
        if self.progress >= 1:
            return True
        if self.sampler.epoch % self.options.eval_every:
            return False
        return self.options.max_minutes is None or self.elapsed - self.validated_at >= 5 * self.validation_seconds

    def validate(self) -> Evaluation:
        """Score the weights as they are."""
        assert self.job.validation is not None
        self._agree()
        started = self.elapsed
        evaluation = evaluate_detector(
            Detector(self.recipe, self.updater.kept_model, self.device),
            self.job.validation,
            workers=self.options.workers,
            listener=self.listener,
            processes=self.processes,
        )
        self._agree()
        self.validated_at, self.validation_seconds = self.elapsed, self.elapsed - started
        return evaluation

    # --- files ---
    def save(self, *, best: bool = False) -> None:
        """Write checkpoint and weights; the best so far is kept apart."""
        self.saved_at = self.elapsed
        if not self.processes.first:
            return
        state = self.state()
        if best or self.job.validation is None:
            save_weights(self.folder / "model.safetensors", self.updater.kept_model.state_dict(), self.recipe)
        if best:
            self.checkpoints.save_best(state)
        # comes last: a run that ends between these files goes on from before the step that made them
        self.checkpoints.save(state)

    def state(self) -> dict[str, Any]:
        """Return all that going on needs: tensors, numbers and strings."""
        return {
            "recipe": self.recipe.to_dict(),
            **self.updater.state_dict(),
            "sampler": self.sampler.state_dict(),
            "rng": rng_state(),
            "history": self.history.state_dict(),
            "step": self.step_number,
            "best": self.best,
            "waited": self.waited,
            "seconds": self.clock.seconds,
            "cpu_seconds": self.clock.cpu_seconds,
        }

    def load(self) -> None:
        """Go back to where the last state was saved that is whole.

        Raises:
            FocaldetError: there is none, or it is of another network or other classes.
        """
        state = self.checkpoints.load(self.device, self.say)
        self.updater.load_state_dict(state, Recipe.from_dict(state["recipe"]).classes)
        self.sampler.load_state_dict(state["sampler"])
        set_rng_state(state["rng"])
        self.step_number, self.best, self.waited = state["step"], state["best"], state["waited"]
        self.clock.go_on(state["seconds"], state["cpu_seconds"])
        self.elapsed = self.saved_at = self.clock.seconds
        self.history.load_state_dict(state["history"])
        self.say(f"going on at step {self.step_number} of {self.schedule.total_steps}")


def check_share(recipe: Recipe, groups: int, processes: Processes) -> None:
    """Refuse more processes than a step has groups of pictures.

    Raises:
        UsageError: some would have nothing to do.
    """
    if processes.count > groups:
        raise UsageError(
            f"recipe {recipe.name}: batch={recipe.batch} with normalize_over={recipe.normalize_over} makes {groups} "
            f"groups of pictures a step, too few for {processes.count} processes; raise batch or lower normalize_over"
        )
