"""Loss of the semantic branch of R3Det++ (Yang et al. 2020, arXiv:2004.13316): what every pixel of a level shows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.geometry.hbox import in_full_precision
from focaldet.structures import IGNORED


def mask_loss(logits: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """Return the mean over levels of the mean softmax cross-entropy of a level's pixels; never in half precision.

    Args:
        logits: one (B, K, H, W) a level.
        masks: one (B, H, W) int64 a level, 0 to K - 1, or IGNORED; a level without any other pixel costs 0.

    Raises:
        FocaldetError: masks of other shapes than the logits.

    >>> mask_loss([torch.zeros(1, 4, 2, 2)], [torch.zeros(1, 2, 2, dtype=torch.int64)])
    tensor(1.3863)
    """
    shapes = [(len(level), *level.shape[2:]) for level in logits], [tuple(mask.shape) for mask in masks]
    if shapes[0] != shapes[1]:
        raise FocaldetError(f"logits of masks lie on maps {shapes[0]}, painted masks on {shapes[1]}; paint on the same")
    losses = [
        F.cross_entropy(in_full_precision(level), mask, ignore_index=IGNORED, reduction="sum")
        / (mask != IGNORED).sum().clamp(min=1)
        for level, mask in zip(logits, masks, strict=True)
    ]
    return torch.stack(losses).mean()
