"""Weights of other code bases <-> ours: one table of keys for each, and loading that says what it did.

A state dict is told by its keys. Ours are `backbone.body.*` (timm's names, for ResNets those of torchvision and so of
mmdetection), `neck.lateral.i`, `neck.output.i`, `head.class_tower.i`, `head.box_tower.i`, `head.logits`, `head.deltas`.
What torchvision and detectron2 have otherwise is said in `neighbours.py`; the variables of the original rotated
program, whose arrays have another layout too, are the work of `tensorflow.py`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.models.neighbours import (
    DETECTRON2_KEYS,
    DETECTRON2_SETTINGS,
    TORCHVISION_KEYS,
    add_unused_classes,
    drop_unused_classes,
    ratio_first,
    size_first,
)
from focaldet.models.retinanet import RetinaNet
from focaldet.models.tensorflow import holds_variables, variables_to_ours

State = Mapping[str, Tensor]


def _r3det_keys(alignment: str, head: str) -> tuple[tuple[str, str], ...]:
    """Return the names of mmrotate's refine stages, whose convolutions all levels share; {i} is the stage."""
    ours = "refine.{i}.alignment.convs.0."
    return (
        (f"{ours}conv_5x1.", f"{alignment}conv_5_1."),
        (f"{ours}conv_1x5.", f"{alignment}conv_1_5."),
        (f"{ours}conv_1x1.", f"{alignment}conv_1_1."),
        ("refine.{i}.head.class_tower.{j}.", f"{head}cls_convs.{{j}}.conv."),
        ("refine.{i}.head.box_tower.{j}.", f"{head}reg_convs.{{j}}.conv."),
        ("refine.{i}.head.logits.", f"{head}retina_cls."),
        ("refine.{i}.head.deltas.", f"{head}retina_reg."),
    )


KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    "focaldet": (
        ("backbone.body.", "backbone.body."),
        ("neck.lateral.{i}.", "neck.lateral.{i}."),
        ("neck.output.{i}.", "neck.output.{i}."),
        ("head.class_tower.{i}.", "head.class_tower.{i}."),
        ("head.box_tower.{i}.", "head.box_tower.{i}."),
        ("head.logits.", "head.logits."),
        ("head.deltas.", "head.deltas."),
        ("refine.", "refine."),
        ("inld.", "inld."),
    ),
    "mmdetection": (
        ("backbone.body.", "backbone."),
        ("neck.lateral.{i}.", "neck.lateral_convs.{i}.conv."),
        ("neck.output.{i}.", "neck.fpn_convs.{i}.conv."),
        ("head.class_tower.{i}.", "bbox_head.cls_convs.{i}.conv."),
        ("head.box_tower.{i}.", "bbox_head.reg_convs.{i}.conv."),
        ("head.logits.", "bbox_head.retina_cls."),
        ("head.deltas.", "bbox_head.retina_reg."),
        *_r3det_keys("feat_refine_module.{i}.", "refine_head.{i}."),
    ),
    "mmrotate-1.x": (
        ("backbone.body.", "backbone."),
        ("neck.lateral.{i}.", "neck.lateral_convs.{i}.conv."),
        ("neck.output.{i}.", "neck.fpn_convs.{i}.conv."),
        ("head.class_tower.{i}.", "bbox_head_init.cls_convs.{i}.conv."),
        ("head.box_tower.{i}.", "bbox_head_init.reg_convs.{i}.conv."),
        ("head.logits.", "bbox_head_init.retina_cls."),
        ("head.deltas.", "bbox_head_init.retina_reg."),
        *_r3det_keys("bbox_head_refine.{i}.feat_refine_module.", "bbox_head_refine.{i}."),
    ),
    "torchvision": TORCHVISION_KEYS,
    "detectron2": DETECTRON2_KEYS,
}
"""For each dialect, (our prefix, its prefix); {i} and {j} are numbers that stay. Of several pairs that fit the first
counts. mmrotate, which is built on mmdetection, has its names, but for the R3Det of 1.x."""
TENSORFLOW = "tensorflow"
"""The dialect of the original rotated program."""

Layout = Callable[[State], dict[str, Tensor]]
LAYOUTS: dict[str, tuple[Layout, Layout]] = {
    "torchvision": (drop_unused_classes, add_unused_classes),
    "detectron2": (ratio_first, size_first),
}
"""For dialects whose arrays differ from ours: what makes ours of theirs, and theirs of ours, under our names."""

CLASS_KEYS = ("head.logits.weight", "head.logits.bias")
"""How entries end that have a channel for every anchor and class."""
MASK_KEYS = "inld.masks."
"""How entries begin that may have a channel for the background and then one for every class."""
COUNTER = "num_batches_tracked"
"""A batch norm's count of steps, which no fixed norm uses and many files leave out."""
SHOWN = 6
"""Names that a message lists before it only counts."""


# --- names ---
def recognize_dialect(keys: Iterable[str]) -> str:
    """Return the dialect that has names for most of the keys: for all of them, or for parts of a head among them.

    Raises:
        FocaldetError: the keys are those of no detector that is known here.

    >>> recognize_dialect(["backbone.conv1.weight", "bbox_head.retina_cls.bias"])
    'mmdetection'
    """
    keys = list(keys)
    if holds_variables(keys):
        return TENSORFLOW
    known = {name: [ours for key in keys if (ours := _renamed(key, _turned(KEYS[name])))] for name in KEYS}
    best = max(known, key=lambda name: len(known[name]))  # of equals the first
    if keys and (len(known[best]) == len(keys) or any(ours.startswith("head.") for ours in known[best])):
        return best
    raise FocaldetError(
        f"these are no weights of a RetinaNet of {', '.join(KEYS)} or {TENSORFLOW}; their names are {shorten(keys)}"
    )


def to_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of a dialect's state dict our name, and its array our layout; one without a place keeps its own.

    torchvision's channels of 91 COCO numbers become those of the 80 classes; of its other networks' the first, which is
    the background's, goes.
    """
    if dialect == TENSORFLOW:
        return variables_to_ours(state)
    table = _turned(KEYS[dialect])
    named = {_renamed(key, table) or key: value for key, value in state.items() if not _unused(key, dialect)}
    return LAYOUTS[dialect][0](named) if dialect in LAYOUTS else named


def from_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of our state dict the name, and its array the layout, that it has in a dialect.

    Raises:
        FocaldetError: an entry has no place there.
    """
    laid = LAYOUTS[dialect][1](state) if dialect in LAYOUTS else state
    return {rename(key, KEYS[dialect]): value for key, value in laid.items() if not _unused(key, dialect)}


def _unused(key: str, dialect: str) -> bool:
    """Whether an entry is none of the weights: detectron2 counts no steps, and older files of it hold settings."""
    return dialect == "detectron2" and (key.endswith(COUNTER) or DETECTRON2_SETTINGS.fullmatch(key) is not None)


def rename(key: str, table: Sequence[tuple[str, str]]) -> str:
    """Return a key with its prefix changed by the first (from, to) of the table that fits it.

    Raises:
        FocaldetError: none fits.

    >>> rename("neck.fpn_convs.3.conv.bias", [("neck.fpn_convs.{i}.conv.", "neck.output.{i}.")])
    'neck.output.3.bias'
    """
    renamed = _renamed(key, table)
    if renamed is None:
        raise FocaldetError(f"{key!r} is no name of a weight that this detector has")
    return renamed


def _renamed(key: str, table: Sequence[tuple[str, str]]) -> str | None:
    for source, target in table:
        match = _pattern(source).match(key)
        if match:
            return target.format(**match.groupdict()) + key[match.end() :]
    return None


def _turned(table: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(theirs, ours) for ours, theirs in table]


@functools.cache
def _pattern(prefix: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w)\\}", r"(?P<\1>\\d+)", re.escape(prefix)))


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
        loaded=tuple(key for key, value in fitting.items() if not (joined and _has_classes(key, value, len(classes)))),
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
    wanted = [key for key, value in theirs.items() if _has_classes(key, value, len(state_classes))]
    given = {key: theirs.pop(key) for key in wanted if key in ours and _has_classes(key, ours[key], len(classes))}
    values = {key: ours[key].clone() for key in given}
    channels = {key: _by_class(key, value, len(state_classes)) for key, value in given.items()}
    by_class = {key: _by_class(key, value, len(classes)) for key, value in values.items()}
    if not common or any(by_class[key][:, :1].shape != channels[key][:, :1].shape for key in channels):
        return ()
    for key in channels:
        by_class[key][:, targets] = channels[key][:, sources].to(values[key])
        if key.startswith(MASK_KEYS):
            values[key][0] = given[key][0]
    theirs.update(values)
    return common


def _has_classes(key: str, value: Tensor, num_classes: int) -> bool:
    """Tell whether an entry of this name has channels that belong to classes."""
    return key.endswith(CLASS_KEYS) or (key.startswith(MASK_KEYS) and len(value) == 1 + num_classes)


def _by_class(key: str, value: Tensor, num_classes: int) -> Tensor:
    """View the channels of classes as (anchors, classes, ...)."""
    channels = value[1:] if key.startswith(MASK_KEYS) else value
    return channels.reshape(-1, num_classes, *channels.shape[1:])


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
