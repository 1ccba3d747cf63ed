from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.layers.conv2d_same import Conv2dSame

import golden_rules
from focaldet.models import inference
from focaldet.models.anchors import original_upright
from focaldet.models.folding import FoldedConv2d, FoldedNorm
from focaldet.models.inference import FusedBlock, FusedConv2d, prepare_for_inference
from focaldet.models.retinanet import build_retinanet

SLIM = {"neck_channels": 16, "head_channels": 16, "head_convs": 1, "num_classes": 2}

ORIGINAL = {
    "backbone": "resnet50d",
    "frozen": "stem",
    "backbone_norm": "frozen",
    "neck": "fpn-average",
    "p6_from": "p5",
    "p7_relu": True,
    "anchors": original_upright(),
}
"""The network of the original rotated program."""


@pytest.fixture(params=["fused", "in steps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the fused convolutions, where this machine has them, and without."""
    if request.param == "in steps":
        monkeypatch.setattr(inference, "fused_convolutions_work", lambda dtype: False)
    elif not inference.fused_convolutions_work(torch.float32):
        pytest.skip("this build of torch has no fused convolutions")
    return str(request.param)


@pytest.mark.golden
@pytest.mark.parametrize(
    "model",
    [
        "r18_pytorch",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("r50_pytorch", "r50_caffe", "x101_64x4d")),
    ],
)
def test_stored_outputs_hold_for_the_prepared_network(golden: Path, model: str, way: str) -> None:
    stored = golden_rules.stored_model(golden, model)
    network = prepare_for_inference(golden_rules.golden_network(model))
    images = golden_rules.golden_input(model, "ac")
    with torch.inference_mode():
        (stage,) = network(images)
    for level in range(5):
        logits, deltas = golden_rules.level_maps(stage, level, images)
        # ten times the float32/float64 differences of the README
        golden_rules.assert_sampled(stored, f"eval_pair.cls{level + 3}", logits, 1.5e-4)
        golden_rules.assert_sampled(stored, f"eval_pair.reg{level + 3}", deltas, 2.5e-5)


@pytest.mark.parametrize("norm", ["affine", "trained"])
@pytest.mark.parametrize(
    "name",
    [
        "resnet18",
        "resnet50d",
        "resnext26ts",
        "mobilenetv2_100",
        "mobilenetv3_small_050",
        "tf_efficientnet_lite0",
        "convnext_atto",
        "regnetx_002",
    ],
)
def test_networks_of_many_kinds_answer_as_before(name: str, norm: Any, way: str) -> None:
    torch.manual_seed(0)
    network = build_retinanet(backbone=name, backbone_norm=norm, frozen="none", **SLIM).eval()
    for key, value in network.state_dict().items():
        if "running_mean" in key:
            value.uniform_(-0.1, 0.1)
        elif "running_var" in key:
            value.uniform_(0.5, 1.5)
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        before = network.features(images)[1]
        after = prepare_for_inference(network).features(images)[1]
    for ours, theirs in zip(after, before, strict=True):
        # rounding of float32, which grows with the depth of the network
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4 * theirs.abs().max().item())


@pytest.mark.parametrize("arguments", [{"backbone": "resnet50"}, ORIGINAL])
def test_a_resnet_is_fused_through_and_through(arguments: dict[str, Any]) -> None:
    network = prepare_for_inference(build_retinanet(**arguments, **SLIM))
    kinds = [type(module) for module in network.modules()]
    assert kinds.count(FusedBlock) == 16
    assert not {FoldedConv2d, FoldedNorm, torch.nn.Conv2d, Conv2dSame, torch.nn.BatchNorm2d, torch.nn.ReLU} & set(
        type(module) for name, module in network.named_modules() if not name.endswith("activation")
    )
    assert not list(network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto"])
def test_the_model_stays_as_it_is_and_the_prepared_one_does_not_follow_it(name: str, way: str) -> None:
    model = build_retinanet(backbone=name, **SLIM).train()
    before = {key: (id(value), value.clone()) for key, value in model.state_dict(keep_vars=True).items()}
    trainable = [key for key, value in model.named_parameters() if value.requires_grad]
    prepared = prepare_for_inference(model, torch.bfloat16)
    prepared = prepare_for_inference(model)
    assert model.training and [key for key, value in model.named_parameters() if value.requires_grad] == trainable
    for key, value in model.state_dict(keep_vars=True).items():
        assert id(value) == before[key][0] and torch.equal(value, before[key][1]), key
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        answered = prepared(images)[0].flat()[0]
    for value in model.state_dict().values():
        value.zero_()
    with torch.inference_mode():
        assert torch.equal(prepared(images)[0].flat()[0], answered)


def test_rows_of_anchors_are_views_of_the_maps() -> None:
    network = prepare_for_inference(build_retinanet(backbone="resnet18", **SLIM))
    with torch.no_grad():
        (stage,) = network(torch.randn(2, 3, 64, 96))
    assert all(rows.is_contiguous() and rows._base is not None for rows in stage.logits)


@pytest.mark.parametrize(("dtype", "rtol"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_the_original_rotated_network_answers_as_before(way: str, dtype: torch.dtype, rtol: float) -> None:
    torch.manual_seed(0)
    network = build_retinanet(**ORIGINAL, **SLIM).eval()
    images = torch.randn(2, 3, 72, 104)  # odd maps: 9 x 13, 5 x 7, 3 x 4
    with torch.inference_mode():
        before = network.features(images)[1]
        after = prepare_for_inference(network, dtype).features(images)[1]
    for ours, theirs in zip(after, before, strict=True):
        assert ours.dtype == dtype
        # rounding, of 24 or of 8 bits, which grows with the depth of the network
        torch.testing.assert_close(ours.float(), theirs, rtol=rtol, atol=rtol * theirs.abs().max().item())


def test_half_precision_answers_nearly_the_same(way: str) -> None:
    torch.manual_seed(0)
    network = build_retinanet(backbone="resnet18", **SLIM).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = network(images)[0]
        after = prepare_for_inference(network, torch.bfloat16)(images)[0]
    for ours, theirs in zip(after.logits, before.logits, strict=True):
        assert ours.dtype == torch.bfloat16
        assert (ours - theirs).abs().max() < 0.02  # eight bits of a logit of -4.6


def test_a_batch_of_one_row_or_column_of_maps_works(way: str) -> None:
    network = build_retinanet(backbone="resnet18", **SLIM).eval()
    images = torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        before = network(images)[0].flat()[0]
        after = prepare_for_inference(network)(images)[0].flat()[0]
    torch.testing.assert_close(after, before, rtol=1e-4, atol=1e-4)


def test_a_torch_without_fused_convolutions_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> torch.Tensor:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(inference, "pack_weight", fail)
    inference.fused_convolutions_work.cache_clear()
    assert not inference.fused_convolutions_work(torch.float32)
    inference.fused_convolutions_work.cache_clear()
    conv = FusedConv2d.of(torch.nn.Conv2d(3, 4, 1))
    assert conv.packed is None
