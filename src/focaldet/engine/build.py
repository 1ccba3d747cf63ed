"""Recipe -> model, criterion, rules, loaders, optimizer: the one place that turns a recipe's fields into parts."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from focaldet.data.batch import collate
from focaldet.data.dataset import Dataset
from focaldet.data.tiles import CUTS, Cut
from focaldet.data.transforms import Transform, build_transform
from focaldet.engine.optimizer import UpdateRule
from focaldet.engine.targets import StageTargetBuilder
from focaldet.errors import FocaldetError, UsageError
from focaldet.geometry.coders import decode_hbox, encode_hbox
from focaldet.geometry.rotated_coders import DirectionCoder, RboxCoder, RotatedCoder
from focaldet.losses.criterion import Criterion, Decode
from focaldet.losses.normalizer import MovingAverage
from focaldet.models.anchors import AnchorShapes, WholeShapes, original_turned, original_upright
from focaldet.models.r3det import build_r3det
from focaldet.models.retinanet import RetinaNet, build_retinanet
from focaldet.postprocess.detect import DetectRule
from focaldet.postprocess.merge import MERGE_THRESHOLDS, MergeRule
from focaldet.recipes import Recipe
from focaldet.structures import Batch, Sample
from focaldet.targets.assign import AssignRule
from focaldet.targets.encode import (
    Convert,
    Encode,
    Hulls,
    build_targets,
    enclosing_hboxes,
    enclosing_rboxes,
    sided_rboxes,
)

IGNORED_IOF = 0.5
"""Part of an anchor that must lie on an ignored object for it to leave the loss (our own recipes)."""
OWN_DATA = 0.05
"""By how much the pictures of a row's own data may differ from the number that the row gives an epoch."""


def build_model(recipe: Recipe) -> RetinaNet:
    """Return the recipe's network, freshly initialized, in training mode."""
    network = build_retinanet(
        backbone=recipe.backbone,
        style=recipe.style,
        frozen=recipe.frozen,
        backbone_norm=recipe.backbone_norm,
        norm_eps=recipe.norm_eps,
        in_channels=recipe.in_channels,
        neck=recipe.neck,
        neck_channels=recipe.neck_channels,
        neck_init=recipe.neck_init,
        p6_from=recipe.p6_from,
        p7_relu=recipe.p7_relu,
        neck_norm=recipe.neck_norm,
        head_norm=recipe.head_norm,
        head_convs=recipe.head_convs,
        head_channels=recipe.head_channels,
        num_classes=len(recipe.classes),
        anchors=build_anchors(recipe),
        head_init=recipe.head_init,
        prior=recipe.prior,
        box_numbers=build_coder(recipe).numbers if recipe.kind == "rbox" else None,
    )
    if recipe.refine_stages == 0:
        return network
    return build_r3det(
        network,
        coder=build_coder(recipe),
        refine_stages=recipe.refine_stages,
        refine_convs=recipe.refine_convs,
        refine_points=recipe.refine_points,
        refine_sampling=recipe.refine_sampling,
        refine_output=recipe.refine_output,
        refine_gradient=recipe.refine_gradient,
        inld=recipe.inld,
        inld_masks=recipe.inld_masks,
    )


def build_anchors(recipe: Recipe) -> AnchorShapes:
    """Return the boxes that stand at every place of the recipe's levels.

    Upright anchors of a rotated recipe that compares hulls are hboxes when they are assigned and rboxes when they are
    coded; one that compares rboxes has rboxes throughout.
    """
    if recipe.anchors in ("h21", "h55"):
        more = recipe.anchors == "h55"
        return original_upright(more=more, coded=recipe.angle, squares=recipe.anchor_squares)
    if recipe.anchors in ("r90", "r90-crossed"):
        return original_turned(crossed=recipe.anchors == "r90-crossed")
    strides = tuple(2**level for level in recipe.levels)
    if recipe.anchors == "whole":
        return WholeShapes(recipe.anchor_scales, recipe.anchor_ratios, strides)
    shapes = AnchorShapes(recipe.anchor_scales, recipe.anchor_ratios, strides, recipe.anchor_offset)
    if recipe.kind == "hbox":
        return shapes
    if recipe.assign == "rbox":
        return replace(shapes, angle=recipe.anchor_angle or "zero")
    return replace(shapes, coded=recipe.anchor_angle or recipe.angle)


def build_coder(recipe: Recipe) -> RotatedCoder:
    """Return how a rotated recipe writes boxes as deltas.

    Raises:
        UsageError: directions are coded in another form than "le90", or with a field that they have no use for.
    """
    if recipe.angle_code == "direction":
        if recipe.angle != "le90":
            raise UsageError(f"angle_code='direction' goes with angle='le90', not with {recipe.angle!r}")
        if recipe.edge_swap or recipe.norm_factor is not None:
            raise UsageError("edge_swap and norm_factor go with angle_code='difference', not with 'direction'")
        return DirectionCoder(recipe.proj_xy, recipe.max_log_scale)
    return RboxCoder(
        angle=recipe.angle,
        proj_xy=recipe.proj_xy,
        edge_swap=recipe.edge_swap,
        norm_factor=recipe.norm_factor,
        max_log_scale=recipe.max_log_scale,
        anchor_sides="plus-one" if recipe.box_sides == "plus_one" else "exact",
    )


@dataclass(frozen=True)
class RboxDecode:
    """(deltas, anchors) -> public rboxes: what a rotated recipe's deltas mean; travels to other processes."""

    coder: RotatedCoder

    def __call__(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        """Return (P, 5) rboxes of the form "le90"."""
        return self.coder.to_rbox(self.coder.decode(deltas, anchors))


def build_criterion(recipe: Recipe) -> Criterion:
    """Return the recipe's losses."""
    return Criterion(
        alpha=recipe.alpha,
        gamma=recipe.gamma,
        box_loss=recipe.box_loss,
        box_beta=recipe.box_beta,
        box_weight=recipe.box_weight,
        iou_floor=recipe.iou_floor,
        decode=build_decode(recipe),
        normalizer=recipe.normalizer,
        average=MovingAverage(recipe.batch // recipe.normalize_over),
    )


def build_decode(recipe: Recipe) -> Decode:
    """Return what the recipe's deltas mean."""
    if recipe.kind == "rbox":
        return RboxDecode(build_coder(recipe))
    return partial(decode_hbox, min_log_scale=-math.inf) if recipe.log_scale_clamp == "above" else decode_hbox


def build_assign_rule(recipe: Recipe) -> AssignRule:
    """Return how the recipe gives anchors their truth."""
    return AssignRule(
        positive=recipe.positive,
        negative=recipe.negative,
        claim=recipe.claim,
        ignored_iof=IGNORED_IOF if recipe.crowd == "ignored" else None,
        negative_inclusive=recipe.negative_inclusive,
        pixels=recipe.pixels,
    )


def build_refine_rules(recipe: Recipe) -> tuple[AssignRule, ...]:
    """Return how the anchors of each refine stage get their truth: by the first stage's rule, but for the thresholds.

    They are rboxes, and a side of theirs measures what it does.
    """
    limits = zip(recipe.refine_positive, recipe.refine_negative, strict=False)
    first = replace(build_assign_rule(recipe), pixels="continuous")
    return tuple(
        replace(first, positive=positive, negative=negative)
        for positive, negative in itertools.islice(limits, recipe.refine_stages)
    )


def build_stage_targets(recipe: Recipe) -> StageTargetBuilder:
    """Return what tells every stage of the recipe's detector what it should have said."""
    coder = build_coder(recipe)
    return StageTargetBuilder(
        rules=build_refine_rules(recipe),
        to_regress=build_truth_forms(recipe).to_regress,
        to_rbox=coder.to_rbox,
        encode=coder.encode,
        masks=recipe.inld_masks,
    )


def build_detect_rule(recipe: Recipe) -> DetectRule:
    """Return how the recipe turns stage outputs into detections."""
    return DetectRule(
        score=recipe.score,
        per_level=recipe.per_level,
        per_level_of=recipe.per_level_of,
        nms=recipe.nms,
        nms_labels=recipe.nms_labels,
        nms_equal=recipe.nms_equal,
        max_per_class=recipe.max_per_class,
        max_detections=recipe.max_detections,
        centres=recipe.centres,
        refit=recipe.refit,
        stages=recipe.stages,
        clamp=recipe.log_scale_clamp,
        finish=recipe.finish,
    )


def build_steps(recipe: Recipe, *, train: bool) -> Transform:
    """Return what the recipe does to a picture between the file and the batch.

    Pictures smaller than a tile are extended to one where the original rotated program did so.
    """
    pool = "swimming-pool"  # told by its colour, so the original rotated program never made one grey
    return build_transform(
        recipe.sizes if train else (recipe.test_size,),
        recipe.augment,
        train=train,
        resize=recipe.resize,
        between=recipe.sizes_drawn == "between",
        test_resize=recipe.test_resize,
        least=recipe.tile or 0,
        coloured=recipe.classes.index(pool) if pool in recipe.classes else None,
    )


def build_cut(recipe: Recipe) -> Cut:
    """Return how the recipe's scenes are cut when they are looked at.

    Raises:
        UsageError: the recipe has no tiles.
    """
    if recipe.tile is None:
        raise UsageError(f"recipe {recipe.name} looks at whole pictures; name the side of tiles by tile=1024, say")
    return Cut(recipe.tile, recipe.overlap, owner="centre", min_picture=0.0, pad=recipe.tile_pad)


def build_training_cut(recipe: Recipe) -> Cut:
    """Return how big pictures are cut into what the recipe trains on.

    Raises:
        UsageError: the recipe has no tiles.
    """
    if recipe.tile is None:
        raise UsageError(f"recipe {recipe.name} has no tiles: it trains on whole pictures; name a cut by --cut instead")
    return replace(CUTS[recipe.cut], tile=recipe.tile, overlap=recipe.overlap)


def build_merge_rule(recipe: Recipe) -> MergeRule:
    """Return how what the recipe finds in tiles becomes what there is in the scene."""
    return MergeRule(
        nms=MERGE_THRESHOLDS.get(recipe.merge_nms, recipe.nms),
        other=recipe.nms,
        equal=recipe.nms_equal,
        max_per_class=recipe.merge_per_class,
        corners=recipe.merge_corners,
    )


@dataclass(frozen=True)
class TruthForms:
    """As which boxes truth, annotated as boxes or polygons, takes part; see `build_targets`.

    Attributes:
        to_assign: makes the boxes that anchors are compared with.
        to_regress: makes the boxes that deltas lead to.
        encode: makes deltas of those.
    """

    to_assign: Convert
    to_regress: Convert
    encode: Encode


@dataclass(frozen=True)
class Collate:
    """Samples -> Batch, with what the anchors should say worked out on the way (in the loader's worker).

    Attributes:
        mean, std, channel_order, pad, unit_range, difficult: as in the recipe.
        anchors: the model's anchors; None leaves the targets out.
        rule: how anchors get their truth.
        truth: as which boxes the truth is compared with anchors and taught.
        beyond: what anchors are whose place lies in the padding of the batch.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    channel_order: Literal["rgb", "bgr"]
    pad: int
    unit_range: bool
    difficult: Literal["ignored", "trained"]
    anchors: AnchorShapes | None
    rule: AssignRule
    truth: TruthForms
    beyond: Literal["excluded", "background"] = "excluded"

    def __call__(self, samples: Sequence[Sample]) -> Batch:
        """Put samples together and assign their truth to the anchors of the padded size."""
        batch = collate(
            samples,
            mean=self.mean,
            std=self.std,
            channel_order=self.channel_order,
            pad=self.pad,
            unit_range=self.unit_range,
            difficult=self.difficult,
        )
        if self.anchors is not None:
            started = time.perf_counter()
            grid = self.anchors.grid_for((batch.images.shape[-2], batch.images.shape[-1]))
            batch.targets = build_targets(
                grid,
                batch.truths,
                self.rule,
                batch.padded if self.beyond == "excluded" else None,
                to_assign=self.truth.to_assign,
                to_regress=self.truth.to_regress,
                encode=self.truth.encode,
            )
            batch.assign_seconds = time.perf_counter() - started
        return batch


def build_collate(recipe: Recipe, anchors: AnchorShapes | None) -> Collate:
    """Return the recipe's way of putting a batch together."""
    return Collate(
        mean=recipe.mean,
        std=recipe.std,
        channel_order=recipe.channel_order,
        pad=recipe.pad,
        unit_range=recipe.unit_range,
        difficult=recipe.difficult,
        anchors=anchors,
        rule=build_assign_rule(recipe),
        truth=build_truth_forms(recipe),
        beyond=recipe.beyond,
    )


def build_truth_forms(recipe: Recipe) -> TruthForms:
    """Return as which boxes the recipe's truth takes part."""
    if recipe.kind == "hbox":
        return TruthForms(enclosing_hboxes, enclosing_hboxes, encode_hbox)
    rboxes = sided_rboxes if recipe.rectangle == "by-sides" else enclosing_rboxes
    to_assign: dict[str, Convert] = {"hull": enclosing_hboxes, "rbox": rboxes, "rbox-hull": Hulls(rboxes)}
    return TruthForms(to_assign[recipe.assign], rboxes, build_coder(recipe).encode)


def build_update_rule(recipe: Recipe) -> UpdateRule:
    """Return how the recipe's variables follow their gradients, beside the learning rate."""
    return UpdateRule(
        weight_decay=recipe.weight_decay,
        decay_all=recipe.decay_all,
        backbone_lr=recipe.backbone_lr,
        bias_gradient=recipe.bias_gradient,
        clip=recipe.clip,
        clip_per=recipe.clip_per,
    )


def build_optimizer(recipe: Recipe, model: RetinaNet) -> torch.optim.Optimizer:
    """Return the recipe's optimizer over the trained parameters; the schedule sets each group's rate from `scale`."""
    groups = build_update_rule(recipe).groups(model)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.peak_lr, momentum=recipe.momentum)
    return torch.optim.AdamW(groups, lr=recipe.peak_lr, fused=True)


def change_recipe(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with what a user asked for: `state` (published, fixed or clean) first, then single fields."""
    fields = dict(changes)
    return recipe.at(fields.pop("state", "published")).replace(**fields)


def fit_recipe(recipe: Recipe, dataset: Dataset, asked: Collection[str] = ()) -> tuple[Recipe, list[str]]:
    """Let schedule and classes follow own data; returns the recipe for this data and a line on each thing changed.

    Classes are joined by name: data with exactly the recipe's names keeps the recipe's order. The rows' fixed number of
    pictures an epoch holds for their own data only; warm-up then takes at most a tenth of the run. Fields that the user
    `asked` for stay.
    """
    lines = []
    own = is_own_data(recipe, dataset)
    if set(dataset.classes) != set(recipe.classes):
        lines.append(f"classes: {len(dataset.classes)} of the data instead of the recipe's {len(recipe.classes)}")
        recipe = recipe.replace(classes=dataset.classes)
    if "images_per_epoch" not in asked and not own:
        lines.append(
            f"schedule: {len(dataset):,} pictures an epoch (the data's) instead of {recipe.images_per_epoch:,}"
        )
        recipe = recipe.replace(images_per_epoch=None, pictures=None)
    tenth = max(recipe.epochs * recipe.steps_per_epoch(len(dataset)) // 10, 1)
    if "warmup_steps" not in asked and recipe.warmup_steps > tenth:
        lines.append(f"schedule: warm-up of {tenth} steps (a tenth of the run) instead of {recipe.warmup_steps}")
        recipe = recipe.replace(warmup_steps=tenth)
    return recipe, lines


def is_own_data(recipe: Recipe, dataset: Dataset) -> bool:
    """Say whether a recipe's number of pictures an epoch is meant for a dataset: as many, or of its classes and nearly.

    The rows of DOTA count 27,000 tiles an epoch, a round number, of about as many.
    """
    counted = recipe.pictures or recipe.images_per_epoch
    if counted is None or counted == len(dataset):
        return True
    return set(dataset.classes) == set(recipe.classes) and abs(len(dataset) - counted) <= OWN_DATA * counted


def bf16_is_native(device: torch.device) -> bool:
    """Say whether a device computes in bf16 by itself instead of emulating it."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported()) and bool(torch.cpu._is_avx512_bf16_supported())


def find_device(device: torch.device | str) -> torch.device:
    """Return a device by its name if this machine has it.

    Raises:
        UsageError: torch knows no such device.
        FocaldetError: this machine has none.
    """
    try:
        found = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device {device} does not exist; use cpu, cuda, cuda:1 or mps") from None
    missing = found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count()
    missing |= found.type == "mps" and not torch.backends.mps.is_available()
    if missing:
        raise FocaldetError(f"device {device}: this machine has none that torch can use; `focaldet doctor` lists them")
    return found


def check_precision(recipe: Recipe, device: torch.device) -> None:
    """Refuse bf16 where it would only be slow; fp16 is asked for by those who know why."""
    if recipe.precision == "bf16" and not bf16_is_native(device):
        raise FocaldetError(f"this machine's {device.type} only emulates bf16, which is slow; use precision=float32")
