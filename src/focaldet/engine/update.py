"""An update of the network: losses and gradients of a step's pictures, then the optimizer's step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from focaldet.engine.average import Average
from focaldet.engine.build import build_model, build_optimizer, build_update_rule
from focaldet.engine.detector import Weights
from focaldet.engine.distributed import Processes
from focaldet.engine.failure import NotFinite, bad_gradients, batch_to_dict, explain, seed_group, shorten
from focaldet.engine.forward import Forward
from focaldet.engine.optimizer import Gradients, LossScale
from focaldet.engine.options import Options
from focaldet.engine.recompute import keep_statistics
from focaldet.engine.statistics import Statistics
from focaldet.engine.stopwatch import Stopwatch
from focaldet.engine.weights import read_weights
from focaldet.errors import FocaldetError
from focaldet.models.imagenet import imagenet_weights
from focaldet.models.retinanet import RetinaNet
from focaldet.models.weights import load_backbone, load_fitting, load_strict
from focaldet.recipes import Recipe
from focaldet.structures import Batch

Groups = list[Batch]
"""This process's groups of pictures of a step; those of a group share a loss normalizer."""


class Updater:
    """A network and all that makes an update of it; knows no data set, no position in the run and no files.

    Args:
        recipe: what is trained.
        device: where to compute.
        options: how to compute.
        processes: who shares a step.
        stopwatch: measures the parts of a step.
        num_groups: groups of pictures of a step, in all processes.
    """

    def __init__(
        self,
        recipe: Recipe,
        device: torch.device,
        options: Options,
        processes: Processes,
        stopwatch: Stopwatch,
        num_groups: int,
    ) -> None:
        self.recipe, self.processes, self.stopwatch, self.num_groups = recipe, processes, stopwatch, num_groups
        self.model = build_model(recipe).to(device)
        if options.channels_last:
            self.model = self.model.to(memory_format=torch.channels_last)
        self.forward = Forward(recipe, self.model, device, options, stopwatch)
        self.optimizer = build_optimizer(recipe, self.model)
        self.scale = LossScale(recipe.loss_scale) if recipe.precision == "fp16" else None
        self.gradients = Gradients(self.model, build_update_rule(recipe), processes, self.scale)
        self.average = None if recipe.ema is None else Average(self.model, recipe.ema)
        self.statistics = Statistics(self.model, processes, num_groups)

    @property
    def kept_model(self) -> RetinaNet:
        """The network that is scored and kept: the averaged one where there is an average."""
        return self.model if self.average is None else self.average.model

    # --- an update ---
    def take(self, groups: Groups | FocaldetError, step: int, rate: float) -> dict[str, float]:
        """Make one update from the pictures of a step; returns losses, learning rate and the gradient's norm.

        The gradients of all groups are averaged, each normalized by its own positives (`horizontal.md` section 11).

        Args:
            groups: this process's; or why it has none, which all processes then raise.
            step: updates done before.
            rate: the learning rate.

        Raises:
            FocaldetError: a loss or gradient is not finite, or a picture could not be read, in any process.
        """
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = rate * parameters["scale"]
        self.optimizer.zero_grad(set_to_none=True)
        self.statistics.begin()
        with self.processes.together():
            if isinstance(groups, FocaldetError):
                raise groups
            terms = self._add_gradients(groups, step)
        sums = dict(zip(terms, self.processes.sum(terms.values()), strict=True))
        self.forward.share_normalizers(self.processes)
        with self.stopwatch.part("optimizer"):
            norm = self.gradients.finish()
            self._update(groups, step, norm)
            self.statistics.finish()
            if self.average is not None:
                self.average.update(self.model)
        return {**sums, "lr": rate, **({"grad_norm": norm} if math.isfinite(norm) else {})}

    def _numbers(self) -> Sequence[int]:
        """Return the numbers, in the step, of this process's groups."""
        return self.processes.share(range(self.num_groups))

    def _add_gradients(self, groups: Groups, step: int) -> dict[str, float]:
        """Go forward and back through this process's groups; returns its share of the step's mean losses."""
        total = self.num_groups
        sums: dict[str, float] = {}
        for number, batch in zip(self._numbers(), groups, strict=True):
            losses = self.losses(batch, step, number)
            with self.stopwatch.part("backward"):
                self.gradients.add(losses["loss"] / total, last=number == total - 1)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach()) / total
        return sums

    def losses(self, batch: Batch, step: int, group: int = 0) -> dict[str, Tensor]:
        """Return the losses of one group of pictures.

        Args:
            batch: the pictures.
            step: updates done before.
            group: its number in the step.

        Raises:
            NotFinite: a loss is not finite.
        """
        seed_group(self.recipe.seed, step, group)
        losses = self.forward(batch, group)
        if not bool(torch.isfinite(losses["loss"])):
            terms = {name: float(value.detach()) for name, value in losses.items()}
            with keep_statistics(self.model):
                what = explain(batch, terms, self.forward)
            sentence = f"the loss is not finite {what} at step {step}"
            raise NotFinite(sentence, self._failure(batch, step, group, terms))
        return losses

    def _update(self, groups: Groups, step: int, norm: float) -> None:
        """Take the optimizer's step, unless the gradient overflowed in half precision; then its scale falls."""
        finite = math.isfinite(norm)
        if finite:
            self.optimizer.step()
        elif self.scale is None or self.scale.exhausted:
            self._blame(groups, step)
        if self.scale is not None:
            self.scale.update(finite=finite)

    def _blame(self, groups: Groups, step: int) -> None:
        """Find the group whose gradient is not finite, although its loss is."""
        with self.processes.together():
            for number, batch in zip(self._numbers(), groups, strict=True):
                self.optimizer.zero_grad(set_to_none=True)
                losses = self.losses(batch, step, number)
                self.gradients.add(losses["loss"], last=False)
                if bad := bad_gradients(self.model):
                    terms = {name: float(value.detach()) for name, value in losses.items()}
                    sentence = (
                        f"the gradient of {shorten(bad)} is not finite, although the loss is {terms['loss']:.4g}, "
                    )
                    where = f"on {', '.join(batch.names)} at step {step}"
                    raise NotFinite(sentence + where, self._failure(batch, step, number, terms))
        raise FocaldetError(
            f"the sum of the gradients at step {step} is not finite, although each is; lower lr, or clip"
        )

    def _failure(self, batch: Batch, step: int, group: int, terms: dict[str, float]) -> dict[str, Any]:
        place = {"step": step, "group": group, "normalizers": self.forward.criterion.average.state_dict()}
        return {**place, "terms": terms, "batch": batch_to_dict(batch)}

    # --- weights and state ---
    def start_from(self, weights: Weights) -> list[str]:
        """Load initial weights; returns what came of it, a line each."""
        lines = self._load_initial(weights)
        if self.average is not None:
            self.average.restart(self.model)
        return lines

    def _load_initial(self, weights: Weights) -> list[str]:
        if weights is None:
            return ["weights: none, all parts start anew"]
        if weights == "imagenet":
            load_backbone(self.model, imagenet_weights(self.recipe.backbone, self.recipe.style))
            return [f"weights: {self.recipe.backbone} from ImageNet; neck and head start anew"]
        given = read_weights(weights)
        return load_fitting(self.model, given.state, self.recipe.classes, given.classes).lines()

    def recall_weights(self, state: dict[str, Any]) -> None:
        """Take the weights alone out of a state, also the averaged ones: enough to score, not to go on."""
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])

    def state_dict(self) -> dict[str, Any]:
        """Return what further updates need, as tensors, numbers and strings."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scale": None if self.scale is None else self.scale.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "normalizers": self.forward.criterion.average.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any], classes: Sequence[str]) -> None:
        """Go on from there.

        Args:
            state: from `state_dict`; what else it holds is left alone.
            classes: of the network that it is of.

        Raises:
            FocaldetError: it is of another network or other classes.
        """
        load_strict(self.model, state["model"], self.recipe.classes, classes)
        self.optimizer.load_state_dict(state["optimizer"])
        for part, name in ((self.scale, "scale"), (self.average, "average")):
            if part is not None:
                part.load_state_dict(state[name])
        self.forward.criterion.average.load_state_dict(state["normalizers"])
