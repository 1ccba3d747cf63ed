"""Resizing as TensorFlow 1 did it, for maps of a network and for pictures alike."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from focaldet.structures import Size


def resize_legacy(image_map: Tensor, size: Size) -> Tensor:
    """Resize maps (B, C, h, w) to (B, C, *size) as TensorFlow 1 does: bilinear, place i of n sampled at i * h / n.

    Places are counted from the first one's centre, without half a pixel, so of a doubled map the even places are
    copies, the odd ones means of two neighbours, and the last one is a copy again.

    >>> resize_legacy(Tensor([0.0, 2.0, 8.0]).reshape(1, 1, 1, 3), (1, 6)).flatten().tolist()
    [0.0, 1.0, 2.0, 5.0, 8.0, 8.0]
    """
    # With aligned corners, m + 1 places sample n + 1 at i * n / m. The one too many repeats the border on the way in.
    height, width = size
    padded = F.pad(image_map, (0, 1, 0, 1), mode="replicate")
    resized = F.interpolate(padded, size=(height + 1, width + 1), mode="bilinear", align_corners=True)
    return resized[:, :, :height, :width]
