"""Weights of other code bases <-> ours: one table of keys for each, and loading that says what it did.

A state dict is told by its keys. Ours are `backbone.body.*` (timm's names, for ResNets those of torchvision and so of
mmdetection), `neck.lateral.i`, `neck.output.i`, `head.class_tower.i`, `head.box_tower.i`, `head.logits`, `head.deltas`.
The variables of the original rotated program, whose arrays have another layout too, are the work of `tensorflow.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.retinanet import RetinaNet
from focaldet.models.tensorflow import holds_variables, variables_to_ours

State = Mapping[str, Tensor]

KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "focaldet": (
        ("backbone.body.", "backbone.body."),
        ("neck.lateral.{i}.", "neck.lateral.{i}."),
        ("neck.output.{i}.", "neck.output.{i}."),
        ("head.class_tower.{i}.", "head.class_tower.{i}."),
        ("head.box_tower.{i}.", "head.box_tower.{i}."),
        ("head.logits.", "head.logits."),
        ("head.deltas.", "head.deltas."),
    ),
    "mmdetection": (
        ("backbone.body.", "backbone."),
        ("neck.lateral.{i}.", "neck.lateral_convs.{i}.conv."),
        ("neck.output.{i}.", "neck.fpn_convs.{i}.conv."),
        ("head.class_tower.{i}.", "bbox_head.cls_convs.{i}.conv."),
        ("head.box_tower.{i}.", "bbox_head.reg_convs.{i}.conv."),
        ("head.logits.", "bbox_head.retina_cls."),
        ("head.deltas.", "bbox_head.retina_reg."),
    ),
}
"""For each dialect, (our prefix, its prefix); {i} is a number that stays. mmrotate 0.x and 1.x, which are built on
mmdetection, have its names."""
TENSORFLOW = "tensorflow"
"""The dialect of the original rotated program."""

CLASS_KEYS = ("head.logits.weight", "head.logits.bias")
"""Entries with a channel for every anchor and class."""
COUNTER = "num_batches_tracked"
"""A batch norm's count of steps, which no fixed norm uses and many files leave out."""
SHOWN = 6
"""Names that a message lists before it only counts."""


# --- names ---
def recognize_dialect(keys: Iterable[str]) -> str:
    """Return the dialect that has a name for every key.

    Raises:
        FocaldetError: the keys are those of no detector that is known here.

    >>> recognize_dialect(["backbone.conv1.weight", "bbox_head.retina_cls.bias"])
    'mmdetection'
    """
    keys = list(keys)
    if holds_variables(keys):
        return TENSORFLOW
    for dialect, table in KEYS.items():
        patterns = [_pattern(theirs) for _, theirs in table]
        if keys and all(any(pattern.match(key) for pattern in patterns) for key in keys):
            return dialect
    raise FocaldetError(
        f"these are no weights of a RetinaNet of {', '.join(KEYS)} or {TENSORFLOW}; their names are {shorten(keys)}"
    )


def to_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of a dialect's state dict our name, and its array our layout."""
    if dialect == TENSORFLOW:
        return variables_to_ours(state)
    table = [(theirs, ours) for ours, theirs in KEYS[dialect]]
    return {rename(key, table): value for key, value in state.items()}


def from_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of our state dict the name it has in a dialect."""
    return {rename(key, KEYS[dialect]): value for key, value in state.items()}


def rename(key: str, table: Sequence[tuple[str, str]]) -> str:
    """Return a key with its prefix changed by the first (from, to) of the table that fits it.

    >>> rename("neck.fpn_convs.3.conv.bias", [("neck.fpn_convs.{i}.conv.", "neck.output.{i}.")])
    'neck.output.3.bias'
    """
    for source, target in table:
        match = _pattern(source).match(key)
        if match:
            return target.replace("{i}", (match.groups() or ("",))[0]) + key[match.end() :]
    raise FocaldetError(f"{key!r} is no name of a weight that this detector has")


def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(re.escape(prefix).replace(re.escape("{i}"), r"(\d+)"))


# --- a whole detector ---
@dataclass(frozen=True)
class LoadReport:
    """What a loading took and what it left.

    Attributes:
        loaded: entries taken as they are.
        joined: classes whose channels were taken by name, where the classes are not the same.
        fresh: entries of ours that keep their initialization; classes too, as "class NAME".
        left_over: entries of the file that found no place; classes too.
    """

    loaded: tuple[str, ...]
    joined: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    left_over: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Say it, a line for each kind that there is."""
        lines = [f"weights loaded: {len(self.loaded)} entries"]
        if self.joined:
            lines.append(f"weights joined by class name: {shorten(self.joined)}")
        if self.fresh:
            lines.append(f"weights that start anew: {shorten(self.fresh)}")
        if self.left_over:
            lines.append(f"weights left over in the file: {shorten(self.left_over)}")
        return lines


def load_fitting(
    model: RetinaNet, state: State, classes: Sequence[str], state_classes: Sequence[str] | None = None
) -> LoadReport:
    """Take into the model what fits it, for fine-tuning; the rest keeps its initialization, classes their prior.

    Args:
        model: freshly initialized.
        state: a detector's weights under the names of any known dialect.
        classes: names of the model's classes.
        state_classes: names of the classes that the weights know; None takes them for the model's if as many.

    Raises:
        FocaldetError: the names are those of no known detector.
    """
    theirs, ours = to_ours(state, recognize_dialect(state)), model.state_dict()
    joined = _join_classes(theirs, ours, classes, state_classes)
    fitting = {key: value for key, value in theirs.items() if key in ours and value.shape == ours[key].shape}
    model.load_state_dict(fitting, strict=False)
    known = state_classes if joined else ()
    return LoadReport(
        loaded=tuple(key for key in fitting if not (joined and key in CLASS_KEYS)),
        joined=joined,
        fresh=(
            *(key for key in ours if key not in fitting and not key.endswith(COUNTER)),
            *(f"class {name}" for name in classes if joined and name not in joined),
        ),
        left_over=(
            *(key for key in theirs if key not in fitting),
            *(f"class {name}" for name in known or () if name not in joined),
        ),
    )


def _join_classes(
    theirs: dict[str, Tensor], ours: State, classes: Sequence[str], state_classes: Sequence[str] | None
) -> tuple[str, ...]:
    """Put, in `theirs`, the channels of classes of one name where the model has them; returns these names.

    Where the class lists are equal nothing is to be joined; where no channel can be taken, the entries go.
    """
    if state_classes is None or tuple(state_classes) == tuple(classes):
        return ()
    common = tuple(name for name in classes if name in set(state_classes))
    targets, sources = ([list(names).index(name) for name in common] for names in (classes, state_classes))
    given = {key: theirs.pop(key) for key in CLASS_KEYS if key in theirs}
    channels = {key: value.reshape(-1, len(state_classes), *value.shape[1:]) for key, value in given.items()}
    values = {key: ours[key].clone() for key in channels}
    by_class = {key: value.view(-1, len(classes), *value.shape[1:]) for key, value in values.items()}
    if not common or any(by_class[key][:, :1].shape != channels[key][:, :1].shape for key in channels):
        return ()
    for key in channels:
        by_class[key][:, targets] = channels[key][:, sources].to(values[key])
    theirs.update(values)
    return common


def load_strict(
    model: RetinaNet, state: State, classes: Sequence[str], state_classes: Sequence[str] | None = None
) -> LoadReport:
    """Load all weights of a detector, or refuse with what both sides have.

    Args:
        model: to load into.
        state: a detector's weights under the names of any known dialect.
        classes: names of the model's classes.
        state_classes: names of the classes that the weights know, where that is known.

    Raises:
        FocaldetError: other classes, another order of them, or other entries or shapes.
    """
    if state_classes is not None and tuple(state_classes) != tuple(classes):
        raise FocaldetError(
            f"the weights know {len(state_classes)} classes ({shorten(state_classes)}), "
            f"the model has {len(classes)} ({shorten(classes)}); train with weights=... to join them by name"
        )
    theirs, ours = to_ours(state, recognize_dialect(state)), model.state_dict()
    described = [
        f"{key} {_shape(theirs, key)} instead of {_shape(ours, key)}"
        for key in sorted({*ours, *theirs})
        if not key.endswith(COUNTER) and _shape(theirs, key) != _shape(ours, key)
    ]
    if described:
        raise FocaldetError(
            f"the weights do not fit the model in {len(described)} of {len(ours)} entries: {shorten(described, '; ')}; "
            "take the recipe that they were trained with, or train with weights=... to use what fits"
        )
    model.load_state_dict(theirs, strict=False)
    return LoadReport(tuple(theirs))


def _shape(state: State, key: str) -> str:
    return "x".join(map(str, state[key].shape)) if key in state else "absent"


def shorten(names: Sequence[str], separator: str = ", ") -> str:
    """Write out some names, and the number of the others.

    >>> shorten(["a", "b"])
    'a, b'
    >>> shorten("abcdefgh")
    'a, b, c, d, e, f, ... 8 in all'
    """
    shown = separator.join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown}{separator}... {len(names)} in all"


# --- a backbone ---
def load_backbone(model: RetinaNet, state: State) -> LoadReport:
    """Load weights of a classifier into the backbone, casting to its precision; what only classifies is left over.

    Pictures of other than three channels: the first convolution repeats its channels, scaled to keep its sums.

    Args:
        model: whose backbone to load into.
        state: weights under timm's names (torchvision's, for ResNets).

    Raises:
        FocaldetError: the weights are those of another network.
    """
    body = model.backbone.body
    ours = body.state_dict()
    theirs = {_body_key(key, ours): value for key, value in state.items()}
    taken = {key: adapt_channels(value, ours[key].shape) for key, value in theirs.items() if key in ours}
    lacking = [key for key in ours if key not in taken and not key.endswith(COUNTER)]
    wrong = [key for key, value in taken.items() if value.shape != ours[key].shape]
    if lacking or wrong:
        raise FocaldetError(
            f"these are no weights of {model.backbone.name}: {len(lacking)} of {len(ours)} entries are absent and "
            f"{len(wrong)} have another shape ({shorten(lacking + wrong)})"
        )
    body.load_state_dict(taken, strict=False)
    return LoadReport(tuple(taken), left_over=tuple(key for key in theirs if key not in taken))


def _body_key(key: str, ours: State) -> str:
    """Return the name in the body: timm joins the first two parts where it flattens a stem or stages.

    >>> _body_key("stages.0.norm.weight", {"stages_0.norm.weight": torch.zeros(1)})
    'stages_0.norm.weight'
    """
    flattened = key.replace(".", "_", 1)
    return flattened if key not in ours and flattened in ours else key


def adapt_channels(weight: Tensor, shape: torch.Size) -> Tensor:
    """Return a convolution's weight (out, in, kh, kw) for another number of input channels; others as they are."""
    if weight.ndim != 4 or weight.shape == shape or weight.shape[0] != shape[0] or weight.shape[2:] != shape[2:]:
        return weight
    have, wanted = weight.shape[1], shape[1]
    if wanted == 1:
        return weight.sum(dim=1, keepdim=True)
    repeated = weight.repeat(1, -(-wanted // have), 1, 1)[:, :wanted]
    return repeated * (have / wanted)
