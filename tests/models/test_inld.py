"""Instance-level denoising beside the stored branch of the original program."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from focaldet.models.inld import InLD, build_trunk


def fill(conv: nn.Module, arrays: dict[str, Tensor], scope: str) -> None:
    conv.get_parameter("weight").data = arrays[f"{scope}.weights"].permute(3, 2, 0, 1)
    conv.get_parameter("bias").data = arrays[f"{scope}.biases"]


@pytest.mark.golden
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_equals_the_stored_branch(golden: Path, layers: int) -> None:
    case = f"generate_mask.layers{layers}"
    with np.load(golden / "tf" / "unit" / "r3d.npz") as stored:
        arrays = {name: torch.from_numpy(stored[name]) for name in stored.files if name.startswith("generate_mask")}
    inld = InLD(8, [layers], num_masks=16)
    (trunk,), (mask_conv,), (weight_conv,) = inld.trunks, inld.masks, inld.weights
    for number, conv in enumerate(trunk):
        fill(conv, arrays, f"{case}.var.enrich_P3.Conv" + (f"_{number}" if number else ""))
    fill(mask_conv, arrays, f"{case}.var.gmask_P3")
    fill(weight_conv, arrays, f"{case}.var.gdot_P3")
    features = arrays["generate_mask.in.feature"].permute(0, 3, 1, 2)
    with torch.no_grad():
        weights, masks = inld([features])
        enriched = trunk(features)
    for ours, name in ((enriched, "G"), (weights[0], "dot"), (masks[0], "mask")):
        # sums of 72 products of about 1
        torch.testing.assert_close(ours.permute(0, 2, 3, 1), arrays[f"{case}.out.{name}"], rtol=1e-5, atol=1e-5)


def test_a_trunk_sees_as_far_as_its_dilations_say() -> None:
    trunk = build_trunk(4, layers=4)
    assert [conv.dilation[0] for conv in trunk] == [2, 2, 2, 4, 1]
    assert [conv.kernel_size[0] for conv in trunk] == [3, 3, 3, 3, 1]


def test_the_branch_that_teaches_can_go() -> None:
    inld = InLD(8, [1, 2], num_masks=2)
    levels = [torch.randn(2, 8, 5, 7), torch.randn(2, 8, 3, 4)]
    weights, masks = inld(levels)
    assert [tuple(mask.shape) for mask in masks] == [(2, 2, 5, 7), (2, 2, 3, 4)]
    same, none = inld.without_masks()(levels)
    assert none == [] and all(torch.equal(a, b) for a, b in zip(same, weights, strict=True))


def test_convolutions_start_xavier_uniform_without_bias() -> None:
    torch.manual_seed(0)
    inld = InLD(64, [2], num_masks=16)
    for conv in (*inld.trunks[0], inld.weights[0]):
        fan = conv.weight[0].numel()
        bound = (6 / (2 * fan)) ** 0.5
        assert conv.bias.eq(0).all() and bound * 0.97 < conv.weight.abs().max() <= bound
