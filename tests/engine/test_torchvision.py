"""The recipes of torchvision's networks beside torchvision's networks, with the same made-up weights."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2

import focaldet
from focaldet.engine.build import build_model, build_steps
from focaldet.engine.detector import Detector, as_sample
from focaldet.engine.weights import read_weights
from focaldet.models.neighbours import COCO_CHANNELS, COCO_NUMBERS, SILENT
from focaldet.models.weights import from_ours
from focaldet.recipes import Recipe, get_recipe
from focaldet.structures import Batch, Truth, empty_truth

Picture = npt.NDArray[np.uint8]
SIZES = {"sizes": ((200, 120),), "test_size": (200, 120)}
RECIPES = {name: get_recipe(f"retinanet_r50_{name}").replace(**SIZES) for name in ("torchvision", "torchvision-v2")}
UNUSED = sorted({*range(COCO_CHANNELS)} - {*COCO_NUMBERS})


def shaken(network: nn.Module) -> nn.Module:
    """Made-up weights under which maps keep their size through the layers and some answers are found."""
    generator = torch.Generator().manual_seed(5)

    def noise(value: Tensor) -> Tensor:
        return torch.rand(value.shape, generator=generator) * 2 - 1

    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(1 + 0.25 * noise(value))
        elif value.ndim == 4:
            value.copy_(noise(value) * (6 / value[0].numel()) ** 0.5)
        elif value.is_floating_point() and "bn3" in name and name.endswith("weight"):
            value.copy_(0.3 + 0.1 * noise(value))
        elif value.is_floating_point():
            value.add_(0.05 * noise(value))
    logits = network.get_submodule("head.classification_head.cls_logits")
    logits.weight.data.mul_(0.4 if "conv.0.1.weight" in "".join(network.state_dict()) else 0.03)
    logits.bias.data.view(9, -1).fill_(-4.0)[:, UNUSED] = SILENT  # what torchvision never taught, and we have not
    network.get_submodule("head.regression_head.bbox_reg").weight.data.mul_(0.1)
    return network


def theirs_of(name: str) -> Any:
    build = retinanet_resnet50_fpn if name == "torchvision" else retinanet_resnet50_fpn_v2
    network = build(weights=None, weights_backbone=None, min_size=120, max_size=200)
    if name == "torchvision":
        for module in network.modules():  # as torchvision does with its published weights
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 0.0
    return shaken(network).eval()


@pytest.fixture(scope="module", params=RECIPES)
def pair(request: pytest.FixtureRequest) -> tuple[Any, Detector]:
    """torchvision's network, and ours with its weights."""
    theirs = theirs_of(request.param)
    return theirs, focaldet.load(RECIPES[request.param], weights=theirs.state_dict())


def pictures() -> list[Picture]:
    rng = np.random.default_rng(2)
    coarse = [rng.integers(0, 256, (9, 13, 3)), rng.integers(0, 256, (14, 8, 3))]
    return [np.kron(item, np.ones((16, 16, 1))).astype(np.uint8)[:140, :205] for item in coarse]


def as_theirs(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.copy()).permute(2, 0, 1).float() / 255


def truths() -> list[Truth]:
    boxes = [[[10.0, 12, 60, 90], [100, 30, 190, 120], [52, 58, 70, 72]], [[20, 10, 100, 130]]]
    labels = [[0, 79, 11], [45]]
    return [Truth(torch.tensor(some), torch.tensor(which)) for some, which in zip(boxes, labels, strict=True)]


def batch_of(detector: Detector, known: Sequence[Truth | None] = (None, None)) -> Batch:
    steps = build_steps(detector.recipe, train=False)
    samples = [as_sample(item, index, truth) for index, (item, truth) in enumerate(zip(pictures(), known, strict=True))]
    return detector._collate([steps(sample, np.random.default_rng(0)) for sample in samples])


def targets_of(truth: Truth) -> dict[str, Tensor]:
    """Truth as torchvision has it, whose labels are COCO's numbers."""
    return {"boxes": truth.boxes, "labels": torch.tensor(COCO_NUMBERS)[truth.labels]}


def outputs_of(theirs: Any, targets: list[dict[str, Tensor]] | None = None) -> tuple[Any, Any, list[Tensor], Any]:
    """Input, head outputs, anchors and targets of torchvision's network."""
    images, targets = theirs.transform([as_theirs(item) for item in pictures()], targets)
    features = list(theirs.backbone(images.tensors).values())
    return images.tensors, theirs.head(features), theirs.anchor_generator(images, features), targets


def assert_near(ours: Tensor, theirs: Tensor, rounding: float = 1e-5) -> None:
    """Equal but for `rounding` of the largest: float32 has 6e-8, and fifty layers of sums lose two digits."""
    torch.testing.assert_close(ours, theirs, rtol=0, atol=rounding * float(theirs.abs().max()))


def test_input_logits_deltas_and_anchors(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    batch = batch_of(ours)
    with torch.no_grad():
        images, said, anchors, _ = outputs_of(theirs)
        logits, deltas, our_anchors = ours.model(batch.images)[0].flat()
    assert_near(batch.images, images, 1e-6)
    assert torch.equal(our_anchors[0], anchors[0])
    assert_near(logits, said["cls_logits"][:, :, COCO_NUMBERS])
    assert_near(deltas, said["bbox_regression"])


def test_losses(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    with torch.no_grad():
        _, said, anchors, targets = outputs_of(theirs, [targets_of(truth) for truth in truths()])
        expected = theirs.compute_loss(targets, said, anchors)
        batch = batch_of(ours, truths())
        assert batch.targets is not None
        assert batch.targets.num_positives.tolist() != [0, 0]
        losses = ours._criterion(ours.model(batch.images), [batch.targets])
    assert losses["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)
    assert losses["box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)


def test_losses_with_an_object_that_meets_no_anchor(pair: tuple[Any, Detector]) -> None:
    """Its best IoU is 0, for which all anchors tie: all of the picture are positive there."""
    theirs, ours = pair
    far = truths()
    far[0] = Truth(torch.cat([far[0].boxes, torch.tensor([[3000.0, 3000, 3100, 3100]])]), torch.tensor([0, 79, 11, 7]))
    with torch.no_grad():
        _, said, anchors, targets = outputs_of(theirs, [targets_of(truth) for truth in far])
        expected = theirs.compute_loss(targets, said, anchors)
        batch = batch_of(ours, known=far)
        assert batch.targets is not None
        assert batch.targets.num_positives[0] == len(anchors[0])
        losses = ours._criterion(ours.model(batch.images), [batch.targets])
    assert losses["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)
    assert losses["box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)


@pytest.mark.slow
def test_losses_of_pictures_without_objects(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    none = empty_truth()
    with torch.no_grad():
        _, said, anchors, _ = outputs_of(theirs)
        empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
        expected = theirs.compute_loss([empty, empty], said, anchors)
        samples = [as_sample(item, index, none) for index, item in enumerate(pictures())]
        steps = build_steps(ours.recipe, train=False)
        batch = ours._collate([steps(sample, np.random.default_rng(0)) for sample in samples])
        assert batch.targets is not None
        losses = ours._criterion(ours.model(batch.images), [batch.targets])
    assert losses["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)
    assert losses["box"].item() == 0


@pytest.mark.slow
def test_gradients(pair: tuple[Any, Detector]) -> None:
    """In float64: in float32 a ReLU whose input is rounded to the other side of zero moves gradients by a per cent."""
    theirs, detector = pair
    theirs, ours = copy.deepcopy(theirs).double(), copy.deepcopy(detector.model).double()
    batch = batch_of(detector, truths())
    assert batch.targets is not None
    images, targets = theirs.transform(
        [as_theirs(item) for item in pictures()], [targets_of(item) for item in truths()]
    )
    features = list(theirs.backbone(batch.images.double()).values())
    anchors = [item.double() for item in theirs.anchor_generator(images, features)]
    sum(theirs.compute_loss(targets, theirs.head(features), anchors).values()).backward()
    detector._criterion(ours(batch.images.double()), [batch.targets])["loss"].backward()
    named = read_weights({name: item.grad for name, item in theirs.named_parameters() if item.grad is not None}).state
    own = {name: item.grad for name, item in ours.named_parameters() if item.grad is not None}
    assert len(own) > 50 and own.keys() <= named.keys()
    for name, gradient in own.items():
        # anchors, targets and our normalizer are float32
        assert float((gradient - named[name]).norm()) <= 1e-6 * float(named[name].norm()) + 1e-9, name


def test_detections(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    for picture in pictures():
        with torch.no_grad():
            (expected,) = theirs([as_theirs(picture)])
        found = ours.predict(picture)
        assert len(found) == len(expected["boxes"]) == 300
        numbers = torch.tensor(COCO_NUMBERS)[found.labels]
        torch.testing.assert_close(found.scores, expected["scores"], rtol=0, atol=5e-6)
        near = (found.boxes[:, None] - expected["boxes"]).abs().amax(2) < 2e-3
        near &= numbers[:, None] == expected["labels"]
        near &= (found.scores[:, None] - expected["scores"]).abs() < 5e-6
        # neighbours of nearly one score may change places, and with them who is the last
        assert int((~near.any(0)).sum()) <= 1


@pytest.mark.slow
def test_our_weights_run_in_torchvision(pair: tuple[Any, Detector]) -> None:
    theirs, ours = pair
    other = theirs_of("torchvision-v2" if ours.recipe.head_norm != "none" else "torchvision")
    for value in other.state_dict().values():
        value.zero_()
    other.load_state_dict(from_ours(ours.model.state_dict(), "torchvision"), strict=True)
    with torch.no_grad():
        one, two = (network([as_theirs(pictures()[0])])[0] for network in (theirs, other))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.slow
def test_batch_norms_of_v2_follow_each_batch_as_theirs_do() -> None:
    """With the stem's and layer1's weights frozen, whose statistics torchvision goes on to follow."""
    theirs = theirs_of("torchvision-v2").train()
    ours = focaldet.load(RECIPES["torchvision-v2"], weights=theirs.state_dict())
    ours.model.train()
    expected = theirs([as_theirs(item) for item in pictures()], [targets_of(truth) for truth in truths()])
    batch = batch_of(ours, truths())
    assert batch.targets is not None
    losses = ours._criterion(ours.model(batch.images), [batch.targets])
    assert losses["class"].item() == pytest.approx(expected["classification"].item(), rel=1e-5)
    assert losses["box"].item() == pytest.approx(expected["bbox_regression"].item(), rel=1e-5)
    ours_after, theirs_after = ours.model.state_dict(), theirs.state_dict()
    for name in ("bn1.running_mean", "layer1.0.bn2.running_var", "layer4.2.bn3.running_mean"):
        assert_near(ours_after[f"backbone.body.{name}"], theirs_after[f"backbone.body.{name}"], 1e-4)


@pytest.mark.parametrize(("name", "count"), [("torchvision", 34_014_999), ("torchvision-v2", 38_198_935)])
def test_parameters_are_as_many_as_torchvisions(name: str, count: int) -> None:
    """With the 91 channels of torchvision, of which we have 80."""
    with torch.device("meta"):
        model = build_model(RECIPES[name])
    ours = sum(item.numel() for item in model.parameters())
    norms = (
        0
        if name == "torchvision-v2"
        else sum(item.numel() for key, item in model.named_parameters() if ".bn" in key or ".downsample.1." in key)
    )
    unused = 11 * 9 * (256 * 9 + 1)
    assert ours - norms + unused == count


def test_a_recipe_says_what_torchvision_does() -> None:
    recipe: Recipe = RECIPES["torchvision-v2"]
    assert (recipe.p6_from, recipe.head_norm, recipe.box_loss) == ("c5", "group-no-bias", "giou")
