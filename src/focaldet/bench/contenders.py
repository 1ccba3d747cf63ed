"""Who is measured: each builds, by its public interface, a network that detects or takes training steps.

All contenders of a network get the same picture, the same truth and the same classes; statistics of batch norm are
fixed. Weights are random, for time does not depend on them but in post-processing, which `imitate_training` takes care
of.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection import RetinaNet as TorchvisionRetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from focaldet.bench.clock import Task
from focaldet.bench.networks import COCO, R3DET, RETINANET_R, ROTATED, Network, random_picture
from focaldet.bench.report import OURS
from focaldet.engine.build import (
    build_assign_rule,
    build_criterion,
    build_model,
    build_optimizer,
    build_stage_targets,
    build_truth_forms,
    build_update_rule,
)
from focaldet.engine.detector import load
from focaldet.engine.optimizer import Gradients
from focaldet.models.heads import Head
from focaldet.models.retinanet import RetinaNet
from focaldet.recipes import get_recipe
from focaldet.structures import Batch, Size, Truth
from focaldet.targets.encode import build_targets

SCORE = 0.05
"""Least score of a candidate, everywhere."""
CALIBRATION_SIZE = (256, 448)
"""(height, width) of the input that `imitate_training` looks at: small, to leave the peak memory as it is."""
DELTA_DEVIATION = 0.2
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
LEARNING_RATE = 0.0
"""Of the timed steps: as much work as any other, and a network of random weights does not run away."""


@dataclass(frozen=True)
class Pass:
    """What is timed of a contender.

    Attributes:
        run: does it once.
        count: counts the multiply-adds of all its convolutions, in billions; apart, since that takes memory.
    """

    run: Task
    count: Callable[[], float]


class Contender(Protocol):
    """A program that is measured."""

    @property
    def name(self) -> str:
        """What the report calls it."""

    @property
    def network(self) -> Network:
        """What it builds."""

    def inference(self, size: Size, dtype: torch.dtype) -> Pass | None:
        """Return the way from one picture of (height, width) to its detections, without resizing; None: has no such."""

    def training(self, size: Size) -> Pass:
        """Return a float32 step with one picture of (height, width): forward, targets, losses, backward, SGD."""


@dataclass(frozen=True)
class Ours:
    """focaldet, by the calls that its engine makes."""

    network: Network
    name: str = OURS

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        torch.manual_seed(0)
        detector = load(self.network.recipe, precision="bf16" if dtype == torch.bfloat16 else "float32")
        model = detector.model
        for head in heads_of(model):
            imitate_training(head.logits, head.deltas, model, self.network.passing_share)
        detector.prepare()
        batch = as_batch(random_picture(size))
        return Pass(
            run=lambda: detector.detect(batch, detector.forward(batch.images)),
            count=lambda: count_gmac(model, our_outputs, size, backward=False),
        )

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        torch.manual_seed(0)
        recipe = get_recipe(self.network.recipe)
        model = build_model(recipe).to(memory_format=torch.channels_last)
        optimizer = without_learning(build_optimizer(recipe, model))
        gradients, criterion = Gradients(model, build_update_rule(recipe)), build_criterion(recipe)
        rule, forms, targets = build_assign_rule(recipe), build_truth_forms(recipe), build_stage_targets(recipe)
        batch = as_batch(random_picture(size), [self.network.truth(size)])

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            batch.targets = build_targets(
                model.anchors.grid_for(size),
                batch.truths,
                rule,
                to_assign=forms.to_assign,
                to_regress=forms.to_regress,
                encode=forms.encode,
            )
            stages = model(batch.images.to(memory_format=torch.channels_last))
            gradients.add(criterion(stages, targets(stages, batch))["loss"], last=True)
            optimizer.step()

        return Pass(step, lambda: count_gmac(model, our_outputs, size, backward=True))


@dataclass(frozen=True)
class Torchvision:
    """torchvision, built as its `retinanet_resnet50_fpn` does where it starts from weights (a download, so not called).

    Attributes:
        channels_last: whether to lay out network and picture as NHWC, which its documentation does not ask for.
    """

    channels_last: bool = False
    network: Network = COCO

    @property
    def name(self) -> str:
        """What the report calls it."""
        return "torchvision, channels_last" if self.channels_last else "torchvision"

    def inference(self, size: Size, dtype: torch.dtype) -> Pass:
        """See `Contender`."""
        model = self._build(size).eval()
        head = model.head
        layers = head.classification_head.cls_logits, head.regression_head.bbox_reg
        imitate_training(*layers, lambda images: torchvision_outputs(model, images), self.network.passing_share)
        picture = self._lay_out(random_picture(size))
        bf16 = torch.autocast("cpu", torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()

        def run() -> object:
            with torch.inference_mode(), bf16:
                return model([*picture])

        return Pass(run, lambda: count_gmac(model, torchvision_outputs, size, backward=False))

    def training(self, size: Size) -> Pass:
        """See `Contender`."""
        model = self._build(size).train()
        optimizer = sgd(model)
        picture, truth = self._lay_out(random_picture(size)), self.network.truth(size)
        targets = [{"boxes": truth.boxes, "labels": truth.labels}]

        def step() -> None:
            update(optimizer, sum(model([*picture], targets).values()))

        return Pass(step, lambda: count_gmac(model, torchvision_outputs, size, backward=True))

    def _build(self, size: Size) -> Any:
        torch.manual_seed(0)
        backbone = resnet_fpn_backbone(
            backbone_name="resnet50",
            weights=None,
            norm_layer=FrozenBatchNorm2d,
            trainable_layers=3,
            returned_layers=[2, 3, 4],
            extra_blocks=LastLevelP6P7(256, 256),
        )
        sides = {"min_size": min(size), "max_size": max(size)}  # so that it scales by 1
        model = TorchvisionRetinaNet(backbone, self.network.num_classes, detections_per_img=100, **sides)
        return self._lay_out(model)

    def _lay_out(self, what: Any) -> Any:
        return what.to(memory_format=torch.channels_last) if self.channels_last else what


CONTENDERS: tuple[Contender, ...] = (
    *(Ours(network) for network in (COCO, ROTATED, RETINANET_R, R3DET)),
    Torchvision(),
    Torchvision(channels_last=True),
)


def as_batch(images: Tensor, truths: Sequence[Truth] = ()) -> Batch:
    """Wrap images (B, 3, H, W) and the truth of each, where it is known; boxes then stay in the frame `input`."""
    count, sizes = len(images), [(images.shape[-2], images.shape[-1])] * len(images)
    numbers = list(range(count))
    names = [f"picture {number}" for number in numbers]
    return Batch(images, [*truths], sizes, sizes, torch.ones(count, 2).double(), sizes, numbers, numbers, names)


def without_learning(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Set the learning rate of every group to `LEARNING_RATE`."""
    for group in optimizer.param_groups:
        group["lr"] = LEARNING_RATE
    return optimizer


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the COCO rows for all of a model that learns."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.SGD(trained, LEARNING_RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)


def update(optimizer: torch.optim.Optimizer, loss: Any) -> None:
    """Take the step down from a loss."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


@torch.no_grad()
def imitate_training(
    logits: nn.Conv2d, deltas: nn.Conv2d, forward: Callable[[Tensor], object], passing_share: float
) -> None:
    """Set the last layers of a random network so that post-processing meets what a trained one would give it.

    Every channel gets a common mean and deviation over the places of the picture: of deltas 0 and 0.2; of logits such
    that `passing_share` of all exceed the score 0.05, of all classes, all over the picture, with scores up to 0.3.

    Args:
        logits: the layer of class logits, one channel for each anchor and class.
        deltas: the layer of box deltas.
        forward: runs the network, in evaluation mode, on images (1, 3, H, W).
        passing_share: part of all scores.
    """
    seen: dict[nn.Conv2d, list[Tensor]] = {logits: [], deltas: []}
    hooks = [
        layer.register_forward_hook(lambda layer, inputs, output: seen[layer].append(output.flatten(2)[0]))
        for layer in seen
    ]
    forward(random_picture(CALIBRATION_SIZE))
    for hook in hooks:
        hook.remove()
    standardize(deltas, torch.cat(seen[deltas], dim=1))
    scale_outputs(deltas, DELTA_DEVIATION, 0.0)
    standard = standardize(logits, torch.cat(seen[logits], dim=1)).flatten()
    least = float(standard.topk(max(int(passing_share * len(standard)), 1)).values[-1])
    scale_outputs(logits, 1.0, math.log(SCORE / (1 - SCORE)) - least)


def standardize(layer: nn.Conv2d, channels: Tensor) -> Tensor:
    """Give each output channel of a layer mean 0 and deviation 1 over the (channels, places) that it answered.

    Returns:
        (channels, places): what it would have answered so.
    """
    deviation, mean = torch.std_mean(channels, dim=1)
    scale_outputs(layer, 1 / deviation, -mean / deviation)
    return (channels - mean[:, None]) / deviation[:, None]


def scale_outputs(layer: nn.Conv2d, factor: Tensor | float, addend: Tensor | float) -> None:
    """Make a layer answer `factor` times what it did, plus `addend`; numbers or (channels,)."""
    assert layer.bias is not None
    factors = torch.as_tensor(factor).expand(layer.out_channels)
    layer.weight.mul_(factors[:, None, None, None])
    layer.bias.mul_(factors).add_(addend)


def count_gmac(
    model: nn.Module, outputs: Callable[[Any, Tensor], Iterable[Tensor]], size: Size, *, backward: bool
) -> float:
    """Count the multiply-adds of a network's convolutions, in billions, by running it without data.

    Backward, a convolution costs as much as forward for the gradient of its weights, and as much again for that of its
    input; what is frozen needs neither, and the first layer that learns only the former. Padding counts as if computed.

    Args:
        model: the network as it will be timed.
        outputs: model and images (1, 3, H, W) to what the losses are taken of.
        size: (height, width) of the input.
        backward: count forward and backward, else forward only.
    """
    twin = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
        maps = outputs(twin, torch.empty(1, 3, *size, device="meta"))
        if backward:
            torch.stack([level.sum() for level in maps]).sum().backward()  # type: ignore[no-untyped-call]
    return int(counter.get_total_flops()) / 2e9


def heads_of(model: RetinaNet) -> list[Head]:
    """Return the heads of all stages, in their order."""
    return [model.head, *(stage.head for stage in getattr(model, "refine", ()))]


def our_outputs(model: RetinaNet, images: Tensor) -> list[Tensor]:
    """Return logits and deltas of every stage and level."""
    return [level for stage in model(images) for level in (*stage.logits, *stage.deltas)]


def torchvision_outputs(model: Any, images: Tensor) -> list[Tensor]:
    """Return logits and deltas, levels joined."""
    return list(model.head([*model.backbone(images).values()]).values())
