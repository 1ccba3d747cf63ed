"""The original rotated program's networks with made-up weights, and how to compare with what it answered.

Weights and their seeds follow `golden/tf/README.md`, whose rules lie beside it as code; they are made under
TensorFlow's names and come into our networks the way a user's would, through `focaldet.models.tensorflow`.
"""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.models.anchors import original_turned, original_upright
from focaldet.models.r3det import build_r3det
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.models.weights import load_strict

Array = npt.NDArray[Any]

CLASSES = (
    "roundabout", "tennis-court", "swimming-pool", "storage-tank", "soccer-ball-field", "small-vehicle", "ship",
    "plane", "large-vehicle", "helicopter", "harbor", "ground-track-field", "bridge", "basketball-court",
    "baseball-diamond",
)  # fmt: skip
"""In the original program's order."""

BASE: dict[str, Any] = {
    "backbone": "resnet50d",
    "frozen": "stem",
    "backbone_norm": "frozen",
    "norm_eps": 1.001e-5,
    "neck": "fpn-average",
    "p6_from": "p5",
    "p7_relu": True,
    "num_classes": 15,
    "anchors": original_upright(),
}
MODELS: dict[str, dict[str, Any]] = {
    "retinanet_h_v4": BASE,
    "retinanet_h180_v15": BASE | {"anchors": original_upright(coded="tf180")},
    "retinanet_h_atan_v16": BASE,
    "retinanet_r_v1": BASE | {"anchors": original_turned()},
    "retinanet_r_iou_v5": BASE | {"anchors": original_turned()},
    "retinanet_h_res101_v9": BASE | {"backbone": "resnet101d"},
    "retinanet_h_res152_v12": BASE | {"backbone": "resnet152d"},
}
"""Arguments of `build_retinanet` for each stored case of a RetinaNet."""

REFINE: dict[str, Any] = {
    "coder": RboxCoder("tf90", max_log_scale=None),
    "refine_sampling": "original",
    "refine_gradient": "attached",
}
REFINED: dict[str, dict[str, Any]] = {
    "r3det_v1": REFINE,
    "r3det_2stage_v2": REFINE | {"refine_stages": 2},
    "r3detpp_v2": REFINE | {"inld": (4, 4, 3, 2, 2)},
    "r3detpp_v3": REFINE | {"inld": (1, 1, 1, 1, 1)},
}
"""Arguments of `build_r3det` for each stored case of an R3Det, whose first stage is `BASE`."""

SCALED = {("retinanet_r_iou_v5", "rpn_net/rpn_regression/weights"): np.float32(0.25)}
"""The README's exception."""

# ten times the differences that the README measured between two float32 programs
FEATURES_ATOL, LOGITS_ATOL, DELTAS_ATOL, BOXES_ATOL = 4e-5, 2.4e-4, 5e-5, 1e-2


def variable_shapes(golden: Path, case: str) -> dict[str, list[int]]:
    """The shape of every variable of a case, [kh, kw, in, out] for a kernel."""
    described = json.loads((golden / "tf" / "vars" / f"{case}.json").read_text())
    return {name: entry["shape"] for name, entry in described["variables"].items()}


def tf_variables(golden: Path, case: str, seed: int = 0) -> dict[str, Tensor]:
    """The variables of a case under TensorFlow's names, filled by the rule."""
    rules = _rules(golden)
    return {
        name: torch.from_numpy(rules["variable_value"](name, shape, seed) * SCALED.get((case, name), np.float32(1)))
        for name, shape in variable_shapes(golden, case).items()
    }


def build_network(case: str) -> RetinaNet:
    """The network of a stored case, freshly initialized."""
    if case in REFINED:
        return build_r3det(build_retinanet(**BASE), **REFINED[case])
    return build_retinanet(**MODELS[case])


def tf_network(golden: Path, case: str, seed: int = 0) -> RetinaNet:
    """The network of a stored case with its made-up weights, in evaluation mode."""
    network = build_network(case)
    load_strict(network, tf_variables(golden, case, seed), CLASSES)
    return network.eval()


def tf_input(golden: Path, tag: str) -> Tensor:
    """Picture a, b or c, normalized: (1, 3, H, W) float32, RGB."""
    with np.load(golden / "tf" / "inputs.npz") as inputs:
        picture = inputs[f"image.{tag}"]
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy((picture.astype(np.float32) / np.float32(255) - mean) / std).permute(2, 0, 1)[None]


def stored_case(golden: Path, case: str) -> Any:
    """What the original program answered."""
    return np.load(golden / "tf" / "net" / f"{case}.npz")


def stored_scenes(golden: Path, program: str) -> dict[str, Array]:
    """What the original program's test script, end to end, took and answered."""
    with np.load(golden / "tf" / "e2e" / f"{program}.npz") as file:
        return dict(file)


def as_nhwc(image_map: Tensor) -> Array:
    """A map (B, C, H, W) in TensorFlow's layout."""
    return image_map.permute(0, 2, 3, 1).numpy()


def assert_described(stored: Any, name: str, array: Array, atol: float) -> None:
    """Compare an array with the shape, the sample, the statistics and the means of channels that a file holds of it.

    `atol` is the largest difference of an element, and so of all of these but the norm, which adds up squares.
    """
    assert array.shape == tuple(stored[f"{name}.shape"]), name
    sample = stored[f"{name}.sample"]
    numbers = (np.arange(len(sample)) * 1000003) % array.size if len(sample) < array.size else np.arange(array.size)
    np.testing.assert_allclose(array.reshape(-1)[numbers], sample, rtol=0, atol=atol, err_msg=name)
    double = array.astype(np.float64)
    stats = np.array([double.mean(), double.std(), double.min(), double.max(), np.linalg.norm(double)])
    allowed = atol * np.array([1, 1, 1, 1, np.sqrt(array.size)])
    assert (np.abs(stats - stored[f"{name}.stats"]) <= allowed).all(), (name, stats)
    if f"{name}.chan" in stored:
        means = double.reshape(-1, array.shape[-1]).mean(axis=0)
        np.testing.assert_allclose(means, stored[f"{name}.chan"], rtol=0, atol=atol, err_msg=name)


@cache
def _rules(golden: Path) -> dict[str, Any]:
    return runpy.run_path(str(golden / "tf" / "rules.py"))
