"""Instance-level denoising (InLD) of R3Det++: maps weighted by what a segmentation learns (arXiv:2004.13316).

    P -> 3x3 dilated by 2, ... -> 3x3 dilated by 4 -> 1x1 -+-> 1x1 -> mask logits (taught by painted truth)
                                                           +-> 1x1 -> weights, multiplied with the refined map

`shared/spec/rotated.md` section 5.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from focaldet.models.convs import ConvReLU
from focaldet.models.fpn import init_xavier


class InLD(nn.Module):
    """Says of every place of every level what it shows, and how much each channel counts there.

    Args:
        channels: of the pyramid's maps.
        layers: dilated convolutions of each level's trunk: all but the last dilated by 2, the last by 4. At least one.
        num_masks: what the masks tell apart, background included.
    """

    def __init__(self, channels: int, layers: Sequence[int], num_masks: int) -> None:
        super().__init__()
        self.trunks = nn.ModuleList(build_trunk(channels, number) for number in layers)
        self.masks = nn.ModuleList(nn.Conv2d(channels, num_masks, 1) for _ in layers)
        self.weights = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in layers)
        init_xavier([module for module in self.modules() if isinstance(module, nn.Conv2d)])

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Turn maps (B, channels, H, W) into weights of that shape and mask logits (B, num_masks, H, W).

        The network that only predicts has no masks: then their list is empty.
        """
        enriched = [trunk(level) for trunk, level in zip(self.trunks, pyramid, strict=True)]
        weights = [conv(level) for conv, level in zip(self.weights, enriched, strict=True)]
        return weights, [conv(level) for conv, level in zip(self.masks, enriched, strict=False)]

    def without_masks(self) -> InLD:
        """Drop, in place, the branch that only teaches."""
        self.masks = nn.ModuleList()
        return self


def build_trunk(channels: int, layers: int) -> nn.Sequential:
    """Return `layers` dilated 3x3 convolutions and a 1x1, each with a ReLU."""
    dilations = [2] * (layers - 1) + [4]
    dilated = [ConvReLU(channels, channels, dilation=dilation) for dilation in dilations]
    return nn.Sequential(*dilated, ConvReLU(channels, channels, kernel_size=1))
