"""Weights of other code bases <-> ours: one table of keys for each, and loading that says what it did.

A state dict is told by its keys. Ours are `backbone.body.*` (timm's names, for ResNets those of torchvision and so of
mmdetection), `neck.lateral.i`, `neck.output.i`, `head.class_tower.i`, `head.box_tower.i`, `head.logits`, `head.deltas`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import Tensor

from focaldet.errors import FocaldetError

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
"""For each dialect, (our prefix, its prefix); {i} is a number that stays."""

CLASS_KEYS = ("head.logits.weight", "head.logits.bias")
"""Entries with a channel for every class."""


def recognize_dialect(keys: Sequence[str]) -> str | None:
    """Return the dialect that has a name for every key, or None where there is no such.

    >>> recognize_dialect(["backbone.conv1.weight", "bbox_head.retina_cls.bias"])
    'mmdetection'
    """
    for dialect, table in KEYS.items():
        patterns = [_pattern(theirs) for _, theirs in table]
        if keys and all(any(pattern.match(key) for pattern in patterns) for key in keys):
            return dialect
    return None


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


def to_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of a state dict our name."""
    table = [(theirs, ours) for ours, theirs in KEYS[dialect]]
    return {rename(key, table): value for key, value in state.items()}


def from_ours(state: State, dialect: str) -> dict[str, Tensor]:
    """Give every entry of our state dict the name it has in a dialect."""
    return {rename(key, KEYS[dialect]): value for key, value in state.items()}
