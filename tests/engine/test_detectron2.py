"""The recipe of detectron2's RetinaNet beside what detectron2 itself answered with the same made-up weights.

Tolerances are those that the README of the stored outputs advises.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

import focaldet
from focaldet.engine.build import build_decode, build_detect_rule
from focaldet.engine.detector import Detector, as_sample
from focaldet.geometry.hbox import clip_hbox
from focaldet.geometry.nms import nms_hbox
from focaldet.models.weights import from_ours
from focaldet.postprocess.detect import of_pairs, select_pairs
from focaldet.recipes import get_recipe
from focaldet.structures import Batch, StageOutput, Truth, empty_truth
from golden_rules import assert_sampled, picture, sampled, signed

pytestmark = pytest.mark.golden

RECIPE = get_recipe("retinanet_r50_detectron2").replace(batch=2, normalize_over=2)
CASES = {"eval_a": ("a",), "eval_c": ("c",), "eval_pair": ("a", "c")}
OTHER_SIZES = {"a": (319, 400), "c": (134, 200)}
BOXES, SCORES = 0.02, 1e-5
GAINS = {
    "stem.conv1": 1 / 64,
    "fpn_lateral": 0.6,
    "fpn_output": 1.0,
    "p6": 1.2,
    "p7": 1.3,
    "cls_score": 1.0,
    "bbox_pred": 0.6,
}


def made_up(key: str, shape: list[int]) -> Tensor:
    """One entry of the state dict by its name (README, "The weight rule")."""
    s = signed(key, math.prod(shape)).reshape(shape)
    if key.endswith("running_mean"):
        values = 0.1 * s
    elif key.endswith("running_var"):
        values = 1 + 0.25 * s
    elif len(shape) == 4:
        gain = next((gain for part, gain in GAINS.items() if part in key), math.sqrt(2))
        values = s * (math.sqrt(3) * gain / math.sqrt(math.prod(shape[1:])))
    elif key.endswith(".norm.weight"):
        values = (0.3 if ".conv3." in key else 0.7 if ".shortcut." in key else 1.0) * (1 + 0.2 * s)
    elif key.endswith(".norm.bias"):
        values = 0.1 * s
    else:
        values = -4.5 + 0.5 * s if "cls_score" in key else 0.05 * s
    return torch.from_numpy(np.asarray(values, np.float32))


@pytest.fixture(scope="module")
def stored(golden: Path) -> Any:
    return np.load(golden / "detectron2" / "retinanet_r50.npz")


@pytest.fixture(scope="module")
def units(golden: Path) -> Any:
    return np.load(golden / "detectron2" / "units.npz")


@pytest.fixture(scope="module")
def weights(stored: Any) -> dict[str, Tensor]:
    shapes = [[int(side) for side in shape.split("x")] for shape in stored["state.shapes"].tolist()]
    return {key: made_up(key, shape) for key, shape in zip(stored["state.keys"].tolist(), shapes, strict=True)}


@pytest.fixture(scope="module")
def detector(weights: dict[str, Tensor]) -> Detector:
    return focaldet.load(RECIPE, weights=weights)


def rgb(name: str) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(picture(name)[:, :, ::-1])


def batch_of(detector: Detector, names: tuple[str, ...], sizes: dict[str, tuple[int, int]] | None = None) -> Batch:
    samples = [as_sample(rgb(name), index) for index, name in enumerate(names)]
    for sample, name in zip(samples, names, strict=True):
        height, width = sizes[name] if sizes else sample.size
        sample.scale = sample.size[1] / width, sample.size[0] / height
    return detector._collate_bare(samples)


@dataclass(frozen=True)
class Seen:
    """What our network says of a case."""

    batch: Batch
    maps: list[Tensor]
    pyramid: list[Tensor]
    stage: StageOutput


@pytest.fixture(scope="module")
def seen(detector: Detector) -> dict[str, Seen]:
    result = {}
    for case, names in CASES.items():
        batch = batch_of(detector, names)
        with torch.inference_mode():
            maps, pyramid = detector.model.features(batch.images)
            stage = StageOutput(*detector.model.head(pyramid), detector.model.anchors_of(pyramid))
        result[case] = Seen(batch, maps, pyramid, stage)
    return result


def in_their_order(rows: Tensor, permutation: Any) -> Tensor:
    """(B, places * 9, K) with the anchors of a place as detectron2 counts them."""
    return rows.unflatten(1, (-1, 9))[:, :, permutation].flatten(1, 2)


def as_map(rows: Tensor, level: int, batch: Batch, permutation: Any) -> Tensor:
    height, width = (-(-side // 2**level) for side in batch.images.shape[-2:])
    return in_their_order(rows, permutation).reshape(len(rows), height, width, -1).permute(0, 3, 1, 2)


# --- the network ---
def test_the_weights_are_those_that_were_used(stored: Any, weights: dict[str, Tensor], detector: Detector) -> None:
    sums = [value.double().sum().item() for value in weights.values()]
    np.testing.assert_allclose(sums, stored["state.sums"], rtol=1e-9, atol=1e-9)
    parameters = [
        item for name, item in detector.model.named_parameters() if ".bn" not in name and ".downsample.1." not in name
    ]
    trained = sum(item.numel() for item in parameters if item.requires_grad)
    assert [sum(item.numel() for item in parameters), trained] == stored["param.count"].tolist()


@pytest.mark.parametrize("case", CASES)
def test_every_map(stored: Any, units: Any, seen: dict[str, Seen], case: str) -> None:
    batch, maps, pyramid, stage = seen[case].batch, seen[case].maps, seen[case].pyramid, seen[case].stage
    assert_sampled(stored, f"{case}.input", batch.images.contiguous(), 0)
    if case == "eval_a":
        for level, item in enumerate(maps, 3):
            assert_sampled(stored, f"eval_a.c{level}", item.contiguous(), 1e-4)
        for level, item in enumerate(pyramid, 3):
            assert_sampled(stored, f"eval_a.p{level}", item.contiguous(), 1e-4)
    for level, (logits, deltas) in enumerate(zip(stage.logits, stage.deltas, strict=True), 3):
        assert_sampled(
            stored, f"{case}.cls{level}", as_map(logits, level, batch, units["permutation"]).contiguous(), 1e-4
        )
        assert_sampled(
            stored, f"{case}.reg{level}", as_map(deltas, level, batch, units["permutation"]).contiguous(), 1e-4
        )
    over = [[int((level[index].sigmoid() > 0.05).sum()) for level in stage.logits] for index in range(len(batch.sizes))]
    assert np.abs(np.array(over) - stored[f"{case}.over_threshold"]).max() <= 2


@pytest.mark.parametrize("case", CASES)
def test_detections(stored: Any, detector: Detector, seen: dict[str, Seen], case: str) -> None:
    names = CASES[case]
    # once by the folded network, which is what predicts
    stages = detector.forward(seen[case].batch.images) if case == "eval_c" else [seen[case].stage]
    for part, sizes in (("", None), (".rescaled", OTHER_SIZES)):
        found = detector.detect(batch_of(detector, names, sizes), stages)
        for name, answer in zip(names, found, strict=True):
            key = f"{case}.det{f'.{name}' if len(names) > 1 else ''}{part}"
            assert answer.labels.tolist() == stored[f"{key}.labels"].tolist(), key
            np.testing.assert_allclose(answer.scores, stored[f"{key}.scores"], rtol=0, atol=SCORES, err_msg=key)
            np.testing.assert_allclose(answer.boxes, stored[f"{key}.boxes"], rtol=0, atol=BOXES, err_msg=key)


def test_an_answer_can_lose_boxes_after_the_limit(stored: Any, detector: Detector, seen: dict[str, Seen]) -> None:
    found = detector.detect(seen["eval_a"].batch, [seen["eval_a"].stage])[0]
    assert len(found) == 99 < len(stored["eval_a.all.scores"])


@pytest.mark.parametrize("case", ["eval_a", "eval_c"])
@pytest.mark.parametrize(("part", "score"), [("all", None), ("few", 0.35)])
def test_detections_without_a_limit(
    stored: Any, detector: Detector, seen: dict[str, Seen], case: str, part: str, score: float | None
) -> None:
    found = detector.with_answers(score, 10**6).detect(seen[case].batch, [seen[case].stage])[0]
    boxes, scores, labels = (stored[f"{case}.{part}.{name}"] for name in ("boxes", "scores", "labels"))
    assert len(found) == len(scores)
    for box, value, label in zip(boxes, scores, labels, strict=True):
        near = (found.labels.numpy() == label) & (np.abs(found.boxes.numpy() - box).max(axis=1) <= BOXES)
        assert (near & (np.abs(found.scores.numpy() - value) <= SCORES)).any()


@pytest.mark.parametrize("case", ["eval_a", "eval_c"])
def test_boxes_before_they_are_clipped(stored: Any, seen: dict[str, Seen], case: str) -> None:
    boxes, scores, labels = candidates(seen[case].stage)
    kept = nms_hbox(boxes, scores, labels, RECIPE.nms)[:100]
    assert labels[kept].tolist() == stored[f"{case}.raw.labels"].tolist()
    np.testing.assert_allclose(scores[kept], stored[f"{case}.raw.scores"], rtol=0, atol=SCORES)
    np.testing.assert_allclose(boxes[kept], stored[f"{case}.raw.boxes"], rtol=0, atol=BOXES)
    assert not torch.equal(boxes[kept], clip_hbox(boxes[kept], seen[case].batch.sizes[0]))


def candidates(output: StageOutput) -> tuple[Tensor, Tensor, Tensor]:
    pairs = select_pairs(output.logits, build_detect_rule(RECIPE))
    return build_decode(RECIPE)(*of_pairs(output, pairs)), pairs.scores, pairs.labels


@pytest.mark.parametrize("case", ["eval_a", "eval_c"])
def test_candidates_of_each_level(stored: Any, seen: dict[str, Seen], case: str) -> None:
    counts = [int((level.sigmoid() > 0.35).sum()) for level in seen[case].stage.logits]
    assert counts == stored[f"{case}.few.candidates"].tolist()


# --- training ---
def training_case(units: Any, case: str) -> list[Truth]:
    known = {"train_mixed": ("a", None), "train_empty": (None, None)}.get(case, ("a", "c"))
    return [truth_of(units, name) for name in known]


def truth_of(units: Any, name: str | None) -> Truth:
    if name is None:
        return empty_truth()
    rows = units[f"gt.{name}"]
    return Truth(torch.from_numpy(rows[:, :4].astype(np.float32)), torch.from_numpy(rows[:, 4].astype(np.int64)))


def training_batch(detector: Detector, units: Any, case: str) -> Batch:
    truths = training_case(units, case)
    return detector._collate(
        [as_sample(rgb(name), index, truth) for index, (name, truth) in enumerate(zip("ac", truths, strict=True))]
    )


@pytest.mark.parametrize("case", ["train_pair", "train_mixed", "train_empty"])
def test_what_the_anchors_are_told(stored: Any, units: Any, detector: Detector, case: str) -> None:
    batch = training_batch(detector, units, case)
    targets = batch.targets
    assert targets is not None and targets.valid is None
    total, p = targets.num_anchors, torch.from_numpy(units["permutation"])
    place = targets.positives // 9 * 9 + p[targets.positives % 9]  # in their order
    labels = torch.full((2 * total,), 80)
    labels[targets.ignored // 9 * 9 + p[targets.ignored % 9]] = -1
    labels[place] = targets.labels
    assert torch.equal(labels.reshape(2, -1), torch.from_numpy(stored[f"{case}.labels"]).long())
    order = place.argsort()
    assert torch.equal(
        torch.stack([place // total, place % total], 1)[order], torch.from_numpy(stored[f"{case}.pos"]).long()
    )
    matched = torch.from_numpy(stored[f"{case}.matched"]).long().flatten()
    assert torch.equal(targets.truths, matched[place])
    np.testing.assert_allclose(targets.deltas[order], stored[f"{case}.pos_deltas"], rtol=0, atol=1e-6)
    boxes = [truth.boxes for truth in batch.truths]
    owned = [
        boxes[int(which) // total][int(truth)] for which, truth in zip(place[order], targets.truths[order], strict=True)
    ]
    assert [box.tolist() for box in owned] == stored[f"{case}.pos_boxes"].tolist()


LOSSES: dict[str, dict[str, Any]] = {
    "train_pair": {},
    "train_mixed": {},
    "train_empty": {},
    "train_beta": {"box_loss": "smooth_l1", "box_beta": 0.1},
    "train_giou": {"box_loss": "giou"},
    "train_diou": {"box_loss": "diou"},
    "train_ciou": {"box_loss": "ciou"},
}


@pytest.mark.parametrize("case", LOSSES)
def test_losses_and_the_average_that_divides_them(
    stored: Any, units: Any, detector: Detector, seen: dict[str, Seen], case: str
) -> None:
    own = Detector(RECIPE.replace(**LOSSES[case]), detector.model)
    batch = training_batch(own, units, case)
    assert batch.targets is not None
    assert int(batch.targets.num_positives.sum()) == int(stored[f"{case}.num_pos"])
    with torch.no_grad():
        for call in range(2):
            losses = own._criterion([seen["eval_pair"].stage], [batch.targets])
            assert own._criterion.average.values[0].item() == stored[f"{case}.normalizer"][call]
            assert losses["class"].item() == pytest.approx(float(stored[f"{case}.loss_cls"][call]), rel=1e-5)
            assert losses["box"].item() == pytest.approx(float(stored[f"{case}.loss_box_reg"][call]), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("case", LOSSES)
def test_gradients(stored: Any, units: Any, weights: dict[str, Tensor], case: str) -> None:
    own = focaldet.load(RECIPE, weights=weights, **LOSSES[case])
    own.model.train()
    own.losses([rgb("a"), rgb("c")], training_case(units, case))["loss"].backward()
    gradients = {name: item.grad for name, item in own.model.named_parameters() if item.grad is not None}
    theirs = from_ours(gradients, "detectron2")
    expected = dict(zip(stored[f"{case}.grad_names"].tolist(), stored[f"{case}.grad_norms"].tolist(), strict=True))
    assert {name for name, value in theirs.items() if float(value.norm()) > 0} <= set(expected)
    for name, norm in expected.items():
        found = float(theirs[name].double().norm()) if name in theirs else 0.0
        assert found == pytest.approx(norm, rel=2e-3, abs=1e-9), name
    for key in [
        key for key in stored.files if key.startswith("train_pair.grad.") and not key.endswith(("shape", "stats"))
    ]:
        if case == "train_pair":
            gradient = theirs[key.removeprefix("train_pair.grad.")]
            largest = float(np.abs(stored[f"{key}.stats"][2:4] if f"{key}.stats" in stored else stored[key]).max())
            np.testing.assert_allclose(sampled(gradient, 512), stored[key], rtol=0, atol=5e-3 * largest, err_msg=key)


# --- with weights and answers turned into each other's ---
def test_weights_go_back_under_detectron2s_names(weights: dict[str, Tensor], detector: Detector) -> None:
    back = from_ours(detector.model.state_dict(), "detectron2")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)
