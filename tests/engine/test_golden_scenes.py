"""Whole pictures beside the original program's test scripts: windows, sizes, mirrors and merging, end to end.

Windows of 192 with 48 overlap, scaled to 256. Recipes are in the state `fixed`, which is the program's that was
recorded; weights follow the rule of the stored outputs.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

import tf_rules
from focaldet.engine.build import build_model
from focaldet.engine.detector import Detector
from focaldet.models.retinanet import RetinaNet
from focaldet.models.weights import load_strict
from focaldet.recipes import Recipe, get_recipe
from focaldet.results.detections import Detections

pytestmark = pytest.mark.golden

WINDOWS: dict[str, Any] = {"tile": 192, "overlap": 48, "test_size": (256, 256)}
LOOKS: dict[str, Any] = {"test_sizes": ((256, 256), (320, 320)), "test_flips": ("horizontal", "vertical")}
CASES = {
    "rtr": ("retinanet-h_r50d_1x_dota", "retinanet_h_v4"),
    "r3d": ("r3det_r50d_2x_dota", "r3det_v1"),
}


@cache
def network_of(golden: Path, program: str) -> RetinaNet:
    name, case = CASES[program]
    network = build_model(get_recipe(name, "fixed"))
    load_strict(network, tf_rules.tf_variables(golden, case), tf_rules.CLASSES)
    return network.eval()


def recipe_of(program: str, **changes: Any) -> Recipe:
    return get_recipe(CASES[program][0], "fixed").replace(**WINDOWS, **changes)


def stored_scene(golden: Path, program: str, scene: str) -> Any:
    stored = tf_rules.stored_scenes(golden, program)
    return {name.removeprefix(f"{scene}."): value for name, value in stored.items() if name.startswith(f"{scene}.")}


def assert_same(found: Detections, stored: Any) -> None:
    """As sets, by the README of the stored outputs: each stored quad has one of ours within 0.02 pixels and 1e-5."""
    quads = torch.from_numpy(stored["out.quads"]).view(-1, 4, 2).double()
    corners, free = found.polygons.double(), set(range(len(found)))
    assert len(found) == len(quads)
    for quad, score, label in zip(quads, stored["out.scores"], stored["out.classes"] - 1, strict=True):
        near = [j for j in free if found.labels[j] == label and abs(float(found.scores[j]) - score) < 1e-5]
        apart = {j: float(torch.cdist(corners[j], quad).amin(1).max()) for j in near}
        assert apart and min(apart.values()) < 0.02
        free.remove(min(apart, key=apart.__getitem__))


@pytest.mark.parametrize(
    ("program", "scene", "changes"),
    [
        pytest.param("rtr", "big", {}, marks=pytest.mark.slow),
        pytest.param("rtr", "pad", {}, marks=pytest.mark.slow),
        ("r3d", "single", {}),
        pytest.param("r3d", "ms_flip", LOOKS, marks=pytest.mark.slow),
    ],
)
def test_scene_equals_the_original(golden: Path, program: str, scene: str, changes: dict[str, Any]) -> None:
    stored = stored_scene(golden, program, scene)
    detector = Detector(recipe_of(program, **changes), network_of(golden, program))
    assert_same(detector.predict(stored["in.image"]), stored)
