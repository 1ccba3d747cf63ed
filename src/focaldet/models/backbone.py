"""The backbone: any timm network that has features of stride 8, 16 and 32, with some of it kept from learning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import timm
import torch
from torch import Tensor, nn

from focaldet.errors import FocaldetError, UsageError, did_you_mean
from focaldet.models.folding import FoldedNorm, fold_norms

Style = Literal["pytorch", "caffe"]
Frozen = Literal["none", "stem", "stem+layer1", "weights-of-stem+layer1"]
Norm = Literal["frozen", "affine", "trained"]

WEIGHTS_ONLY: Frozen = "weights-of-stem+layer1"

BATCH_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FoldedNorm)


class Backbone(nn.Module):
    """A timm network that answers its maps, finest first.

    Training mode stops at what does not learn: frozen modules never leave evaluation mode, nor does a batch norm whose
    statistics are fixed.

    Args:
        body: the network; images (B, channels, H, W) to a list of maps.
        name: its name in timm.
        in_channels: channels of a picture.
        channels: channels of the maps.
        frozen: modules of the body that never learn.
        norm: what the batch norms of the others learn.
        frozen_statistics: frozen modules' norms do not follow the statistics of their inputs either.
    """

    def __init__(
        self,
        body: nn.Module,
        name: str,
        in_channels: int,
        channels: Sequence[int],
        frozen: Sequence[nn.Module],
        norm: Norm,
        frozen_statistics: bool = True,
    ) -> None:
        super().__init__()
        self.body, self.name, self.in_channels, self.channels = body, name, in_channels, tuple(channels)
        batch_norms = [module for module in body.modules() if isinstance(module, BATCH_NORMS)]
        fixed_norms = [] if norm == "trained" else batch_norms
        for module in [*frozen, *(fixed_norms if norm == "frozen" else [])]:
            module.requires_grad_(False)
        still = frozen if frozen_statistics else ()
        self._never_train = (*still, *fixed_norms)  # a tuple: these modules are registered once already, inside `body`

    def forward(self, images: Tensor) -> list[Tensor]:
        """Turn images (B, channels, H, W) into maps (B, channels of the level, H / stride, W / stride)."""
        maps: list[Tensor] = self.body(images)
        return maps

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training mode what learns, and only that."""
        super().train(mode)
        for module in self._never_train:
            module.eval()
        return self


def build_backbone(
    name: str,
    levels: Sequence[int] = (3, 4, 5),
    style: Style = "pytorch",
    frozen: Frozen = "stem+layer1",
    norm: Norm = "affine",
    in_channels: int = 3,
    norm_eps: float | None = None,
) -> Backbone:
    """Build a freshly initialized backbone.

    Args:
        name: a network of timm, such as "resnet50", "resnext101_64x4d", "mobilenetv2_100", "convnext_tiny".
        levels: which maps to answer, rising; C_k has stride 2^k.
        style: "caffe" moves the stride of a bottleneck from its 3x3 to its first 1x1 convolution.
        frozen: what never learns: nothing; what comes before the first stage; that and the stage of stride 4; of these
            two the weights alone, while "trained" norms there take the statistics of each batch (torchvision).
        norm: of batch norms, "frozen" fixes all, "affine" only the statistics, "trained" nothing; other norms learn.
        in_channels: channels of a picture.
        norm_eps: what every batch norm adds to the variance; None: as timm has it, 1e-5 in ResNets.

    Raises:
        UsageError: timm has no network of this name.
        FocaldetError: the network lacks a level, or cannot be of this style or frozen so.
    """
    indices = _feature_indices(name, levels)
    body = _create(name, in_chans=in_channels, out_indices=indices)
    if style == "caffe":
        move_strides_forward(body, name)
    if norm_eps is not None:
        set_norm_eps(body, norm_eps)
    if norm != "trained":  # the statistics never change: convolution and norm are one linear map
        fold_norms(body, in_channels)
    parts = _frozen_modules(body, name, frozen)
    return Backbone(body, name, in_channels, body.feature_info.channels(), parts, norm, frozen != WEIGHTS_ONLY).train()


def _create(name: str, **arguments: Any) -> Any:
    known = timm.list_models()
    if name not in known:
        raise UsageError(f"backbone={name!r} is no network of timm{did_you_mean(name, known)}")
    try:
        return timm.create_model(name, pretrained=False, features_only=True, **arguments)
    except (RuntimeError, AttributeError, AssertionError) as error:
        raise FocaldetError(f"{name} cannot be a backbone, timm gives no maps of it ({error}); try resnet50") from error


def _feature_indices(name: str, levels: Sequence[int]) -> tuple[int, ...]:
    """Return the positions of C_k among the network's features: of several with one stride, the last."""
    with torch.device("meta"):
        features = _create(name)
    strides: list[int] = [info["reduction"] for info in features.feature_info.info]
    if "NHWC" in str(getattr(features, "output_fmt", "")):
        raise FocaldetError(f"{name} cannot be a backbone: its maps have the channels last; try resnet50")
    index_of_stride = dict(zip(strides, range(len(strides)), strict=True))
    missing = [2**level for level in levels if 2**level not in index_of_stride]
    if missing:
        raise FocaldetError(
            f"{name} cannot be a backbone: its features have stride {', '.join(map(str, strides))}, "
            f"but {', '.join(map(str, missing))} is needed too"
        )
    return tuple(index_of_stride[2**level] for level in levels)


def move_strides_forward(body: nn.Module, name: str) -> None:
    """Make a ResNet caffe style: in the first block of layers 2 to 4, conv1 takes the stride of conv2.

    Shortcuts keep their stride, and blocks of two 3x3 convolutions have it in conv1 anyway (ResNet-18).
    """
    blocks = [getattr(body, f"layer{number}", [None])[0] for number in (2, 3, 4)]
    if not all(hasattr(block, "conv1") and hasattr(block, "conv2") for block in blocks):
        raise FocaldetError(
            f"style='caffe' says where a ResNet has its strides, but {name} is none; use style='pytorch'"
        )
    for block in blocks:
        if hasattr(block, "conv3"):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def set_norm_eps(body: nn.Module, eps: float) -> None:
    """Let every batch norm add `eps` to its variance: 1.001e-5 is the least that TensorFlow's fused norm works with."""
    for module in body.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = eps


def _frozen_modules(body: Any, name: str, frozen: Frozen) -> list[nn.Module]:
    """Return the modules before the first stage (of stride 4), and that stage too if asked for."""
    if frozen == "none":
        return []
    stage = next((info["module"] for info in body.feature_info.info if info["reduction"] == 4), None)
    names = [child for child, _ in body.named_modules() if child]
    stage = next((child for child in (stage, str(stage).replace(".", "_")) if child in names), None)
    if stage is None:
        raise FocaldetError(f"{name} has no stage of stride 4, so frozen={frozen!r} says nothing; use frozen='none'")
    container, _, number = stage.rpartition(".")
    before = [child for child, _ in body.named_children()]
    stem = before[: before.index(stage.split(".")[0])]
    layer1 = [f"{container}.{index}" for index in range(int(number) + 1)] if container else [stage]
    return [body.get_submodule(child) for child in [*stem, *(layer1 if frozen != "stem" else [])]]
