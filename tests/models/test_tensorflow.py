from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tf_rules
from focaldet.errors import FocaldetError
from focaldet.models import tensorflow
from focaldet.models.inference import prepare_for_inference
from focaldet.models.retinanet import RetinaNet
from focaldet.models.tensorflow import our_name, read_variables, variables_to_ours
from focaldet.models.weights import load_fitting, load_strict, recognize_dialect
from focaldet.structures import StageOutput
from tf_rules import DELTAS_ATOL, FEATURES_ATOL, LOGITS_ATOL

# cases of one network differ in the loss or in how anchors are coded, not in what the network answers
NETWORKS = [
    pytest.param(("retinanet_h_v4", "retinanet_h180_v15", "retinanet_h_atan_v16"), id="r50-h"),
    pytest.param(("retinanet_r_v1",), id="r50-r"),
    pytest.param(("retinanet_r_iou_v5",), id="r50-r-iou"),
    pytest.param(("retinanet_h_res101_v9",), id="r101-h", marks=pytest.mark.slow),
    pytest.param(("retinanet_h_res152_v12",), id="r152-h", marks=pytest.mark.slow),
]


def maps_of(network: RetinaNet, images: Tensor) -> tuple[dict[str, Tensor], StageOutput]:
    """Return the maps C1 to P7 by name, and what the head says of them."""
    maps: dict[str, Tensor] = {}
    for name, module in (("C1", network.backbone.body.maxpool), ("C2", network.backbone.body.layer1)):
        module.register_forward_hook(lambda module, inputs, output, name=name: maps.update({name: output.clone()}))
    with torch.inference_mode():
        found = network.features(images)
        (stage,) = network(images)
    levels = [*zip(("C3", "C4", "C5"), found[0], strict=True), *zip(("P3", "P4", "P5", "P6", "P7"), found[1])]  # noqa: B905
    return maps | dict(levels), stage


def assert_stage(stored: Any, tag: str, stage: StageOutput) -> None:
    logits, deltas, _ = stage.flat()
    tf_rules.assert_described(stored, f"{tag}.rpn.logit", logits[0].numpy(), LOGITS_ATOL)
    tf_rules.assert_described(stored, f"{tag}.rpn.delta", deltas[0].numpy(), DELTAS_ATOL)


@pytest.mark.golden
@pytest.mark.parametrize("cases", NETWORKS)
def test_every_map_and_answer_is_the_original_programs(golden: Path, cases: tuple[str, ...]) -> None:
    network = tf_rules.tf_network(golden, cases[0])
    prepared = prepare_for_inference(network)
    files = [tf_rules.stored_case(golden, case) for case in cases]
    for tag in ("a", "b", "c"):
        having = [stored for stored in files if f"{tag}.rpn.logit.shape" in stored]
        if not having:
            continue
        images = tf_rules.tf_input(golden, tag)
        maps, stage = maps_of(network, images)
        with torch.inference_mode():
            (fused,) = prepared(images)
        for stored in having:
            for name, found in maps.items():
                if f"{tag}.{name}.shape" in stored:
                    tf_rules.assert_described(stored, f"{tag}.{name}", tf_rules.as_nhwc(found), FEATURES_ATOL)
            assert_stage(stored, tag, stage)
            assert_stage(stored, tag, fused)
            assert sum(level.shape[1] for level in stage.anchors) == stored[f"{tag}.anchors.shape" if f"{tag}.anchors.shape" in stored else f"{tag}.anchors"][0]
