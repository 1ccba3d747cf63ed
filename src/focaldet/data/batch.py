"""Samples of one size class -> Batch: normalize, pad, collate. The hot path of the loader's workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.structures import Batch, Sample, Truth, round_up


def collate(
    samples: Sequence[Sample],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: Literal["rgb", "bgr"] = "rgb",
    pad: int = 32,
    unit_range: bool = False,
    difficult: Literal["ignored", "trained"] = "ignored",
) -> Batch:
    """Normalize samples and pad them, right and below, to one size with zeros (spec section 10).

    Crowds, and difficult objects unless they are trained on, become `Truth.ignored`. The boxes are the enclosing hboxes
    of the corners, or of samples with rotated objects the corners themselves.

    Args:
        samples: at least one, all of the same number of channels.
        mean: subtracted, a channel, in the network's order and in grey levels.
        std: divided by, likewise.
        channel_order: the network's own; samples are RGB.
        pad: the size is the largest of the samples', rounded up to a multiple of this.
        unit_range: as in `normalize`.
        difficult: what becomes of difficult objects; the DOTA rows train on them.
    """
    sizes = [sample.size for sample in samples]
    padded = [round_up(size, pad) for size in sizes]
    return Batch(
        images=normalize([sample.image for sample in samples], mean, std, channel_order, pad, unit_range),
        truths=[truth_of(sample, difficult) for sample in samples],
        sizes=sizes,
        padded=padded,
        scales=torch.tensor([sample.scale for sample in samples], dtype=torch.float64),
        originals=[sample.original for sample in samples],
        ids=[sample.id for sample in samples],
        indices=[sample.index for sample in samples],
        names=[sample.name for sample in samples],
    )


def normalize(
    pictures: Sequence[npt.NDArray[Any]],
    mean: Sequence[float],
    std: Sequence[float],
    channel_order: Literal["rgb", "bgr"] = "rgb",
    pad: int = 32,
    unit_range: bool = False,
) -> Tensor:
    """Return (B, channels, H, W) float32, channels last in memory: subtracted, divided, then padded with zeros.

    Args:
        pictures: (H, W, channels) uint8, or float32 of the same range; RGB where there are three.
        mean: as in `collate`.
        std: likewise.
        channel_order: likewise.
        pad: likewise.
        unit_range: divide pictures, mean and std by 255 first, as the original rotated program does: the same numbers
            up to float32's rounding.
    """
    channels = pictures[0].shape[2]
    if not (len(mean) == len(std) == channels) or any(picture.shape[2] != channels for picture in pictures):
        found = sorted({picture.shape[2] for picture in pictures})
        raise FocaldetError(
            f"pictures with {found} channels do not fit mean and std of {len(mean)} and {len(std)} numbers"
        )
    sizes = [round_up(picture.shape[:2], pad) for picture in pictures]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    # Rows of W * channels numbers: long runs for the processor, where a broadcast over three channels is short ones.
    rows = np.zeros((len(pictures), height, width * channels), dtype=np.float32)
    unit = 255 if unit_range else 1
    mean_row, std_row = (np.tile(np.divide(numbers, unit).astype(np.float32), width) for numbers in (mean, std))
    for row, picture in zip(rows, pictures, strict=True):
        ordered = picture[:, :, ::-1] if channel_order == "bgr" else picture
        values = ordered.reshape(len(picture), -1)
        target = row[: values.shape[0], : values.shape[1]]
        if unit_range:
            values = np.divide(values, np.float32(unit), dtype=np.float32)
        np.subtract(values, mean_row[: values.shape[1]], out=target, dtype=np.float32)
        np.divide(target, std_row[: values.shape[1]], out=target)
    return torch.from_numpy(rows.reshape(len(pictures), height, width, channels)).permute(0, 3, 1, 2)


def truth_of(sample: Sample, difficult: Literal["ignored", "trained"] = "ignored") -> Truth:
    """Return a sample's objects as tensors, in the frame of its picture: hboxes, or polygons of rotated objects."""
    ignored = sample.crowd | sample.difficult if difficult == "ignored" else sample.crowd
    return Truth(
        boxes=torch.from_numpy(sample.corners if sample.rotated else sample.hboxes),
        labels=torch.from_numpy(sample.labels),
        ignored=torch.from_numpy(ignored) if ignored.any() else None,
    )
