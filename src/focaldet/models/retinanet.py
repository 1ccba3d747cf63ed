"""RetinaNet (Lin et al. 2017, arXiv:1708.02002): images -> one stage of class logits and box deltas for every anchor.

    images -> backbone -> C3 C4 C5 -> FPN -> P3 P4 P5 P6 P7 -> head, on each level -> logits, deltas

Start here, then: `backbone.py`, `fpn.py`, `heads.py`, `anchors.py`. What the anchors should have said is the work of
`targets`, the loss that of `losses`, and the way from logits to boxes that of `postprocess`. Weights come in by
`weights.py`, `tensorflow.py` and `imagenet.py`; `folding.py` and `inference.py` make it fast.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from focaldet.models.anchors import COCO_ANCHORS, AnchorShapes
from focaldet.models.backbone import Backbone, Frozen, Norm, Style, build_backbone
from focaldet.models.convs import ConvNorm
from focaldet.models.fpn import FPN, TOP_BACKBONE_LEVEL, AverageFPN, NeckInit, NeckKind, P6Source, build_neck
from focaldet.models.heads import Head, HeadInit
from focaldet.structures import Size, StageOutput


class RetinaNet(nn.Module):
    """A backbone, a feature pyramid, and one head for all of its levels.

    Args:
        backbone: images to maps, finest first.
        neck: those maps to the pyramid's.
        head: the pyramid's maps to logits and deltas.
        anchors: the boxes that the deltas move.
    """

    def __init__(self, backbone: Backbone, neck: FPN | AverageFPN, head: Head, anchors: AnchorShapes) -> None:
        super().__init__()
        self.backbone, self.neck, self.head, self.anchors = backbone, neck, head, anchors

    def forward(self, images: Tensor) -> list[StageOutput]:
        """Say what is where, in a list of one stage.

        Args:
            images: (B, channels, H, W) float, normalized and padded, channels in the recipe's order.
        """
        pyramid = self.features(images)[1]  # the backbone's maps are not kept for the head's time
        logits, deltas = self.head(pyramid)
        return [StageOutput(logits, deltas, self.anchors_of(pyramid))]

    def features(self, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Return the backbone's maps [C3, C4, C5] and the pyramid's [P3, ..., P7], each (B, channels, H, W)."""
        # Head and convolutions work along the channels: NHWC in memory makes rows of anchors views of the maps.
        maps = self.backbone(images.contiguous(memory_format=torch.channels_last))
        return maps, self.neck(maps)

    def anchors_of(self, pyramid: list[Tensor]) -> list[Tensor]:
        """Return the (1, A_l, D) anchors of each map, in the frame `input`, as deltas are relative to them."""
        sizes: list[Size] = [(level.shape[-2], level.shape[-1]) for level in pyramid]
        grid = self.anchors.grid(sizes, pyramid[0].device).as_coded()
        return [level[None] for level in grid.levels()]


def build_retinanet(
    *,
    backbone: str = "resnet50",
    style: Style = "pytorch",
    frozen: Frozen = "stem+layer1",
    backbone_norm: Norm = "affine",
    norm_eps: float | None = None,
    in_channels: int = 3,
    neck: NeckKind = "fpn",
    neck_channels: int = 256,
    neck_norm: ConvNorm = "none",
    neck_init: NeckInit = "xavier",
    p6_from: P6Source = "c5",
    p7_relu: bool = False,
    head_convs: int = 4,
    head_channels: int = 256,
    head_norm: ConvNorm = "none",
    num_classes: int = 80,
    anchors: AnchorShapes = COCO_ANCHORS,
    head_init: HeadInit = "normal",
    prior: float = 0.01,
    box_numbers: int | None = None,
) -> RetinaNet:
    """Build a freshly initialized RetinaNet; most arguments are named as a Recipe's fields, defaults are the COCO R-50.

    Args:
        backbone: name of a timm network with features of stride 8, 16 and 32.
        style: where a ResNet's bottlenecks have their stride.
        frozen: which first part of the backbone never learns.
        backbone_norm: whether the backbone's batch norms learn nothing, scale and shift, or everything.
        norm_eps: what the backbone's batch norms add to the variance; None: as timm has it.
        in_channels: channels of a picture.
        neck: "fpn" adds maps, "fpn-average" is the pyramid of the original rotated program.
        neck_channels: channels of the pyramid.
        neck_norm: behind the pyramid's convolutions.
        neck_init: how these start.
        p6_from: what P6 is computed from.
        p7_relu: ReLU between P6 and P7.
        head_convs: convolutions in each tower of the head.
        head_channels: channels of the towers.
        head_norm: behind the convolutions of the towers.
        num_classes: C.
        anchors: what stands at every place. Their levels, rising by one from 2 or 3, are the pyramid's; they
            say how many numbers a box has.
        head_init: how the towers of the head start.
        prior: score that every class starts from.
        box_numbers: deltas a box; None: as many numbers as an anchor has.

    Raises:
        UsageError: no network has this name.
        FocaldetError: the network has no features of the strides asked for, or the neck does not go with the rest.
    """
    levels = anchors.levels
    backbone_levels = tuple(level for level in levels if level <= TOP_BACKBONE_LEVEL)
    body = build_backbone(backbone, backbone_levels, style, frozen, backbone_norm, in_channels, norm_eps)
    pyramid = build_neck(neck, body.channels, neck_channels, levels, p6_from, p7_relu, neck_norm, neck_init)
    head = Head(
        in_channels=neck_channels,
        channels=head_channels,
        num_convs=head_convs,
        num_anchors=anchors.num_anchors,
        num_classes=num_classes,
        box_numbers=box_numbers or anchors.box_numbers,
        init=head_init,
        prior=prior,
        norm=head_norm,
    )
    return RetinaNet(body, pyramid, head, anchors)
