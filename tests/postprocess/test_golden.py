"""How many pairs pass the threshold on each level of the stored models; their boxes: `tests/engine/test_golden.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import golden_rules
from focaldet.postprocess.detect import DetectRule, select_pairs

CASES = {"eval_a": "a", "eval_b": "b", "eval_pair": "ac"}
DEEP = ("r50_pytorch", "r50_caffe", "r101_pytorch", "r101_caffe", "x101_64x4d")
EVERYTHING = 10**9


@pytest.mark.golden
@pytest.mark.parametrize("model", ["r18_pytorch", *(pytest.param(name, marks=pytest.mark.slow) for name in DEEP)])
def test_as_many_pairs_pass_as_in_the_reference(golden: Path, model: str) -> None:
    stored = golden_rules.stored_model(golden, model)
    network = golden_rules.golden_network(model)
    for case, pictures in CASES.items():
        if f"{case}.over_threshold" not in stored:
            continue
        with torch.inference_mode():
            logits = network(golden_rules.golden_input(model, pictures))[0].logits
        pairs = select_pairs(logits, DetectRule(per_level=EVERYTHING))
        ends = torch.tensor([level.shape[1] for level in logits]).cumsum(0)
        levels = torch.bucketize(pairs.anchors, ends, right=True)
        counts = torch.bincount(pairs.pictures * len(logits) + levels, minlength=len(pictures) * len(logits))
        # The README of the stored outputs: rounding in the network moves a count by one or two.
        np.testing.assert_allclose(counts.view(len(pictures), -1), stored[f"{case}.over_threshold"], rtol=0, atol=2)
