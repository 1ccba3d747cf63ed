"""The neck: a feature pyramid from the backbone's maps C3, C4, C5 to P3-P7 (Lin et al. 2016, arXiv:1612.03144).

Two of them, with the same parameters under the same names: `FPN` of the COCO rows and of mmrotate, and `AverageFPN` of
the original rotated program.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from focaldet.errors import FocaldetError
from focaldet.geometry.resize import resize_legacy
from focaldet.models.convs import ConvNorm, build_conv

NeckKind = Literal["fpn", "fpn-average"]
P6Source = Literal["c5", "p5"]
NeckInit = Literal["xavier", "kaiming"]

TOP_BACKBONE_LEVEL = 5
"""Level of the backbone's last map, C5, of stride 32."""


class FPN(nn.Module):
    """Brings coarse meaning down to fine maps, then goes on to coarser maps than the backbone has.

    C_k -1x1-> lateral, plus the coarser sum enlarged -3x3-> P_k, up to P5; above, 3x3 convolutions of stride 2.

    Args:
        in_channels: channels of the backbone's maps, finest first; the last one belongs to the coarsest level in use.
        out_channels: channels of every P.
        levels: rising by one; those up to 5 have a map of the backbone each.
        p6_from: what P6 is computed from, the backbone's C5 or the pyramid's P5.
        p7_relu: ReLU between P6 and P7, and between further levels, as in the RetinaNet paper.
        norm: behind every convolution; with "group" the pyramid's scale does not depend on the backbone's.
        init: how the convolutions start, Xavier-uniform or, by their inputs alone, Kaiming-uniform.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 256,
        levels: Sequence[int] = (3, 4, 5, 6, 7),
        p6_from: P6Source = "c5",
        p7_relu: bool = False,
        norm: ConvNorm = "none",
        init: NeckInit = "xavier",
    ) -> None:
        super().__init__()
        self.p6_from, self.p7_relu = p6_from, p7_relu
        num_extra = sum(level > TOP_BACKBONE_LEVEL for level in levels)
        p6_channels = in_channels[-1] if p6_from == "c5" else out_channels
        extra_channels = [p6_channels, *[out_channels] * num_extra][:num_extra]
        self.lateral = nn.ModuleList(build_conv(norm, channels, out_channels, 1) for channels in in_channels)
        self.output = nn.ModuleList(
            [build_conv(norm, out_channels, out_channels) for _ in in_channels]
            + [build_conv(norm, channels, out_channels, stride=2) for channels in extra_channels]
        )
        (init_xavier if init == "xavier" else init_kaiming)([*self.lateral, *self.output])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps (B, channels of the level, H, W) into pyramid maps (B, out_channels, H, W), both finest first."""
        merged = [conv(image_map) for conv, image_map in zip(self.lateral, maps, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            coarser = F.interpolate(merged[finer + 1], size=merged[finer].shape[-2:], mode="nearest")
            merged[finer] = merged[finer].add_(coarser)
        pyramid = [conv(image_map) for conv, image_map in zip(self.output, merged, strict=False)]
        for number, conv in enumerate(self.output[len(merged) :]):
            source = pyramid[-1]
            if number == 0 and self.p6_from == "c5":
                source = maps[-1]
            elif number > 0 and self.p7_relu:
                source = source.relu()
            pyramid.append(conv(source))
        return pyramid


class AverageFPN(nn.Module):
    """The pyramid of the original rotated program: it averages where the paper adds, and pads as TensorFlow does.

    P_k' = (1x1(C_k) + P_k+1' enlarged) / 2, then 3x3 convolutions from P_k' to P_k; P6 from P5, and P7 from ReLU(P6).
    `shared/spec/rotated.md` section 1.2.

    Args:
        in_channels: channels of the backbone's maps, finest first; the last one belongs to the coarsest level in use.
        out_channels: channels of every P.
        levels: rising by one; those up to 5 have a map of the backbone each.
    """

    def __init__(
        self, in_channels: Sequence[int], out_channels: int = 256, levels: Sequence[int] = (3, 4, 5, 6, 7)
    ) -> None:
        super().__init__()
        num_extra = sum(level > TOP_BACKBONE_LEVEL for level in levels)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, out_channels, 1) for channels in in_channels)
        self.output = nn.ModuleList(
            [nn.Conv2d(out_channels, out_channels, 3, padding=1) for _ in in_channels]
            + [Conv2dSame(out_channels, out_channels, 3, stride=2) for _ in range(num_extra)]
        )
        init_xavier([*self.lateral, *self.output])

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Turn maps (B, channels of the level, H, W) into pyramid maps (B, out_channels, H, W), both finest first."""
        merged = [conv(image_map) for conv, image_map in zip(self.lateral, maps, strict=True)]
        for finer in range(len(merged) - 2, -1, -1):
            height, width = merged[finer].shape[-2:]
            merged[finer] = merged[finer].lerp_(resize_legacy(merged[finer + 1], (height, width)), 0.5)
        pyramid = [conv(image_map) for conv, image_map in zip(self.output, merged, strict=False)]
        for number, conv in enumerate(self.output[len(merged) :]):
            pyramid.append(conv(pyramid[-1] if number == 0 else pyramid[-1].relu()))
        return pyramid


def build_neck(
    kind: NeckKind,
    in_channels: Sequence[int],
    out_channels: int,
    levels: Sequence[int],
    p6_from: P6Source,
    p7_relu: bool,
    norm: ConvNorm,
    init: NeckInit = "xavier",
) -> FPN | AverageFPN:
    """Build a freshly initialized neck.

    Raises:
        FocaldetError: `AverageFPN` has one way to P6 and P7, and no norm; another was asked for.
    """
    if kind == "fpn":
        return FPN(in_channels, out_channels, levels, p6_from, p7_relu, norm, init)
    if (p6_from, p7_relu, norm) != ("p5", True, "none"):
        raise FocaldetError(
            f"neck='fpn-average' goes with p6_from='p5', p7_relu=True and neck_norm='none' alone, "
            f"but these are {p6_from!r}, {p7_relu} and {norm!r}; change them, or take neck='fpn'"
        )
    return AverageFPN(in_channels, out_channels, levels)


def init_xavier(convs: Sequence[nn.Conv2d]) -> None:
    """Let convolutions start Xavier-uniform, without bias."""
    for conv in convs:
        nn.init.xavier_uniform_(conv.weight)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)


def init_kaiming(convs: Sequence[nn.Conv2d]) -> None:
    """Let convolutions start Kaiming-uniform with a = 1, without bias: the pyramids of detectron2 and torchvision."""
    for conv in convs:
        nn.init.kaiming_uniform_(conv.weight, a=1)
        if conv.bias is not None:
            nn.init.zeros_(conv.bias)
