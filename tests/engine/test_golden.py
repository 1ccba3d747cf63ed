"""The whole detector beside the reference's stored outputs: losses, gradients, two steps of SGD, final detections.

Tolerances are ten times the float32/float64 differences that the README of the stored outputs lists, or less.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from focaldet.engine.build import build_criterion, build_optimizer
from focaldet.engine.detector import Detector, as_sample
from focaldet.models.weights import from_ours
from focaldet.recipes import Recipe, get_recipe
from focaldet.structures import Batch, Truth
from golden_rules import golden_network, golden_state, picture, sampled, stored_model

pytestmark = pytest.mark.golden

RECIPES = {
    "r18_pytorch": get_recipe("retinanet_r50_1x_coco").replace(backbone="resnet18"),
    "r50_pytorch": get_recipe("retinanet_r50_1x_coco"),
    "r50_caffe": get_recipe("retinanet_r50-caffe_1x_coco"),
    "r101_pytorch": get_recipe("retinanet_r101_1x_coco"),
    "r101_caffe": get_recipe("retinanet_r101-caffe_1x_coco"),
    "x101_64x4d": get_recipe("retinanet_x101-64x4d_1x_coco"),
}
MODELS = [pytest.param(name, marks=[] if name.startswith("r18") else pytest.mark.slow) for name in RECIPES]
FULL = [model for model in MODELS if model.values[0] in ("r18_pytorch", "r50_pytorch", "r50_caffe")]
WITH_STEPS = [pytest.param("r50_pytorch", marks=pytest.mark.slow), pytest.param("r50_caffe", marks=pytest.mark.slow)]
EVERYTHING = 10**6
SCALES = {"a": (0.8, 0.80125), "c": (1.5, 1.4925373134328359)}


def detector_of(model: str) -> Detector:
    return Detector(RECIPES[model], golden_network(model))


def rgb(name: str) -> np.ndarray[Any, Any]:
    return np.ascontiguousarray(picture(name)[:, :, ::-1])


def truth_of(units: Any, name: str | None) -> Truth:
    """Objects of a picture (None: none at all) and the crowd box that must change nothing."""
    rows = units[f"gt.{name}"] if name else np.zeros((0, 5))
    crowd = units["gt.ignored"]
    boxes = np.concatenate([rows[:, :4], crowd[:, :4]]).astype(np.float32)
    labels = np.concatenate([rows[:, 4], crowd[:, 4]]).astype(np.int64)
    ignored = torch.tensor([False] * len(rows) + [True] * len(crowd))
    return Truth(torch.from_numpy(boxes), torch.from_numpy(labels), ignored)


def training_case(units: Any, case: str) -> tuple[list[Any], list[Truth]]:
    known = {"train_pair": ("a", "c"), "train_mixed": ("a", None), "train_empty": (None, None)}[case]
    return [rgb("a"), rgb("c")], [truth_of(units, name) for name in known]


@pytest.fixture(scope="module")
def units(golden: Path) -> Any:
    return np.load(golden / "coco" / "units.npz")


@pytest.mark.parametrize("case", ["train_pair", "train_mixed", "train_empty"])
@pytest.mark.parametrize("model", MODELS)
def test_losses_and_gradients(golden: Path, units: Any, model: str, case: str) -> None:
    stored = stored_model(golden, model)
    if f"{case}.loss" not in stored:
        assert case != "train_pair"
        return
    detector = detector_of(model)
    detector.model.train()
    losses = detector.losses(*training_case(units, case))
    got = [losses[name].item() for name in ("loss", "class", "box")]
    np.testing.assert_allclose(got, stored[f"{case}.loss"], rtol=2.9e-6, atol=1e-12)

    losses["loss"].backward()
    gradients = {name: p.grad for name, p in detector.model.named_parameters() if p.grad is not None}
    published = dict(
        zip(from_ours({name: torch.empty(0) for name in gradients}, "mmdetection"), gradients, strict=True)
    )
    # a batch without truth moves the box tower by nothing: no gradient and a gradient of zero are the same to it
    norms = {name: float(gradients[ours].double().norm()) for name, ours in published.items()}
    expected = dict(zip(stored[f"{case}.grad_names"].tolist(), stored[f"{case}.grad_norms"].tolist(), strict=True))
    assert {name for name, norm in norms.items() if norm > 0} <= set(expected)
    for name, norm in expected.items():
        assert norms.get(name, 0.0) == pytest.approx(norm, rel=2.5e-3, abs=1e-9), name
    if case == "train_pair":
        assert set(norms) == set(expected)
        kept = [name for name in published if f"train_pair.grad.{name}" in stored]
        assert len(kept) > 10
        for name in kept:
            check_gradient(stored, name, gradients[published[name]])


def check_gradient(stored: Any, name: str, gradient: Tensor) -> None:
    expected = stored[f"train_pair.grad.{name}"]
    # ReLUs at zero that switch move single elements by up to 3.3e-3 of the array's largest
    largest = np.abs(stored[f"train_pair.grad.{name}.stats"][2:4] if gradient.numel() > 512 else expected).max()
    np.testing.assert_allclose(sampled(gradient, 512), expected, rtol=0, atol=5e-3 * largest, err_msg=name)


@pytest.mark.parametrize("case", ["train_pair", "train_mixed", "train_empty"])
@pytest.mark.parametrize("model", MODELS)
def test_losses_of_each_level(golden: Path, units: Any, model: str, case: str) -> None:
    stored = stored_model(golden, model)
    if f"{case}.loss" not in stored:
        assert case != "train_pair"
        return
    detector = detector_of(model)
    batch = batch_of(detector, *training_case(units, case))
    with torch.no_grad():
        stage = detector.model(batch.images)[0]
        assert batch.targets is not None
        class_losses, box_losses = build_criterion(detector.recipe).per_level(stage, batch.targets)
    # a level's loss can be a thousandth of the whole, whose rounding it shares
    scale = float(stored[f"{case}.loss"][0])
    np.testing.assert_allclose(class_losses.numpy(), stored[f"{case}.loss_cls"], rtol=2.9e-6, atol=2.9e-7 * scale)
    np.testing.assert_allclose(box_losses.numpy(), stored[f"{case}.loss_bbox"], rtol=2.9e-6, atol=2.9e-7 * scale)


def batch_of(detector: Detector, images: list[Any], truths: list[Truth | None]) -> Batch:
    return detector._collate(
        [as_sample(image, index, truth) for index, (image, truth) in enumerate(zip(images, truths, strict=True))]
    )


@pytest.mark.parametrize("model", WITH_STEPS)
def test_two_steps_of_sgd(golden: Path, units: Any, model: str) -> None:
    """The recipe's optimizer, with rate and decay as the README says, so that decay of norms and biases shows."""
    stored = stored_model(golden, model)
    detector = Detector(RECIPES[model].replace(lr=1e-6, weight_decay=100.0), golden_network(model))
    detector.model.train()
    optimizer = build_optimizer(detector.recipe, detector.model)
    figures = []
    for step in range(3):
        losses = detector.losses(*training_case(units, "train_pair"))
        figures.append([losses[name].item() for name in ("loss", "class", "box")])
        if step < 2:
            optimizer.zero_grad()
            losses["loss"].backward()
            optimizer.step()
    np.testing.assert_allclose(figures, stored["sgd.losses"], rtol=2e-6)
    state = detector.model.state_dict()
    published = dict(
        zip(from_ours({name: torch.empty(0) for name in state}, "mmdetection"), state.values(), strict=True)
    )
    for name, total, norm in zip(stored["state.keys"].tolist(), stored["sgd.sums"], stored["sgd.norms"], strict=True):
        values = published[name].double()
        assert float(values.norm()) == pytest.approx(float(norm), rel=1e-6), name
        # a sum of n elements of rounding 1e-7 each, of which signs cancel
        assert float(values.sum()) == pytest.approx(
            float(total), abs=1e-6 * float(norm) * values.numel() ** 0.5 + 1e-12
        ), name


@pytest.mark.parametrize("model", FULL)
def test_one_picture(golden: Path, model: str) -> None:
    stored = stored_model(golden, model)
    for name in ("a", "b"):
        check_detections(stored, f"eval_{name}", model, [name])


@pytest.mark.parametrize("model", MODELS)
def test_a_batch_of_two(golden: Path, model: str) -> None:
    stored = stored_model(golden, model)
    if "eval_pair.det.a.boxes" in stored:
        check_detections(stored, "eval_pair", model, ["a", "c"])
    else:
        check_detections(stored, "eval_a", model, ["a"])


def check_detections(stored: Any, case: str, model: str, names: list[str]) -> None:
    recipe = RECIPES[model]
    whole = Detector(recipe, golden_network(model))
    for kind, limit in (("det", recipe.max_detections), ("all", EVERYTHING)):
        detector = whole.with_answers(None, limit)
        samples = [as_sample(rgb(name), index) for index, name in enumerate(names)]
        plain = detector.detect(detector._collate_bare(samples))
        for name, found in zip(names, plain, strict=True):
            part = f"{case}.{kind}" + (f".{name}" if len(names) > 1 else "")
            check_list(stored, part, found, ordered=kind == "det")
        if len(names) > 1:
            for sample, name in zip(samples, names, strict=True):
                sample.scale = SCALES[name]
            for name, found in zip(names, detector.detect(detector._collate_bare(samples)), strict=True):
                check_list(stored, f"{case}.{kind}.{name}.rescaled", found, ordered=kind == "det")


def check_list(stored: Any, part: str, found: Any, *, ordered: bool) -> None:
    boxes, scores, labels = (stored[f"{part}.{name}"] for name in ("boxes", "scores", "labels"))
    places = [place_of(found, box, score, label) for box, score, label in zip(boxes, scores, labels, strict=True)]
    missing = places.count(None)
    # of the long lists one box of 1,327 differs between float32 and float64: rounding decides on its survival
    assert missing <= (0 if ordered else 2), part
    assert abs(len(found.scores) - len(scores)) <= (0 if ordered else 2), part
    order = scores[np.argsort([place for place in places if place is not None])] if ordered else scores
    # two scores of r18's picture b are neighbours in float32: they may change places, no others
    assert (np.diff(order) <= 1e-6).all(), part


def place_of(found: Any, box: Any, score: float, label: int) -> int | None:
    """The position of a stored detection among ours."""
    near = (found.labels.numpy() == label) & (np.abs(found.boxes.numpy() - box).max(axis=1) < 0.017)
    near &= np.abs(found.scores.numpy() - score) < 8e-6
    return int(near.argmax()) if near.any() else None


def test_every_recipe_of_the_table_takes_the_published_keys() -> None:
    """The state dict that the rule fills is the recipe's own."""
    for model, recipe in RECIPES.items():
        if model.startswith("r18"):
            assert isinstance(recipe, Recipe)
            network = golden_network(model)
            assert golden_state(network, model).keys() == network.state_dict().keys()
