"""R3Det beside the original program and mmrotate: every stored map, box and answer; and what its parts promise."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import tf_rules
from focaldet.errors import FocaldetError
from focaldet.geometry.rotated_coders import RboxCoder
from focaldet.models import inference
from focaldet.models.anchors import COCO_ANCHORS, original_upright
from focaldet.models.inference import FusedConv2d, FusedRefineConvs, prepare_for_inference
from focaldet.models.r3det import FARTHEST, LEAST_SIDE, R3Det, best_boxes, build_r3det, decode_within
from focaldet.models.retinanet import build_retinanet
from focaldet.models.weights import from_ours, load_fitting, load_strict, recognize_dialect, to_ours
from focaldet.structures import StageOutput
from rotated_rules import CLASSES, rotated_entry
from tf_rules import BOXES_ATOL, DELTAS_ATOL, FEATURES_ATOL, LOGITS_ATOL

PYRAMID = ("P3", "P4", "P5", "P6", "P7")

# --- the original program ---
# the first stages of one network are those of the other
NETWORKS = [
    pytest.param(("r3det_2stage_v2", "r3det_v1"), "ac", id="r3det"),
    pytest.param(("r3det_2stage_v2", "r3det_v1"), "b", id="r3det b", marks=pytest.mark.slow),
    pytest.param(("r3detpp_v2",), "a", id="r3det++"),
    pytest.param(("r3detpp_v2",), "b", id="r3det++ b", marks=pytest.mark.slow),
    pytest.param(("r3detpp_v3",), "a", id="r3det++ 1 layer", marks=pytest.mark.slow),
]


def answers_of(network: R3Det, images: Tensor) -> tuple[dict[str, Tensor], list[StageOutput]]:
    """Return the stages, and the maps between them under the names of the stored ones."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, levels: Sequence[str] = PYRAMID) -> Callable[[Any, Any, list[Tensor]], None]:
        return lambda module, inputs, output: maps.update(
            {f"{name}{level}": image_map for level, image_map in zip(levels, output, strict=True)}
        )

    hooks = [network.backbone.register_forward_hook(keep("", ("C3", "C4", "C5")))]
    hooks.append(network.neck.register_forward_hook(keep("")))
    for number, stage in enumerate(network.refine, start=1):
        hooks.append(stage.alignment.register_forward_hook(keep(f"s{number}.frm.")))
        before = stage.head.register_forward_pre_hook(
            lambda module, inputs, name=f"s{number}.head_in.": keep(name)(module, None, inputs[0])
        )
        hooks.append(before)
    if network.inld is not None:
        hooks.append(
            network.inld.register_forward_hook(lambda module, inputs, output: keep("dot.")(None, None, output[0]))
        )
    with torch.inference_mode():
        stages = network(images)
    for hook in hooks:
        hook.remove()
    masks = stages[1].extra.get("mask_logits", [])
    maps |= {f"mask_logits.{p}": level for p, level in zip(PYRAMID, masks, strict=False)}
    return maps, stages


def assert_boxes(stored: Any, tag: str, number: int, stage: StageOutput) -> None:
    """Compare the boxes that enter a stage; where two anchors are nearly as good, either may have become the box."""
    boxes = stage.flat()[2][0].clone()
    boxes[:, 4] = boxes[:, 4].rad2deg()
    far = (np.abs(boxes.numpy() - stored[f"{tag}.s{number}.boxes"]) > BOXES_ATOL).any(axis=1)
    assert (stored[f"{tag}.proposal_margin"][far] < 1e-5).all()
    assert not far.any()  # so it is with these weights, and everything behind may be compared


def assert_answers(stored: Any, tag: str, stages: list[StageOutput]) -> None:
    for number, stage in enumerate(stages):
        name = f"{tag}.s{number}" if number else f"{tag}.rpn"
        logits, deltas, _ = stage.flat()
        if number and f"{tag}.s{number}.boxes" not in stored:
            continue
        for kind, array, atol in (("logit", logits[0].numpy(), LOGITS_ATOL), ("delta", deltas[0].numpy(), DELTAS_ATOL)):
            if f"{name}.{kind}" in stored:
                np.testing.assert_allclose(array, stored[f"{name}.{kind}"], rtol=0, atol=atol, err_msg=name)
            else:
                tf_rules.assert_described(stored, f"{name}.{kind}", array, atol)
        if number:
            assert_boxes(stored, tag, number, stage)


@pytest.mark.golden
@pytest.mark.parametrize(("cases", "tags"), NETWORKS)
def test_every_map_and_answer_is_the_original_programs(golden: Path, cases: tuple[str, ...], tags: str) -> None:
    network = tf_rules.tf_network(golden, cases[0])
    assert isinstance(network, R3Det)
    prepared = prepare_for_inference(network)
    files = [tf_rules.stored_case(golden, case) for case in cases]
    compared = 0
    for tag in tags:
        images = tf_rules.tf_input(golden, tag)
        maps, stages = answers_of(network, images)
        answers = [stages]
        if tag == tags[-1]:
            with torch.inference_mode():
                answers.append(prepared(images))
            assert "mask_logits" not in answers[-1][1].extra
        for stored in files:
            known = [name for name in maps if f"{tag}.{name}.shape" in stored]
            for name in known:
                tf_rules.assert_described(stored, f"{tag}.{name}", tf_rules.as_nhwc(maps[name]), FEATURES_ATOL)
            for answer in answers if known else []:
                assert_answers(stored, tag, answer)
            compared += len(known)
    wanted = tuple(
        f"{tag}.{name}"
        for tag in tags
        for name in ("C3", "C4", "C5", "P", "s1.frm", "s1.head_in", "s2.frm", "dot", "mask_l")
    )
    assert compared == sum(name.endswith(".shape") and name.startswith(wanted) for file in files for name in file)


# --- mmrotate ---
def mmrotate_network(stages: int) -> R3Det:
    anchors = replace(COCO_ANCHORS, ratios=(1.0, 0.5, 2.0), angle="oc-negative")
    return build_r3det(
        build_retinanet(num_classes=15, anchors=anchors),
        coder=RboxCoder("oc-negative"),
        refine_stages=stages,
        refine_convs="shared",
        refine_sampling="transposed",
        refine_output="p+f+sample",
    )


def older_name(key: str) -> str:
    """The name in mmrotate 0.x of an entry of 1.x."""
    head, _, rest = key.partition(".")
    if head == "bbox_head_init":
        return f"bbox_head.{rest}"
    if head != "bbox_head_refine":
        return key
    number, _, rest = rest.partition(".")
    module, _, last = rest.partition(".")
    return f"feat_refine_module.{number}.{last}" if module == "feat_refine_module" else f"refine_head.{number}.{rest}"


@pytest.mark.golden
@pytest.mark.parametrize("model", [pytest.param("r3det_oc", marks=pytest.mark.slow), "r3det_refine_oc"])
def test_mmrotates_networks_come_in_by_key_and_answer_the_same(golden: Path, model: str) -> None:
    keys = json.loads((golden / "rotated" / f"model_{model}_keys.json").read_text())
    state = {entry["key"]: rotated_entry(entry["key"], entry["shape"]) for entry in keys}
    number = 2 if "refine_oc" in model else 1
    network, older = mmrotate_network(number).eval(), mmrotate_network(number)
    load_strict(network, state, CLASSES, CLASSES)
    load_strict(older, {older_name(key): value for key, value in state.items()}, CLASSES, CLASSES)
    for (name, ours), theirs in zip(network.state_dict().items(), older.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    limits = json.loads((golden / "rotated" / "info.json").read_text())["models"][model]["f32_vs_f64_maxabs"]
    with np.load(golden / "rotated" / f"model_{model}.npz") as stored, torch.inference_mode():
        image = torch.from_numpy(stored["image"])
        for stages in (network(image), prepare_for_inference(network)(image)):
            assert_mmrotate(stored, limits, stages)
        maps, _ = answers_of(network, image)
        for stage in range(number):
            name = f"stage{stage}_refined_p3"
            refined = maps[f"s{stage + 1}.frm.P3"][:, :8].numpy()
            np.testing.assert_allclose(refined, stored[name], rtol=0, atol=10 * limits[name])


def assert_mmrotate(stored: Any, limits: dict[str, float], stages: list[StageOutput]) -> None:
    """Compare maps of logits and deltas, and boxes, with ten times the float32 error of mmrotate's own."""
    for number, stage in enumerate(stages):
        prefix = f"stage{number - 1}" if number else "init"
        for level, (logits, deltas, anchors) in enumerate(zip(stage.logits, stage.deltas, stage.anchors, strict=True)):
            height, width = stored[f"{prefix}_cls{level}"].shape[-2:]
            for kind, rows in (("cls", logits), ("reg", deltas)):
                name = f"{prefix}_{kind}{level}"
                array = rows.reshape(1, height, width, -1).permute(0, 3, 1, 2).numpy()
                # the last level has one place, where float32 happened to err by nothing
                np.testing.assert_allclose(array, stored[name], rtol=0, atol=10 * max(limits[name], 5e-7), err_msg=name)
            if number:
                name = f"rois{number - 1}_{level}"
                np.testing.assert_allclose(anchors[0].numpy(), stored[name], rtol=1e-6, atol=10 * limits[name])


# --- ours ---
SLIM: dict[str, Any] = {
    "backbone": "resnet18",
    "neck_channels": 16,
    "head_channels": 16,
    "head_convs": 1,
    "num_classes": 3,
    "head_init": "kaiming",
    "neck_norm": "group",
    "anchors": original_upright(),
}
CODER = RboxCoder("tf90", max_log_scale=None)


def small(seed: int = 0, **changes: Any) -> R3Det:
    torch.manual_seed(seed)
    return build_r3det(build_retinanet(**SLIM), coder=CODER, **changes)


def test_parameters_are_those_of_the_specification() -> None:
    with torch.device("meta"):
        network = build_r3det(build_retinanet(**tf_rules.BASE), coder=CODER, refine_stages=2)
    assert len(network.refine) == 2
    for stage in network.refine:
        assert sum(item.numel() for item in stage.alignment.parameters()) == 3_608_320
        assert sum(item.numel() for item in stage.head.parameters()) == 4_766_740


def test_every_stage_has_a_box_a_place_and_anchors_that_do_not_learn() -> None:
    network = small(refine_stages=2, refine_gradient="attached", inld=(2, 1, 1, 1, 1))
    images = torch.randn(2, 3, 72, 104)  # odd maps: 9 x 13, 5 x 7, 3 x 4, 2 x 2, 1 x 1
    places = [9 * 13, 5 * 7, 3 * 4, 2 * 2, 1]
    stages = network(images)
    for number, stage in enumerate(stages):
        each = 1 if number else 21
        pictures = 2 if number else 1
        assert [tuple(level.shape) for level in stage.logits] == [(2, each * count, 3) for count in places]
        assert [tuple(level.shape) for level in stage.deltas] == [(2, each * count, 5) for count in places]
        assert [tuple(level.shape) for level in stage.anchors] == [(pictures, each * count, 5) for count in places]
        assert not any(level.requires_grad for level in stage.anchors)
    masks = stages[1].extra["mask_logits"]
    assert [tuple(level.shape) for level in masks] == [
        (2, 4, 9, 13),
        (2, 4, 5, 7),
        (2, 4, 3, 4),
        (2, 4, 2, 2),
        (2, 4, 1, 1),
    ]
    assert not stages[0].extra and not stages[2].extra
    assert small(inld=(1,) * 5, inld_masks="binary")(images)[1].extra["mask_logits"][0].shape[1] == 2


def test_pictures_of_a_batch_do_not_disturb_each_other() -> None:
    network = small(refine_stages=2, inld=(1,) * 5).eval()
    images = torch.randn(3, 3, 72, 104)
    with torch.inference_mode():
        together, alone = network(images), network(images[1:2])
    for ours, theirs in zip(together, alone, strict=True):
        for a, b in zip((*ours.logits, *ours.deltas), (*theirs.logits, *theirs.deltas), strict=True):
            torch.testing.assert_close(a[1:2], b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("gradient", ["attached", "detached"])
def test_the_refined_loss_reaches_the_boxes_before_only_where_asked(gradient: Any) -> None:
    network = small(refine_gradient=gradient)
    logits, deltas, _ = network(torch.randn(1, 3, 64, 64))[1].flat()
    (logits.sum() + deltas.sum()).backward()
    grad = network.head.deltas.weight.grad
    assert (grad is not None and bool(grad.ne(0).any())) == (gradient == "attached")
    assert network.head.logits.weight.grad is None  # which box is the best has no gradient


def test_the_best_anchor_of_a_place_is_the_first_of_the_highest_logit() -> None:
    logits = torch.tensor([[[0.0, 3.0], [3.0, 1.0], [2.0, 2.0], [-5.0, -4.0], [-9.0, -4.0], [-1.0, -7.0]]])
    deltas = torch.zeros(1, 6, 5)
    anchors = torch.arange(6.0)[None, :, None] + torch.tensor([10.0, 20.0, 30.0, 40.0, 0.5])
    (boxes,) = best_boxes([logits], [deltas], [anchors], [torch.zeros(1, 1, 1, 2)], CODER)
    assert torch.equal(boxes, anchors[:, [0, 5]])


def test_only_the_best_boxes_are_decoded() -> None:
    class Counting(RboxCoder):
        def decode(self, deltas: Tensor, anchors: Tensor, size: Any = None) -> Tensor:
            seen.append(deltas.shape[1])
            return super().decode(deltas, anchors, size)

    seen: list[int] = []
    network = small(refine_stages=2)
    network.coder = Counting("tf90")
    network(torch.randn(1, 3, 64, 64))
    assert seen == [64 + 16 + 4 + 1 + 1] * 2


@pytest.mark.parametrize(
    "coder", [CODER, RboxCoder("le90", edge_swap=True, proj_xy=True), RboxCoder("le135", norm_factor=1)]
)
def test_whatever_a_head_says_the_next_stage_gets_finite_boxes_with_area(coder: RboxCoder) -> None:
    extremes = torch.tensor([0.0, 1000.0, -1000.0, 3e38, -3e38])
    deltas = torch.cartesian_prod(*[extremes] * 5).requires_grad_()
    anchors = torch.tensor([50.0, 60.0, 30.0, 1e-3, -1.0]).expand(len(deltas), 5)
    boxes = decode_within(deltas, anchors, coder)
    assert boxes.isfinite().all()
    assert boxes[:, :2].abs().max() <= FARTHEST
    assert boxes[:, 2:4].min() >= LEAST_SIDE and boxes[:, 2:4].max() <= FARTHEST
    boxes.sum().backward()
    assert deltas.grad is not None and deltas.grad.isfinite().all()


def test_real_boxes_are_decoded_as_the_coder_does() -> None:
    torch.manual_seed(0)
    deltas, anchors = torch.randn(500, 5), torch.rand(500, 5) * 900 + 8
    torch.testing.assert_close(decode_within(deltas, anchors, CODER), CODER.decode(deltas, anchors), rtol=0, atol=0)


@pytest.mark.parametrize("amount", [float("nan"), 1e30])
def test_a_network_that_has_diverged_still_answers(amount: float) -> None:
    network = small(refine_stages=2, refine_sampling="original")
    torch.nn.init.constant_(network.head.deltas.bias, amount)
    logits = network(torch.randn(1, 3, 64, 64))[-1].flat()[0]
    assert logits.shape == (1, 86, 3)


def test_autocast_changes_little_and_boxes_stay_float32() -> None:
    network = small(refine_stages=2, inld=(1,) * 5).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        before = network(images)
        with torch.autocast("cpu", torch.bfloat16):
            after = network(images)
    for ours, theirs in zip(after[1:], before[1:], strict=True):
        assert all(level.dtype == torch.float32 for level in ours.anchors)
        assert ours.logits[0].dtype == torch.bfloat16
        assert all(level.float().isfinite().all() for level in (*ours.logits, *ours.deltas))
        assert [level.shape for level in ours.logits] == [level.shape for level in theirs.logits]


@pytest.mark.parametrize("fused", [True, False])
def test_the_prepared_network_answers_as_before(fused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not fused:
        monkeypatch.setattr(inference, "fused_convolutions_work", lambda dtype: False)
    network = small(refine_stages=2, refine_output="p+f+sample", inld=(3, 2, 1, 1, 1)).eval()
    images = torch.randn(2, 3, 72, 104)
    prepared = prepare_for_inference(network)
    kinds = [type(module) for name, module in prepared.named_modules() if not name.endswith("activation")]
    assert kinds.count(FusedRefineConvs) == 10 and not {torch.nn.Conv2d, torch.nn.ReLU} & set(kinds)
    assert FusedConv2d in kinds and not list(prepared.inld.masks) and list(network.inld.masks)
    with torch.inference_mode():
        before, after = network(images), prepared(images)
    for ours, theirs in zip(after, before, strict=True):
        for a, b in zip((*ours.logits, *ours.deltas), (*theirs.logits, *theirs.deltas), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    with torch.inference_mode():
        half = prepare_for_inference(network, torch.bfloat16)(images)
    assert half[2].logits[0].dtype == torch.bfloat16 and half[2].anchors[0].dtype == torch.float32
    assert all(rows.is_contiguous() for rows in half[2].logits)


def test_a_network_travels() -> None:
    network = small(refine_stages=1)
    assert copy.deepcopy(network).coder == CODER
    assert list(network.state_dict())[-1] == "refine.0.head.deltas.bias"


@pytest.mark.parametrize("dialect", ["focaldet", "mmdetection", "mmrotate-1.x"])
def test_names_of_other_programs_come_back(dialect: str) -> None:
    state = small(refine_stages=2, refine_convs="shared").state_dict()
    renamed = from_ours(state, dialect)
    assert recognize_dialect(renamed) == dialect
    assert list(to_ours(renamed, dialect)) == list(state)


def test_classes_are_joined_by_name_in_all_heads_and_in_the_masks() -> None:
    source, target = small(seed=1, inld=(1,) * 5), small(inld=(1,) * 5)
    fresh = copy.deepcopy(target.state_dict())
    report = load_fitting(target, source.state_dict(), ("ship", "car", "dog"), ("car", "person", "ship"))
    assert report.joined == ("ship", "car") and "class dog" in report.fresh
    old, new = source.state_dict(), target.state_dict()
    for key, kinds in (("head.logits.weight", 21), ("refine.0.head.logits.weight", 1)):
        theirs, ours, before = (state[key].view(kinds, 3, -1) for state in (old, new, fresh))
        assert torch.equal(ours[:, [0, 1]], theirs[:, [2, 0]]) and torch.equal(ours[:, 2], before[:, 2]), key
    for number in range(5):
        theirs, ours, before = (state[f"inld.masks.{number}.weight"] for state in (old, new, fresh))
        assert torch.equal(ours[:3], theirs[[0, 3, 1]]) and torch.equal(ours[3], before[3])
    binary = small(inld=(1,) * 5, inld_masks="binary")
    load_fitting(binary, small(seed=1, inld=(1,) * 5, inld_masks="binary").state_dict(), tuple("abc"), tuple("abd"))


def test_arguments_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(FocaldetError, match=r"inld=\(1, 1\) has 2 numbers; give one for each of 5 levels"):
        small(inld=(1, 1))
    with pytest.raises(FocaldetError, match=r"refine_points=5 does not go with angle='tf180'"):
        build_r3det(build_retinanet(**SLIM), coder=RboxCoder("tf180"), refine_points=5)
