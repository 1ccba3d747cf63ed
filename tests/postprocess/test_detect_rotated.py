"""Post-processing of rotated boxes against stored outputs, and against a plain reading of the specification."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import tf_rules
from focaldet.errors import FocaldetError
from focaldet.geometry.polygon import polygon_to_rbox, polygon_to_rbox_truncated
from focaldet.geometry.rbox import convert_boxes, rbox_to_polygon
from focaldet.geometry.rotated_coders import CoderAngle, RboxCoder
from focaldet.geometry.rotated_iou import rotated_iou
from focaldet.postprocess.detect import DetectRule, detect, rank_in_class
from focaldet.results.detections import Detections
from focaldet.structures import Size, StageOutput

TF = DetectRule(per_level=None, nms=0.1, nms_equal="suppress", max_per_class=200, max_detections=None)
TF180 = replace(TF, refit="original-180")
MR = DetectRule(per_level=2000, nms=0.1, max_detections=2000, centres="clamped")
MMROTATE = {
    "retinanet_hbox_oc": RboxCoder("oc-negative"),
    "retinanet_rbox_oc": RboxCoder("oc-negative"),
    "retinanet_rbox_le90": RboxCoder("le90", edge_swap=True, proj_xy=True),
}
STORED = ("boxes", "scores", "classes")
TAGS = {"retinanet_h_v4": "abc", "retinanet_h180_v15": "ab", "retinanet_h_atan_v16": "ab", "retinanet_r_v1": "ab",
        "retinanet_r_iou_v5": "a", "retinanet_h_res101_v9": "a", "retinanet_h_res152_v12": "a",
        "r3det_v1": "abc", "r3det_2stage_v2": "ab", "r3detpp_v2": "ab", "r3detpp_v3": "a"}  # fmt: skip


def assert_same_set(found: Detections, boxes: Tensor, scores: Tensor, labels: Tensor, pixels: float) -> None:
    """Each stored detection has its own among those found: the same class, score and corners."""
    assert len(found) == len(boxes)
    free = set(range(len(found)))
    corners, wanted = found.polygons.double(), rbox_to_polygon(boxes.double()).view(-1, 4, 2)
    for k in range(len(boxes)):
        near = [j for j in free if found.labels[j] == labels[k] and abs(found.scores[j] - scores[k]) < 1e-5]
        apart = {j: float(torch.cdist(corners[j], wanted[k]).amin(1).max()) for j in near}
        assert apart and min(apart.values()) < pixels, (k, boxes[k], apart)
        free.remove(min(apart, key=apart.__getitem__))


@pytest.mark.golden
@pytest.mark.slow
@pytest.mark.parametrize("case", TAGS)
def test_equals_the_original_program(golden: Path, case: str) -> None:
    """Inference, of all refine stages, and the detections that training draws, of the last; one network serves both."""
    stored, network = tf_rules.stored_case(golden, case), tf_rules.tf_network(golden, case)
    form: CoderAngle = "tf180" if "180" in case else "tf90"
    rule, coder = TF180 if "180" in case else TF, RboxCoder(form, max_log_scale=None)
    for tag in TAGS[case]:
        image = tf_rules.tf_input(golden, tag)
        with torch.inference_mode():
            stages = network(image)
        pooled = replace(rule, stages="refined" if len(stages) > 1 else "last")
        for name, asked in (("det", pooled), ("train_det", replace(rule, score=0.4, max_per_class=100))):
            size = (image.shape[2], image.shape[3])
            (found,) = detect(stages, [size], torch.ones(1, 2), asked, tf_rules.CLASSES, coder)
            boxes, scores, labels = (torch.from_numpy(stored[f"{tag}.{name}.{of}"]) for of in STORED)
            rboxes = convert_boxes(boxes, "tf90", "le90")
            # 0.02 pixels: the README of the stored outputs
            assert_same_set(found, rboxes, scores, labels.long() - 1, 0.02)


@pytest.mark.golden
@pytest.mark.parametrize("model", MMROTATE)
def test_equals_mmrotate(golden: Path, model: str) -> None:
    """From the stored maps of the head on: the networks are held to theirs elsewhere."""
    with np.load(golden / "rotated" / f"model_{model}.npz") as file:
        stored = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind == "f"}
        labels = torch.from_numpy(file["det_labels"])
    with np.load(golden / "rotated" / "anchors.npz") as file:
        form = "le90" if model.endswith("le90") else "oc"
        maps = [file[f"{form}_level{level}"].reshape(*file["featmap_sizes"][level], 45) for level in range(5)]
    # places of the stored, larger maps: which square anchors are turned depends on rounding there
    anchors = [torch.from_numpy(maps[level][: 16 >> level, : 16 >> level].reshape(1, -1, 5)) for level in range(5)]

    def rows(name: str, numbers: int) -> list[Tensor]:
        return [stored[f"{name}{level}"].permute(0, 2, 3, 1).reshape(1, -1, numbers) for level in range(5)]

    output = StageOutput(rows("cls", 15), rows("reg", 5), anchors)
    (found,) = detect([output], [(128, 128)], torch.ones(1, 2), MR, [str(k) for k in range(15)], MMROTATE[model])
    # 10 x the difference that the README gives between float32 and float64 networks, here of stored maps
    assert_same_set(found, stored["det_boxes"], stored["det_scores"], labels, 1e-3)


@pytest.mark.golden
@pytest.mark.parametrize(("model", "last"), [("r3det_oc", 0), ("r3det_refine_oc", 1)])
def test_equals_mmrotates_r3det(golden: Path, model: str, last: int) -> None:
    """From the stored maps and boxes of its last stage on."""
    with np.load(golden / "rotated" / f"model_{model}.npz") as stored:
        maps = [
            [torch.from_numpy(stored[f"stage{last}_{kind}{level}"]).flatten(2).transpose(1, 2) for level in range(5)]
            for kind in ("cls", "reg")
        ]
        anchors = [torch.from_numpy(stored[f"rois{last}_{level}"]).view(1, -1, 5) for level in range(5)]
        boxes, scores, labels = (torch.from_numpy(stored[f"det_{of}"]) for of in ("boxes", "scores", "labels"))
    classes, coder = [str(k) for k in range(15)], RboxCoder("oc-negative")
    (found,) = detect([StageOutput(*maps, anchors)], [(128, 128)], torch.ones(1, 2), MR, classes, coder)
    # 10 x the difference that the README gives between float32 and float64 networks, here of stored maps
    assert_same_set(found, boxes, scores, labels, 1e-3)


def stage(seed: int = 0, pictures: int = 2, levels: tuple[int, ...] = (60, 20, 7), classes: int = 3) -> StageOutput:
    """Random output of a network, with enough over the threshold to make every limit bite."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    centres = [torch.rand(1, count, 2, generator=source) * 100 for count in levels]
    shape = torch.tensor([20.0, 12.0, -1.0])
    return StageOutput(
        logits=[normal(pictures, count, classes) * 2 - 2 for count in levels],
        deltas=[normal(pictures, count, 5) * 0.4 for count in levels],
        anchors=[torch.cat([centre, shape.expand(*centre.shape[:2], 3)], dim=-1) for centre in centres],
    )


CODERS = {
    "le90": RboxCoder("le90", edge_swap=True, proj_xy=True),
    "tf90": RboxCoder("tf90", max_log_scale=None),
    "tf180": RboxCoder("tf180", max_log_scale=None),
}
RULES = (
    TF,
    replace(TF180, max_per_class=2),
    MR,
    DetectRule(per_level=9, per_level_of="anchors", nms=0.3, max_per_class=3, max_detections=5),
)


def plainly(
    output: StageOutput, picture: int, size: Size, scale: tuple[float, float], rule: DetectRule, coder: RboxCoder
) -> list[tuple[float, int, list[float]]]:
    """Return (score, label, corners) by the words of `DetectRule`, one pair after the other."""
    pairs = []
    for logits, deltas, anchors in zip(output.logits, output.deltas, output.anchors, strict=True):
        scores = logits[picture].double().sigmoid().float()
        order = [(float(scores[a, c]), a, c) for a in range(len(scores)) for c in range(3) if scores[a, c] > rule.score]
        if rule.per_level is not None and rule.per_level_of == "anchors":
            best = sorted(range(len(scores)), key=lambda a: -float(scores[a].max()))[: rule.per_level]
            order = [pair for pair in order if pair[1] in best]
        elif rule.per_level is not None:
            order = sorted(order, key=lambda pair: -pair[0])[: rule.per_level]
        clamp = size if rule.centres == "clamped" else None
        boxes = coder.decode(deltas[picture], anchors[0], clamp)
        pairs += [(score, c, boxes[a]) for score, a, c in order]
    if rule.refit == "original-180":
        pairs = [pair for pair in pairs if -math.pi <= pair[2][4] < 0]
    rboxes, kept = coder.to_rbox(torch.stack([box for _, _, box in pairs])), list[int]()
    if rule.refit == "original-180":
        rboxes = polygon_to_rbox_truncated(rbox_to_polygon(rboxes))
    ious = rotated_iou(rboxes, rboxes)
    for k in sorted(range(len(pairs)), key=lambda k: -pairs[k][0]):
        rivals = [j for j in kept if pairs[j][1] == pairs[k][1]]
        if all(ious[j, k] <= rule.nms for j in rivals):
            kept.append(k)
    per_class = rule.max_per_class or len(kept)
    kept = [k for place, k in enumerate(kept) if sum(pairs[j][1] == pairs[k][1] for j in kept[:place]) < per_class]
    answers = []
    for k in kept[: rule.max_detections]:
        corners = rbox_to_polygon(rboxes[k : k + 1].double()) / torch.tensor([*scale] * 4, dtype=torch.float64)
        answers.append((pairs[k][0], pairs[k][1], polygon_to_rbox(corners)[0].tolist()))
    return answers


@pytest.mark.parametrize("form", CODERS)
@pytest.mark.parametrize("rule", RULES)
def test_equals_the_specification_read_plainly(rule: DetectRule, form: str) -> None:
    output, coder = stage(), CODERS[form]
    sizes, scales = [(100, 90), (64, 128)], [(4 / 3, 4 / 3), (1.5, 1.25)]
    for picture, found in enumerate(
        detect([output], sizes, torch.tensor(scales, dtype=torch.float64), rule, "abc", coder)
    ):
        wanted = plainly(output, picture, sizes[picture], scales[picture], rule, coder)
        assert len(found) == len(wanted) > 0
        boxes = torch.tensor([box for _, _, box in wanted])
        scores, labels = torch.tensor([score for score, _, _ in wanted]), torch.tensor([of for _, of, _ in wanted])
        assert_same_set(found, boxes, scores, labels, 1e-3)  # float32 corners of boxes of up to a few hundred pixels


def test_boxes_come_back_in_the_public_form_and_pictures_do_not_mix() -> None:
    output = stage(pictures=3)
    together = detect([output], [(90, 90)] * 3, torch.ones(3, 2), TF, "abc", CODERS["tf180"])
    for picture in range(3):
        one = StageOutput(
            [level[picture : picture + 1] for level in output.logits],
            [level[picture : picture + 1] for level in output.deltas],
            output.anchors,
        )
        (alone,) = detect([one], [(90, 90)], torch.ones(1, 2), TF, "abc", CODERS["tf180"])
        assert alone.boxes.equal(together[picture].boxes)
        assert bool((alone.boxes[:, 2] >= alone.boxes[:, 3]).all())
        assert bool((alone.boxes[:, 4].abs() <= torch.pi / 2).all())


def test_an_iou_equal_to_the_threshold_keeps_or_suppresses() -> None:
    """Two boxes of 24 square pixels each that share 12: an IoU of exactly a third."""
    output = StageOutput(
        [torch.tensor([[[2.0], [1.0]]])],
        [torch.zeros(1, 2, 5)],
        [torch.tensor([[[10.0, 10, 6, 4, 0], [13.0, 10, 6, 4, 0]]])],  # 12 of 36 square pixels shared
    )
    coder = RboxCoder("le90")
    for equal, count in (("keep", 2), ("suppress", 1)):
        rule = DetectRule(nms=1 / 3, nms_equal=equal)  # type: ignore[arg-type]
        assert len(detect([output], [(20, 20)], torch.ones(1, 2), rule, "a", coder)[0]) == count


def test_numbers_that_are_none_and_boxes_without_end_are_dropped() -> None:
    output = stage(levels=(5,), pictures=1)
    output.logits = [torch.full((1, 5, 3), 2.0)]
    output.deltas[0][0, 0, 2] = 1000.0  # exp overflows where nothing clamps it
    output.deltas[0][0, 1, 4] = math.nan
    (found,) = detect([output], [(100, 100)], torch.ones(1, 2), replace(TF, nms=1.0), "abc", CODERS["tf90"])
    assert len(found) == 9
    silent = StageOutput([level - 100 for level in output.logits], output.deltas, output.anchors)
    (found,) = detect([silent], [(100, 100)], torch.ones(1, 2), RULES[1], "abc", CODERS["tf180"])
    assert found.boxes.shape == (0, 5)


@given(st.lists(st.integers(0, 3), max_size=30))
def test_ranks_count_what_came_before(labels: list[int]) -> None:
    wanted = [labels[:k].count(label) for k, label in enumerate(labels)]
    assert rank_in_class(torch.tensor(labels, dtype=torch.int64)).tolist() == wanted


@pytest.mark.parametrize("rule", [TF, MR, replace(TF, per_level=5, max_per_class=3)])
def test_refined_stages_are_pooled_before_nms(rule: DetectRule) -> None:
    """As if the levels of one stage were further levels of the other; the first stage is silent."""
    first, second, third = (stage(seed) for seed in range(3))
    sizes, scales = [(90, 90)] * 2, torch.ones(2, 2)

    def answers(said: list[StageOutput], **changes: Any) -> list[Detections]:
        return detect(said, sizes, scales, replace(rule, **changes), "abc", CODERS["tf90"])

    names = ("logits", "deltas", "anchors")
    both = StageOutput(*([*getattr(second, name), *getattr(third, name)] for name in names))
    for pooled, expected in zip(answers([first, second, third], stages="refined"), answers([both]), strict=True):
        assert len(pooled) > 0
        assert torch.equal(pooled.boxes, expected.boxes)
        assert torch.equal(pooled.scores, expected.scores)
        assert torch.equal(pooled.labels, expected.labels)
    for one, other in zip(answers([first, second], stages="refined"), answers([second]), strict=True):
        assert torch.equal(one.boxes, other.boxes)


def test_faults() -> None:
    with pytest.raises(FocaldetError, match="stages='refined' asks for refine stages, but the model has none; use"):
        detect([stage()], [(90, 90)] * 2, torch.ones(2, 2), replace(TF, stages="refined"), "abc", CODERS["tf90"])
    with pytest.raises(FocaldetError, match="a box has 5 deltas, but no coder of rotated boxes is given"):
        detect([stage()], [(90, 90)] * 2, torch.ones(2, 2), TF, "abc")
    with pytest.raises(FocaldetError, match="max_per_class=0 must be above 0, or None"):
        DetectRule(max_per_class=0)
