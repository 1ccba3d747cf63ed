"""What `focaldet.load` returns: a network with its recipe, ready to predict or to be trained on."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch
from torch import Tensor

from focaldet.data.pictures import decode, picture_to_array, read_image
from focaldet.engine.build import (
    build_coder,
    build_collate,
    build_criterion,
    build_cut,
    build_detect_rule,
    build_merge_rule,
    build_model,
    build_stage_targets,
    change_recipe,
    check_precision,
    find_device,
)
from focaldet.engine.checkpoint import load_recipe, load_weights
from focaldet.engine.looks import build_looks, joined, with_tta
from focaldet.engine.scenes import predict_scene
from focaldet.engine.weights import read_weights
from focaldet.errors import FocaldetError, UsageError, did_you_mean
from focaldet.geometry.hbox import hbox_to_corners
from focaldet.geometry.rbox import rbox_to_polygon
from focaldet.models.imagenet import imagenet_weights
from focaldet.models.inference import prepare_for_inference
from focaldet.models.retinanet import RetinaNet
from focaldet.models.weights import load_backbone, load_strict
from focaldet.postprocess.detect import detect, merge_looks
from focaldet.postprocess.merge import merge_tiles
from focaldet.recipes import RECIPES, Recipe, get_recipe
from focaldet.results.detections import Detections
from focaldet.structures import Batch, Sample, StageOutput, Truth, empty_truth

Picture = str | Path | npt.NDArray[np.uint8] | PIL.Image.Image
Pictures = list[Picture] | list[str] | list[Path] | tuple[Picture, ...]
Source = str | Path | Recipe
Weights = str | Path | Mapping[str, Tensor] | None

STRUCTURE = (
    "backbone", "levels", "neck", "neck_channels", "head_convs", "head_channels", "p6_from", "anchor_scales",
    "anchor_ratios", "in_channels", "classes", "anchors", "angle_code", "refine_stages", "refine_convs", "inld",
    "inld_masks",
)  # fmt: skip
"""Fields that decide the shapes of a network: they cannot change under weights that exist."""


class Detector:
    """A network with its recipe.

    Attributes:
        recipe: what it was built from.
        classes: names of the labels 0 to C-1.
        device: where it computes.
        model: the network: (B, in_channels, H, W) float images, normalized and padded, in the recipe's channel order,
            to a list of `StageOutput`.
    """

    def __init__(self, recipe: Recipe, model: RetinaNet, device: torch.device | str = "cpu") -> None:
        """Wrap a model; it is moved to the device."""
        self.recipe = recipe
        self.device = find_device(device)
        check_precision(recipe, self.device)
        self.model = model.to(self.device)
        self._criterion = build_criterion(recipe)
        self._targets = build_stage_targets(recipe)
        self._collate = build_collate(recipe, model.anchors)
        self._coder = build_coder(recipe) if recipe.kind == "rbox" else None
        self._collate_bare = build_collate(recipe, None)
        self._steps, self._mirrors = build_looks(recipe)
        self._inference: RetinaNet | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels."""
        return self.recipe.classes

    def __repr__(self) -> str:
        """Name recipe, classes and device."""
        return f"Detector({self.recipe.name!r}, {len(self.classes)} classes, device={str(self.device)!r})"

    def prepare(self) -> Detector:
        """Fold the weights as they are now into the network that predicts; done once by itself before predicting.

        Call it again after changing `model`'s weights by hand.
        """
        dtype = torch.bfloat16 if self.recipe.precision == "bf16" else torch.float32
        self._inference = prepare_for_inference(self.model, dtype)
        return self

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Run the folded network in the recipe's precision, without gradients."""
        if self._inference is None:
            self.prepare()
        assert self._inference is not None
        with torch.inference_mode():
            stages: list[StageOutput] = self._inference(images.to(self.device))
            return stages

    def detect(self, batch: Batch, stages: list[StageOutput] | None = None) -> list[Detections]:
        """Return what is seen in each picture of a batch, in pixels of the original picture."""
        if stages is None:
            stages = self.forward(batch.images)
        with torch.inference_mode():
            rule, coder = build_detect_rule(self.recipe), self._coder
            return detect(stages, batch.sizes, batch.scales, rule, self.classes, coder)

    def losses(self, images: Sequence[npt.NDArray[np.uint8]], truths: Sequence[Truth]) -> dict[str, Tensor]:
        """Return the losses of some pictures: "class", "box" and their sum "loss".

        Pictures are normalized and padded as the recipe says, not resized.

        Args:
            images: (H, W, in_channels) uint8 RGB pictures.
            truths: as many; hboxes, rboxes or polygons in their pixels, of which an upright recipe takes the hulls.

        Raises:
            FocaldetError: no picture, not as many truths, or one of another shape; a label without a class.
        """
        if len(images) != len(truths) or len(images) == 0:
            raise FocaldetError(
                f"losses got {len(images)} images and {len(truths)} truths; give at least one, and a truth for each"
            )
        samples = []
        for index, (image, truth) in enumerate(zip(images, truths, strict=True)):
            check_truth(truth, len(self.classes), f"truth {index}")
            samples.append(as_sample(picture_array(image, self.recipe.in_channels), index, truth))
        batch = self._collate(samples)
        stages = self.model(batch.images.to(self.device, memory_format=torch.channels_last))
        return self._criterion(stages, self._targets(stages, batch))

    @overload
    def predict(
        self,
        what: Picture,
        score: float | None = None,
        max_detections: int | None = None,
        tta: bool | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Detections: ...

    @overload
    def predict(
        self,
        what: Pictures,
        score: float | None = None,
        max_detections: int | None = None,
        tta: bool | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> list[Detections]: ...

    def predict(
        self,
        what: Picture | Pictures,
        score: float | None = None,
        max_detections: int | None = None,
        tta: bool | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Detections | list[Detections]:
        """Detect in a picture or a list of them.

        A recipe with tiles looks at pictures with a side of over `whole` tiles (1.5, published rows of DOTA: 1)
        tile by tile, and merges.

        Args:
            what: a path, an (H, W, in_channels) uint8 RGB array, a PIL picture, or a list of these.
            score: least score of a detection; None for the recipe's.
            max_detections: most detections a picture, or tile; None for the recipe's.
            tta: test-time augmentation: True looks at three sizes (those of the recipe's `test_sizes`, else its test
                size, half of it and one and a half times it), each mirrored too (left to right, for rotated boxes also
                upside down), and brings all answers together by one NMS; False looks once; None for the recipe's.
            tile: side of a tile in pixels; None for the recipe's, which upright recipes do not have unasked.
            overlap: pixels that neighbouring tiles share; None for the recipe's.

        Returns:
            Detections in pixels of the picture given, one for a picture, a list for a list.

        Raises:
            FocaldetError: a picture cannot be read; the sentence names it.
        """
        detector = self.with_answers(score, max_detections, tile, overlap, tta)
        if isinstance(what, (str, Path, np.ndarray, PIL.Image.Image)):
            return detector._predict_one(what)
        return [detector._predict_one(item) for item in what]

    def with_answers(
        self,
        score: float | None,
        max_detections: int | None,
        tile: int | None = None,
        overlap: int | None = None,
        tta: bool | None = None,
    ) -> Detector:
        """Return this detector with other answer limits, tiles and looks; network and folded weights are shared."""
        if self._inference is None:
            self.prepare()
        asked = {"score": score, "max_detections": max_detections, "tile": tile, "overlap": overlap}
        changes = {name: value for name, value in asked.items() if value is not None}
        if not changes and tta is None:
            return self
        other = copy.copy(self)
        other.recipe = self.recipe.replace(**changes)
        if tta is not None:
            other.recipe = with_tta(other.recipe, tta)
        other._steps, other._mirrors = build_looks(other.recipe)
        return other

    @property
    def looks(self) -> int:
        """How often a picture, or tile, is looked at."""
        return len(self._steps) * len(self._mirrors)

    def _predict_one(self, what: Picture) -> Detections:
        recipe, picture = self.recipe, decoded(what, self.recipe.in_channels)
        size = (picture.height, picture.width) if isinstance(picture, PIL.Image.Image) else picture.shape[:2]
        if not is_scene(recipe, size):
            return self.finish(self._look([picture_array(picture, recipe.in_channels)])[0])
        return predict_scene(self._look, picture, build_cut(recipe), build_merge_rule(recipe), self.classes)

    def _look(self, pictures: list[npt.NDArray[np.uint8]]) -> list[Detections]:
        return [joined(list(self._looks_at(picture))) for picture in pictures]

    def _looks_at(self, picture: npt.NDArray[np.uint8]) -> Iterator[Detections]:
        """Yield what each look at a picture finds, in its pixels."""
        sample = as_sample(picture, 0)
        for steps in self._steps:
            seen = steps(sample, np.random.default_rng(0))
            size = round(seen.size[0] / seen.scale[1]), round(seen.size[1] / seen.scale[0])  # black margins included
            for mirror in self._mirrors:
                yield mirror.back(self.detect(self._collate_bare([mirror.of(seen)]))[0], size)

    def finish(self, found: Detections) -> Detections:
        """Return what there is in a picture that was seen whole, of what was found in it.

        Several looks are merged. And whoever works with tiles merges a picture of one tile like one of many.
        """
        if self.recipe.kind == "hbox":
            return found if self.looks == 1 else merge_looks(found, build_detect_rule(self.recipe))
        if self.looks == 1 and self.recipe.tile is None:
            return found
        merged = merge_tiles([found], [(0, 0)], build_merge_rule(self.recipe), self.classes)
        most = self.recipe.max_detections
        return Detections(merged.boxes[:most], merged.scores[:most], merged.labels[:most], self.classes)


def is_scene(recipe: Recipe, size: Sequence[int]) -> bool:
    """Say whether a recipe looks at a picture of (height, width) tile by tile."""
    return recipe.tile is not None and max(size) > recipe.whole * recipe.tile


def picture_array(what: Picture, channels: int) -> npt.NDArray[np.uint8]:
    """Return a picture as an (H, W, channels) uint8 RGB array."""
    picture = decoded(what, channels)
    return picture_to_array(picture, channels) if isinstance(picture, PIL.Image.Image) else picture


def decoded(what: Picture, channels: int) -> npt.NDArray[np.uint8] | PIL.Image.Image:
    """Return a picture as an array, if it is one, or decoded, upright and with so many bands, but not copied."""
    if isinstance(what, (str, Path)):
        return read_image(what, channels)
    if isinstance(what, PIL.Image.Image):
        return decode(what, channels)
    if what.dtype != np.uint8 or what.ndim != 3 or what.shape[2] != channels or 0 in what.shape:
        raise FocaldetError(f"a picture should be (H, W, {channels}) uint8 RGB, not {what.shape} {what.dtype}")
    return what


def as_sample(image: npt.NDArray[np.uint8], index: int, truth: Truth | None = None) -> Sample:
    """Wrap a picture, and what is known of it, as a Sample."""
    truth = truth or empty_truth()
    boxes = truth.boxes.detach().float().cpu()
    boxes = rbox_to_polygon(boxes).reshape(-1, 4, 2) if boxes.ndim == 2 and boxes.shape[1] == 5 else boxes
    count = len(boxes)
    ignored = torch.zeros(count, dtype=torch.bool) if truth.ignored is None else truth.ignored
    return Sample(
        image=image,
        corners=(boxes if boxes.ndim == 3 else hbox_to_corners(boxes)).numpy(),
        labels=truth.labels.cpu().numpy(),
        crowd=ignored.cpu().numpy(),
        difficult=np.zeros(count, bool),
        id=index,
        index=index,
        name=f"picture {index}",
        original=(int(image.shape[0]), int(image.shape[1])),
    )


def check_truth(truth: Truth, num_classes: int, name: str) -> None:
    """Raise FocaldetError unless shapes fit together, boxes are finite and every label has a class."""
    boxes, labels = truth.boxes, truth.labels
    count = len(labels)
    if boxes.shape not in ((count, 4), (count, 5), (count, 4, 2)) or labels.shape != (count,):
        raise FocaldetError(
            f"{name} has boxes of shape {tuple(boxes.shape)} and labels of shape {tuple(labels.shape)}; "
            "they should be (G, 4), (G, 5) or (G, 4, 2), and (G,)"
        )
    if truth.ignored is not None and truth.ignored.shape != (count,):
        raise FocaldetError(f"{name} has ignored of shape {tuple(truth.ignored.shape)}; it should be ({count},)")
    if not bool(torch.isfinite(boxes).all()):
        raise FocaldetError(f"{name} has a box that is not finite; leave it out")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise FocaldetError(
            f"{name} has labels from {int(labels.min())} to {int(labels.max())}; with {num_classes} classes they "
            f"should lie between 0 and {num_classes - 1}"
        )


def load(source: Source, weights: Weights = None, device: torch.device | str = "cpu", **changes: Any) -> Detector:
    """Return a detector from a recipe, a run folder or a weights file.

    Args:
        source: a recipe's name, a Recipe, a run's folder, or a checkpoint file (`.safetensors`, `.pt`).
        weights: None for what the source holds (a recipe: freshly initialized), "imagenet" for the backbone's, a file,
            or a state dict; foreign names are recognized by their keys.
        device: where to compute.
        **changes: fields of the recipe to change, and `state`.

    Raises:
        FocaldetError: nothing of that name, or weights of other classes or shapes (both sides are listed).
    """
    recipe, held = read_source(source)
    if held is not None and weights is None:
        refuse_structure_changes(recipe, changes, source)
    recipe = change_recipe(recipe, changes)
    device = find_device(device)
    torch.manual_seed(recipe.seed)
    model = build_model(recipe)
    if weights == "imagenet":
        load_backbone(model, imagenet_weights(recipe.backbone, recipe.style))
    elif weights is not None:
        given = read_weights(weights)
        load_strict(model, given.state, recipe.classes, given.classes)
    elif held is not None:
        load_strict(model, held, recipe.classes, recipe.classes)
    return Detector(recipe, model.eval(), device)


def read_source(source: Source) -> tuple[Recipe, dict[str, Tensor] | None]:
    """Return the recipe that a source names or holds, and the weights it holds (None for a mere recipe)."""
    if isinstance(source, Recipe):
        return source, None
    if isinstance(source, str) and source in RECIPES:
        return get_recipe(source), None
    path = Path(source)
    if path.is_dir():
        recipe = load_recipe(path / "recipe.yaml")
        return recipe, load_weights(path / "model.safetensors")[0]
    if path.is_file():
        given = read_weights(path)
        if given.recipe is None:
            raise FocaldetError(
                f"{path} holds weights of {given.dialect} without a recipe; load a recipe and give the file as weights="
            )
        return given.recipe, dict(given.state)
    hint = did_you_mean(str(source), RECIPES)
    raise UsageError(f"{str(source)!r} is no recipe, run folder or checkpoint{hint or '; see `focaldet recipes list`'}")


def refuse_structure_changes(recipe: Recipe, changes: Mapping[str, Any], source: Source) -> None:
    """Refuse changes that the weights of a source cannot follow."""
    wanted = change_recipe(recipe, changes)
    for name in STRUCTURE:
        held, asked = getattr(recipe, name), getattr(wanted, name)
        if held != asked:
            raise FocaldetError(
                f"{source} was trained with {name}={shorten(held)}, which {name}={shorten(asked)} does not fit; "
                f"to train further in another form, use `train` with weights={source}"
            )


def shorten(value: Any, limit: int = 8) -> str:
    """Write a value, a long tuple by its first entries and its length."""
    if isinstance(value, tuple) and len(value) > limit:
        return f"({', '.join(map(repr, value[:limit]))}, ... {len(value)} in all)"
    return repr(value)
