"""The head: a class tower and a box tower, shared by all levels (Lin et al. 2017, arXiv:1708.02002, section 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

from torch import Tensor, nn

from focaldet.models.convs import ConvNorm, ConvReLU, NormedConv2d

HeadInit = Literal["normal", "kaiming"]


class Head(nn.Module):
    """Says at every place, for every anchor there, which classes it shows and how its box must move.

    Args:
        in_channels: channels of the pyramid's maps.
        channels: channels inside the towers.
        num_convs: convolutions in each tower.
        num_anchors: anchors a place.
        num_classes: C.
        box_numbers: D, deltas a box: 4 for hboxes, 5 for rboxes, or 6 where directions are coded as vectors.
        init: of the towers: "normal" of deviation 0.01, under which the signal of narrow ones fades, or "kaiming".
        prior: score that every class starts from, so that the first loss is not that of a million false alarms.
        norm: behind the convolutions of the towers.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        num_convs: int = 4,
        num_anchors: int = 9,
        num_classes: int = 80,
        box_numbers: int = 4,
        init: HeadInit = "normal",
        prior: float = 0.01,
        norm: ConvNorm = "none",
    ) -> None:
        super().__init__()
        self.num_classes, self.num_anchors, self.box_numbers = num_classes, num_anchors, box_numbers
        self.in_channels, self.channels, self.num_convs = in_channels, channels, num_convs
        self.init, self.prior, self.norm = init, prior, norm
        widths = [in_channels, *[channels] * num_convs]
        self.class_tower, self.box_tower = build_tower(widths, norm), build_tower(widths, norm)
        self.logits = nn.Conv2d(widths[-1], num_anchors * num_classes, 3, padding=1)
        self.deltas = nn.Conv2d(widths[-1], num_anchors * box_numbers, 3, padding=1)
        for conv in [*self.class_tower, *self.box_tower, self.logits, self.deltas]:
            nn.init.normal_(conv.weight, std=0.01)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
        for conv in [*self.class_tower, *self.box_tower] if init == "kaiming" else []:
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        nn.init.constant_(self.logits.get_parameter("bias"), prior_bias(prior))

    def sibling(self, num_anchors: int) -> Head:
        """Return a freshly initialized head of the same form for another number of anchors a place."""
        return Head(
            in_channels=self.in_channels,
            channels=self.channels,
            num_convs=self.num_convs,
            num_anchors=num_anchors,
            num_classes=self.num_classes,
            box_numbers=self.box_numbers,
            init=self.init,
            prior=self.prior,
            norm=self.norm,
        )

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn maps (B, in_channels, H, W) into logits (B, A_l, C) and deltas (B, A_l, D), one tensor a level.

        Anchors run as in `AnchorGrid`: x fastest, then y, and the anchors of a place together.
        """
        logits = [as_rows(self.logits(self.class_tower(level)), self.num_classes) for level in pyramid]
        deltas = [as_rows(self.deltas(self.box_tower(level)), self.box_numbers) for level in pyramid]
        return logits, deltas


def build_tower(widths: Sequence[int], norm: ConvNorm) -> nn.Sequential:
    """Return 3x3 convolutions from each width to the next, with a norm if asked for, and ReLUs."""
    if norm != "none":
        return nn.Sequential(*(NormedConv2d(*pair, relu=True, bias=norm == "group") for pair in pairwise(widths)))
    return nn.Sequential(*(ConvReLU(*pair) for pair in pairwise(widths)))


def as_rows(level: Tensor, numbers: int) -> Tensor:
    """View a map (B, K * numbers, H, W) as rows (B, H * W * K, numbers), without a copy if it is channels_last."""
    return level.permute(0, 2, 3, 1).reshape(len(level), -1, numbers)


def prior_bias(prior: float) -> float:
    """Return the logit of a score.

    >>> round(prior_bias(0.01), 8)
    -4.59511985
    """
    return -math.log((1 - prior) / prior)
