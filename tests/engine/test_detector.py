"""`focaldet.load` and what it returns: from any source, on any kind of picture, with losses and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch

import focaldet
from focaldet.engine.detector import Detector
from focaldet.errors import FocaldetError, UsageError
from focaldet.models.weights import from_ours
from focaldet.results.detections import Detections
from focaldet.structures import Truth

TINY: dict[str, Any] = {"classes": ("red", "blue"), "test_size": (96, 64)}
ROW: dict[str, Any] = {**TINY, "backbone": "resnet18", "neck_channels": 16, "head_channels": 16}


def truth(*boxes: tuple[float, ...], labels: tuple[int, ...] = (1,), **rest: Any) -> Truth:
    return Truth(torch.tensor(boxes), torch.tensor(labels), **rest)


def noise(height: int = 64, width: int = 96, channels: int = 3) -> Any:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), dtype=np.uint8)


def assert_equal(one: Detections, other: Detections) -> None:
    for mine, theirs in zip(one.numpy(), other.numpy(), strict=True):
        assert np.array_equal(mine, theirs)
    assert one.classes == other.classes


@pytest.fixture(scope="module")
def detector(unbroken: Any) -> Detector:
    return focaldet.load(unbroken[0].folder)


@pytest.fixture(scope="module")
def picture(data: Path) -> Any:
    return np.array(PIL.Image.open(data / "images" / "1.png"))


# --- sources ---
def test_every_file_of_a_run_is_a_source(detector: Detector, unbroken: Any, picture: Any) -> None:
    folder = unbroken[0].folder
    found = detector.predict(picture, score=0.0)
    assert len(found) > 0
    for source in (str(folder), folder / "model.safetensors", folder / "checkpoints" / "best.pt"):
        other = focaldet.load(source)
        assert other.recipe == unbroken[0].recipe
        assert_equal(other.predict(picture, score=0.0), found)
    assert focaldet.load(folder / "checkpoints" / "last.pt").classes == ("red", "blue")
    for weights in (folder, folder / "model.safetensors", detector.model.state_dict()):
        assert_equal(focaldet.load(unbroken[0].recipe, weights=weights).predict(picture, score=0.0), found)


def test_a_recipe_is_a_source_by_name_or_itself(picture: Any) -> None:
    named = focaldet.load("retinanet-small", **TINY)
    itself = focaldet.load(focaldet.get_recipe("retinanet-small"), **TINY)
    assert named.recipe == itself.recipe
    assert (named.classes, named.device) == (("red", "blue"), torch.device("cpu"))
    assert repr(named) == "Detector('retinanet-small', 2 classes, device='cpu')"
    assert_equal(named.predict(picture, score=0.0), itself.predict(picture, score=0.0))  # initialized from the seed
    learned = focaldet.load("retinanet-small", weights="imagenet", **TINY)
    assert not torch.equal(learned.model.backbone.body.conv_stem.weight, named.model.backbone.body.conv_stem.weight)


def test_weights_of_another_program_are_recognized(
    detector: Detector, unbroken: Any, picture: Any, tmp_path: Path
) -> None:
    state = from_ours(detector.model.state_dict(), "mmdetection")
    torch.save({"meta": {"epoch": 12}, "state_dict": state}, tmp_path / "theirs.pth")
    other = focaldet.load(unbroken[0].recipe, weights=tmp_path / "theirs.pth")
    assert_equal(other.predict(picture, score=0.0), detector.predict(picture, score=0.0))
    with pytest.raises(FocaldetError, match=r"theirs\.pth holds weights of mmdetection without a recipe; .* weights="):
        focaldet.load(tmp_path / "theirs.pth")


@pytest.mark.parametrize(
    ("source", "weights", "words"),
    [
        ("retinanet-smal", None, r"'retinanet-smal' is no recipe, run folder or checkpoint \(did you mean 'retinanet-"),
        ("runs/nothing", None, r"'runs/nothing' is no recipe, run folder or checkpoint; see `focaldet recipes list`"),
        ("retinanet-small", "nothing.pth", r"there is no weights file nothing\.pth"),
        ("retinanet-small", {"conv": torch.zeros(1)}, r"no weights of a RetinaNet .* their names are conv"),
    ],
)
def test_what_is_not_there(source: str, weights: Any, words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        focaldet.load(source, weights=weights, **TINY)


def test_a_run_without_weights_yet(unbroken: Any, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text((unbroken[0].folder / "recipe.yaml").read_text())
    with pytest.raises(FocaldetError, match=r"there is no weights file .*model\.safetensors"):
        focaldet.load(tmp_path)


def test_files_that_are_broken_or_harmful(unbroken: Any, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "exploded",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(FocaldetError, match=r"bomb\.pth asks to run builtins\.getattr, .* nothing in it was executed"):
        focaldet.load("retinanet-small", weights=tmp_path / "bomb.pth")
    assert not (tmp_path / "exploded").exists()
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(FocaldetError, match=r"list\.pth is no complete file of weights \(it holds no state dict"):
        focaldet.load("retinanet-small", weights=tmp_path / "list.pth")
    whole = (unbroken[0].folder / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FocaldetError, match=r"cut\.safetensors is no complete safetensors file"):
        focaldet.load(tmp_path / "cut.safetensors")


# --- classes and fields ---
def test_weights_of_other_classes_are_refused_with_both_lists(unbroken: Any) -> None:
    folder = unbroken[0].folder
    with pytest.raises(
        FocaldetError, match=r"know 2 classes \(red, blue\), the model has 2 \(blue, green\); train with"
    ):
        focaldet.load("retinanet-small", weights=folder, classes=("blue", "green"))
    with pytest.raises(
        FocaldetError, match=r"know 2 classes \(red, blue\), the model has 80 \(person, bicycle, .* 80 in"
    ):
        focaldet.load("retinanet-small", weights=folder)
    with pytest.raises(FocaldetError, match=r"trained with classes=\('red', 'blue'\), which classes=\('blue', 'red'\)"):
        focaldet.load(folder, classes=("blue", "red"))


def test_changes_that_weights_cannot_follow_are_refused(unbroken: Any) -> None:
    for changes in ({"backbone": "resnet18"}, {"in_channels": 4}, {"neck_channels": 32}, {"anchor_scales": (4.0,)}):
        (name,) = changes
        with pytest.raises(FocaldetError, match=rf"was trained with {name}=.*`train` with weights="):
            focaldet.load(unbroken[0].folder, **changes)
    assert focaldet.load(unbroken[0].folder, score=0.3, test_size=(48, 32)).recipe.score == 0.3


def test_a_field_that_does_not_exist(unbroken: Any) -> None:
    for source in (unbroken[0].folder, "retinanet-small"):
        with pytest.raises(UsageError, match=r"'scores' is no field of a recipe \(did you mean 'score'\?\)"):
            focaldet.load(source, scores=0.3)


def test_a_state_is_a_change() -> None:
    published = focaldet.load("retinanet_r50_1x_coco", **ROW)
    clean = focaldet.load("retinanet_r50_1x_coco", state="clean", **ROW)
    assert published.recipe.quirks != ()
    assert clean.recipe.quirks == ()
    with pytest.raises(UsageError, match=r"state='cleen' does not exist; use published, fixed or clean"):
        focaldet.load("retinanet-small", state="cleen")


# --- predicting ---
def test_any_form_of_a_picture_gives_the_same(detector: Detector, data: Path, picture: Any) -> None:
    path = data / "images" / "1.png"
    found = detector.predict(path, score=0.0)
    assert isinstance(found, Detections)
    backwards = np.ascontiguousarray(picture[..., ::-1])[..., ::-1]  # a view of negative stride
    frozen = picture.copy()
    frozen.setflags(write=False)
    for what in (str(path), picture, PIL.Image.open(path), backwards, frozen):
        assert_equal(detector.predict(what, score=0.0), found)
    many = detector.predict([path, picture, PIL.Image.open(path)], score=0.0)
    assert isinstance(many, list) and len(many) == 3
    for each in many:
        assert_equal(each, found)
    assert detector.predict([]) == []


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA", "I;16"])
def test_pil_pictures_of_any_mode(detector: Detector, mode: str) -> None:
    grey = PIL.Image.fromarray(noise(channels=1)[..., 0])
    found = detector.predict(grey.convert(mode), score=0.0)
    assert len(found) > 0
    if mode in ("L", "RGBA", "LA"):
        assert_equal(found, detector.predict(np.repeat(np.array(grey)[..., None], 3, axis=2), score=0.0))


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((64, 96), np.uint8), ((3, 64, 96), np.uint8), ((64, 96, 4), np.uint8), ((0, 96, 3), np.uint8),
     ((64, 96, 3), np.float32), ((1, 64, 96, 3), np.uint8)],
)  # fmt: skip
def test_arrays_that_are_no_picture(detector: Detector, shape: tuple[int, ...], dtype: Any) -> None:
    with pytest.raises(FocaldetError, match=r"a picture should be \(H, W, 3\) uint8 RGB, not \(") as caught:
        detector.predict(np.zeros(shape, dtype))
    assert str(shape) in str(caught.value)


def test_files_that_are_no_picture(detector: Detector, data: Path, tmp_path: Path) -> None:
    with pytest.raises(FocaldetError, match=r"picture nothing\.jpg does not exist"):
        detector.predict("nothing.jpg")
    whole = (data / "images" / "1.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FocaldetError, match=r"cut\.png"):
        detector.predict([data / "images" / "1.png", tmp_path / "cut.png"])


def test_boxes_are_in_pixels_of_the_picture_given(detector: Detector, picture: Any) -> None:
    """A picture whose every pixel is four is halved, exactly, into the same input: the boxes are twice as large."""
    small = detector.predict(picture, score=0.0)
    large = detector.predict(picture.repeat(2, axis=0).repeat(2, axis=1), score=0.0)
    assert np.array_equal(large.numpy().scores, small.numpy().scores)
    assert np.allclose(large.numpy().boxes, 2 * small.numpy().boxes, rtol=1e-6)
    boxes = large.numpy().boxes
    assert boxes.min() >= 0
    assert boxes[:, 2].max() <= 192 and boxes[:, 3].max() <= 128


def test_predictions_repeat_themselves(detector: Detector, picture: Any) -> None:
    first = detector.predict(picture, score=0.0)
    torch.manual_seed(99)
    assert_equal(detector.predict(picture, score=0.0), first)
    assert_equal(detector.prepare().predict(picture, score=0.0), first)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (33, 17), (200, 10)])
def test_pictures_of_any_size(detector: Detector, size: tuple[int, int]) -> None:
    boxes = detector.predict(noise(*size), score=0.0).numpy().boxes
    assert np.isfinite(boxes).all()
    assert (boxes[:, [0, 2]] <= size[1]).all() and (boxes[:, [1, 3]] <= size[0]).all()


def test_least_score_and_most_detections(detector: Detector, picture: Any) -> None:
    everything = detector.predict(picture, score=0.0)
    middle = float(everything.scores[len(everything) // 2])
    assert_equal(detector.predict(picture, score=middle), everything.filter(middle))
    few = detector.predict(picture, score=0.0, max_detections=3)
    assert np.array_equal(few.numpy().boxes, everything.numpy().boxes[:3])
    assert detector.recipe.max_detections == 100  # the detector itself stays as it is
    assert_equal(detector.predict(picture), everything.filter(detector.recipe.score))


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"score": 1.5}, "score=1.5"), ({"score": "high"}, "type float"), ({"max_detections": 0}, "must be above 0")],
)
def test_limits_that_make_no_sense(detector: Detector, picture: Any, changes: Any, words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        detector.predict(picture, **changes)


# --- losses ---
def test_losses_have_gradients(picture: Any) -> None:
    detector = focaldet.load("retinanet-small", frozen="none", **TINY)
    truths = [truth((4.0, 14.0, 28.0, 34.0), (36.0, 14.0, 60.0, 34.0), labels=(0, 1)), truth((2.0, 2.0, 40.0, 38.0))]
    losses = detector.losses([picture, noise(40, 50)], truths)  # of different sizes: padded, not resized
    assert set(losses) == {"class", "box", "loss"}
    assert all(value.shape == () and bool(torch.isfinite(value)) for value in losses.values())
    torch.testing.assert_close(losses["class"] + losses["box"], losses["loss"])
    assert float(losses["box"].detach()) > 0
    losses["loss"].backward()
    trained = {name: value for name, value in detector.model.named_parameters() if value.requires_grad}
    silent = [name for name, value in trained.items() if value.grad is None or not value.grad.any()]
    assert not [name for name in silent if name.startswith("head.")]
    first = trained["backbone.body.conv_stem.weight"].grad
    assert first is not None and bool(torch.isfinite(first).all())


def test_polygons_count_by_their_hull_and_ignored_objects_not(picture: Any) -> None:
    detector = focaldet.load("retinanet-small", **TINY)

    def loss(*truths: Truth) -> dict[str, float]:
        with torch.no_grad():
            return {name: float(value) for name, value in detector.losses([picture], truths).items()}

    boxes = loss(truth((4.0, 14.0, 28.0, 34.0)))
    diamond = torch.tensor([[[16.0, 14.0], [28.0, 24.0], [16.0, 34.0], [4.0, 24.0]]])
    assert loss(Truth(diamond, torch.tensor([1]))) == boxes
    assert loss(Truth(torch.tensor([[4.0, 14, 28, 34]], dtype=torch.float64), torch.tensor([1]))) == boxes
    nothing = loss(Truth(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64)))
    assert nothing["box"] == 0
    ignored = loss(truth((4.0, 14.0, 28.0, 34.0), ignored=torch.tensor([True])))
    assert ignored["box"] == 0
    assert ignored["class"] < nothing["class"]  # the anchors on it are out of the loss


NONE = torch.zeros(0, dtype=torch.int64)


@pytest.mark.parametrize(
    ("images", "truths", "words"),
    [
        ([noise()], [], r"losses got 1 images and 0 truths; give at least one, and a truth for each"),
        ([], [], r"losses got 0 images and 0 truths"),
        ([noise(channels=4)], [truth((1.0, 2, 3, 4))], r"a picture should be \(H, W, 3\) uint8 RGB"),
        ([noise()], [truth((1.0, 2, 3, 4), labels=(2,))], r"truth 0 has labels from 2 to 2; with 2 classes .* 0 and 1"),
        ([noise()], [truth((1.0, 2, 3))], r"truth 0 has boxes of shape \(1, 3\) and labels of shape \(1,\)"),
        ([noise()], [Truth(torch.zeros(0), NONE)], r"truth 0 has boxes of shape \(0,\)"),
        ([noise()], [truth((1.0, 2, 3, float("nan")))], r"truth 0 has a box that is not finite; leave it out"),
        ([noise()], [truth((1.0, 2, 3, 4), ignored=torch.zeros(2, dtype=torch.bool))], r"truth 0 has ignored of shape"),
    ],
)  # fmt: skip
def test_losses_of_what_does_not_fit(detector: Detector, images: Any, truths: Any, words: str) -> None:
    with pytest.raises(FocaldetError, match=words):
        detector.losses(images, truths)


# --- one field makes another network ---
@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels(channels: int) -> None:
    detector = focaldet.load("retinanet-small", weights="imagenet", in_channels=channels, **TINY)
    image = noise(channels=channels)
    assert detector.model(torch.zeros(1, channels, 64, 96))[0].logits[0].shape == (
        1,
        8 * 12 * detector.recipe.num_anchors,
        2,
    )
    assert len(detector.predict(image, score=0.0)) > 0
    detector.losses([image], [truth((4.0, 14.0, 28.0, 34.0))])["loss"].backward()
    with pytest.raises(FocaldetError, match=rf"should be \(H, W, {channels}\)"):
        detector.predict(noise())


@pytest.mark.parametrize("recipe", ["retinanet-small", "retinanet_r50_1x_coco"])
def test_any_timm_network_is_a_change_of_one_field(recipe: str) -> None:
    detector = focaldet.load(recipe, backbone="convnext_tiny", **TINY)
    losses = detector.losses([noise()], [truth((4.0, 14.0, 28.0, 34.0))])
    assert bool(torch.isfinite(losses["loss"]))
    assert len(detector.predict(noise(), score=0.0)) > 0


def test_a_network_that_does_not_exist() -> None:
    with pytest.raises(FocaldetError, match=r"'convnxt_tiny' is no network of timm \(did you mean 'convnext_tiny'\?\)"):
        focaldet.load("retinanet-small", backbone="convnxt_tiny")


def test_a_device_that_torch_does_not_know_or_this_machine_lacks_is_one_sentence():
    with pytest.raises(UsageError, match="device gpu does not exist; use cpu, cuda"):
        focaldet.load("retinanet-small", device="gpu")
    with pytest.raises(FocaldetError, match="this machine has none that torch can use"):
        focaldet.load("retinanet-small", device=f"cuda:{torch.cuda.device_count()}")
