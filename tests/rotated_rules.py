"""mmrotate's networks with made-up weights: the rule is that of `golden/rotated/README.md`."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from focaldet.models.anchors import COCO_ANCHORS, AnchorAngle
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import from_ours, load_strict

ANGLES: dict[str, AnchorAngle] = {
    "retinanet_hbox_oc": "oc-negative",
    "retinanet_rbox_oc": "oc-negative",
    "retinanet_rbox_le90": "le90",
}
"""The form of the anchors of each stored RetinaNet, which have those of mmrotate 1.x."""

CLASSES = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip
"""In mmrotate's order."""


def rotated_entry(key: str, shape: Sequence[int]) -> Tensor:
    """The value of one state-dict entry, by its published name."""
    last = key.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.tensor(0)
    values = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(tuple(shape))
    if last == "running_mean":
        values = 0.05 * values
    elif last == "running_var":
        values = np.exp(0.1 * values)
    elif len(shape) >= 2:
        last_convs = {"retina_reg.weight": 0.03, "retina_cls.weight": 0.15}
        others = 0.7 if key.startswith("neck.") else math.sqrt(2)
        gain = next((gain for end, gain in last_convs.items() if key.endswith(end)), others)
        values = gain / math.sqrt(math.prod(shape[1:])) * values
    elif last == "weight":
        values = (0.3 if key.endswith("bn3.weight") else 1.0) * (1 + 0.1 * values)
    else:
        values = 0.05 * values - (2.5 if key.endswith("retina_cls.bias") else 0.0)
    return torch.from_numpy(values.astype(np.float32))


def rotated_network(model: str) -> RetinaNet:
    """The network of a stored RetinaNet with its made-up weights, which come in under their published names."""
    anchors = replace(COCO_ANCHORS, ratios=(1.0, 0.5, 2.0), angle=ANGLES[model])
    network = build_retinanet(num_classes=15, anchors=anchors)
    load_strict(network, _state(), CLASSES, CLASSES)
    return network.eval()


def stored_network(golden: Path, model: str) -> Any:
    """The stored outputs of a network."""
    return np.load(golden / "rotated" / f"model_{model}.npz")


@cache
def _state() -> dict[str, Tensor]:
    """All stored RetinaNets have entries of the same names and shapes, and so the same weights."""
    with torch.device("meta"):
        ours = build_retinanet(num_classes=15, anchors=replace(COCO_ANCHORS, angle="none"))
    published = from_ours(ours.state_dict(), "mmdetection")
    return {key: rotated_entry(key, value.shape) for key, value in published.items()}
