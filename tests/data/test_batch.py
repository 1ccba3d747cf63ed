from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch

from focaldet.data.batch import collate, normalize, truth_of
from focaldet.data.dataset import Dataset
from focaldet.errors import FocaldetError

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


@pytest.mark.golden
@pytest.mark.parametrize(
    ("style", "mean", "std", "order"),
    [("pytorch", MEAN, STD, "rgb"), ("caffe", (103.530, 116.280, 123.675), (1.0, 1.0, 1.0), "bgr")],
)
def test_preprocessing_equals_the_reference_to_the_bit(
    golden: Path, style: str, mean: tuple[float, ...], std: tuple[float, ...], order: Literal["rgb", "bgr"]
) -> None:
    units = np.load(golden / "coco/units.npz")
    pictures = [units["resize.out"][:, :, ::-1], units["resize.in"][:, :, ::-1]]  # stored as BGR
    images = normalize(pictures, mean, std, order, pad=32)
    assert list(images.shape) == units[f"preprocess.{style}.shape"].tolist()
    assert np.array_equal(images[:, :, ::3, ::3].numpy(), units[f"preprocess.{style}"])
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_padding_is_zero_after_normalization_and_as_small_as_can_be() -> None:
    pictures = [np.full((33, 20, 3), 200, dtype=np.uint8), np.full((10, 70, 3), 50, dtype=np.uint8)]
    images = normalize(pictures, MEAN, STD, pad=32)
    assert images.shape == (2, 3, 64, 96)
    assert (images[0, :, 33:] == 0).all() and (images[0, :, :, 20:] == 0).all()
    assert (images[0, :, :33, :20] > 0).all()
    assert (images[1, :, :10, :70] < 0).all() and (images[1, :, 10:] == 0).all()


def test_every_field_of_a_batch(saved_dataset: Dataset) -> None:
    samples = [saved_dataset.sample(0), saved_dataset.sample(1)]
    samples[0].crowd[0] = True
    batch = collate(samples, mean=MEAN, std=STD, pad=16)
    assert batch.images.shape == (2, 3, 64, 64)
    assert batch.sizes == batch.originals == [(40, 60), (60, 40)]
    assert batch.padded == [(48, 64), (64, 48)]
    assert batch.scales.tolist() == [[1, 1], [1, 1]]
    assert batch.scales.dtype == torch.float64
    assert (batch.ids, batch.indices, batch.names) == ([1, 2], [0, 1], ["0.png", "1.png"])
    assert batch.targets is None
    crowd, plain = batch.truths
    assert crowd.ignored is not None and crowd.ignored.tolist() == [True]
    assert plain.ignored is None
    assert plain.boxes.tolist() == [[4, 6, 24, 22]]
    assert plain.boxes.dtype == torch.float32
    assert plain.labels.dtype == torch.int64


def test_difficult_objects_are_ignored_and_none_is_fine(saved_dataset: Dataset) -> None:
    sample = saved_dataset.sample(0)
    sample.difficult[0] = True
    ignored = truth_of(sample).ignored
    assert ignored is not None and ignored.all()
    empty = saved_dataset.keep_objects(np.zeros(9, dtype=bool)).sample(0)
    assert truth_of(empty).boxes.shape == (0, 4)


def test_other_numbers_of_channels() -> None:
    images = normalize([np.full((8, 8, 1), 128, dtype=np.uint8)], (128.0,), (2.0,), pad=8)
    assert images.shape == (1, 1, 8, 8)
    assert (images == 0).all()
    with pytest.raises(FocaldetError, match=r"pictures with \[1\] channels do not fit mean and std of 3 and 3 numbers"):
        normalize([np.zeros((8, 8, 1), dtype=np.uint8)], MEAN, STD)
