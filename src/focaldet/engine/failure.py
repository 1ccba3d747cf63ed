"""A loss or gradient that is not finite: which picture and term, kept in a file that computes it again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from focaldet.errors import FocaldetError
from focaldet.structures import Batch, StageTargets, Truth

Losses = Callable[[Batch], dict[str, Tensor]]


class NotFinite(FocaldetError):
    """A loss or gradient that is not finite.

    Attributes:
        failure: what computing it again needs: "batch", "step", "group" and "terms", the losses as they were.
    """

    def __init__(self, sentence: str, failure: dict[str, Any]) -> None:
        super().__init__(sentence)
        self.failure = failure

    def __reduce__(self) -> tuple[Any, ...]:  # it travels to the other processes
        return NotFinite, (str(self), self.failure)


@dataclass(frozen=True)
class Replay:
    """A failure computed again.

    Attributes:
        step: of the run.
        pictures: of the group.
        then: the terms of the loss as they were, by name.
        now: as they are.
        bad_gradients: parameters whose gradient is not finite now.
    """

    step: int
    pictures: list[str]
    then: dict[str, float]
    now: dict[str, float]
    bad_gradients: list[str]

    @property
    def same(self) -> bool:
        """Whether every term came out the same to the bit."""
        return all(repr(self.then[name]) == repr(self.now.get(name)) for name in self.then)

    def to_dict(self) -> dict[str, Any]:
        """Return what json knows: numbers that are none as words."""
        terms = {name: {"then": repr(self.then[name]), "now": repr(self.now.get(name))} for name in self.then}
        return {
            "step": self.step,
            "pictures": self.pictures,
            "terms": terms,
            "bad_gradients": self.bad_gradients,
            "same": self.same,
        }

    def table(self) -> str:
        """Return the terms, then and now, a line each."""
        lines = [f"step {self.step}, pictures {', '.join(self.pictures)}", f"{'term':16}  {'then':>14}  {'now':>14}"]
        lines += [
            f"{name:16}  {value:14.8g}  {self.now.get(name, float('nan')):14.8g}" for name, value in self.then.items()
        ]
        if self.bad_gradients:
            lines.append(f"gradients that are not finite: {shorten(self.bad_gradients)}")
        return "\n".join([*lines, "the same to the bit" if self.same else "NOT the same: another device or version?"])


def seed_group(seed: int, step: int, group: int) -> None:
    """Seed every generator for one group of pictures: dropout does not depend on how many processes share a step."""
    number = int(np.random.SeedSequence((seed, step, group)).generate_state(1, np.uint64)[0]) >> 1
    torch.manual_seed(number)
    random.seed(number)
    np.random.seed(number % 2**32)


def explain(batch: Batch, losses: Mapping[str, float], again: Losses) -> str:
    """Say which terms are not finite, and which of the group's pictures make them so by themselves."""
    bad = ", ".join(name for name, value in losses.items() if not np.isfinite(value))
    alone = []
    with torch.no_grad():
        for index, name in enumerate(batch.names):
            terms = again(one_picture(batch, index))
            alone += [name] if not bool(torch.isfinite(terms["loss"])) else []
    return f"({bad}) on {', '.join(alone or batch.names)}"


def bad_gradients(model: nn.Module) -> list[str]:
    """Return the names of parameters whose gradient is not finite."""
    named = ((name, parameter.grad) for name, parameter in model.named_parameters())
    return [name for name, gradient in named if gradient is not None and not bool(torch.isfinite(gradient).all())]


def shorten(names: list[str], limit: int = 3) -> str:
    """Name some and count the others.

    >>> shorten(["a", "b", "c", "d", "e"])
    'a, b, c and 2 others'
    """
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} others" if more > 0 else "")


def one_picture(batch: Batch, index: int) -> Batch:
    """Return the batch of one of its pictures, with its targets and the padding that it had."""
    targets = batch.targets
    if targets is not None:
        count = targets.num_anchors
        mine = targets.positives // count == index
        ignored = targets.ignored[targets.ignored // count == index]
        targets = replace(
            targets,
            positives=targets.positives[mine] - index * count,
            labels=targets.labels[mine],
            deltas=targets.deltas[mine],
            truths=targets.truths[mine],
            ignored=ignored - index * count,
            valid=None if targets.valid is None else targets.valid[index : index + 1],
            num_positives=targets.num_positives[index : index + 1],
        )
    lists = ("truths", "sizes", "padded", "originals", "ids", "indices", "names")
    return replace(
        batch,
        images=batch.images[index : index + 1],
        scales=batch.scales[index : index + 1],
        targets=targets,
        **{name: getattr(batch, name)[index : index + 1] for name in lists},
    )


def batch_to_dict(batch: Batch) -> dict[str, Any]:
    """Return a batch as tensors, lists, numbers and strings, which open with `weights_only=True`."""
    plain = _plain(batch)
    plain["truths"] = [_plain(truth) for truth in batch.truths]
    plain["targets"] = None if batch.targets is None else _plain(batch.targets)
    return plain


def batch_from_dict(values: dict[str, Any]) -> Batch:
    """Undo `batch_to_dict`."""
    targets = values["targets"]
    truths = [Truth(**truth) for truth in values["truths"]]
    return Batch(**{**values, "truths": truths, "targets": None if targets is None else StageTargets(**targets)})


def _plain(record: Any) -> dict[str, Any]:
    return {item.name: getattr(record, item.name) for item in fields(record)}
