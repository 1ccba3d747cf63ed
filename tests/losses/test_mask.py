from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from focaldet.errors import FocaldetError
from focaldet.losses.mask import mask_loss
from focaldet.structures import IGNORED

SIZES = ((4, 6), (2, 3), (1, 1))


def _logits(kinds: int = 5, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, kinds, *size, generator=generator).to(dtype).requires_grad_() for size in SIZES]


def _masks(kinds: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, kinds, (2, *size), generator=generator) for size in SIZES]


def test_is_the_mean_over_levels_of_the_mean_over_pixels() -> None:
    logits, masks = _logits(), _masks()
    expected = sum(F.cross_entropy(level, mask) for level, mask in zip(logits, masks, strict=True)) / len(SIZES)
    torch.testing.assert_close(mask_loss(logits, masks), expected)


def test_written_out() -> None:
    logits = [torch.tensor([0.0, 1.0, 3.0]).view(1, 3, 1, 1)]
    expected = math.log(1 + math.e + math.e**3) - 1
    assert mask_loss(logits, [torch.tensor([[[1]]])]).item() == pytest.approx(expected, rel=1e-6)


def test_ignored_pixels_do_not_count() -> None:
    logits, masks = _logits(), _masks()
    masks[0][:, 2:] = IGNORED
    upper = F.cross_entropy(logits[0][:, :, :2], masks[0][:, :2])
    others = [F.cross_entropy(level, mask) for level, mask in zip(logits[1:], masks[1:], strict=True)]
    loss = mask_loss(logits, masks)
    torch.testing.assert_close(loss, torch.stack([upper, *others]).mean())
    loss.backward()
    assert logits[0].grad is not None and not logits[0].grad[:, :, 2:].any()


def test_a_level_without_any_pixel_costs_nothing() -> None:
    logits, masks = _logits(), _masks()
    for mask in masks:
        mask.fill_(IGNORED)
    loss = mask_loss(logits, masks)
    assert loss.item() == 0
    loss.backward()
    assert all(level.grad is not None and not level.grad.any() for level in logits)


def test_is_computed_in_full_precision() -> None:
    half = _logits(dtype=torch.bfloat16)
    loss = mask_loss(half, _masks())
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, mask_loss([level.float() for level in half], _masks()))


def test_logits_of_any_size_are_finite() -> None:
    logits = [torch.tensor([1e30, -1e30, 0.0]).view(1, 3, 1, 1).requires_grad_()]
    loss = mask_loss(logits, [torch.tensor([[[0]]])])
    loss.backward()
    assert loss.item() == 0 and logits[0].grad is not None and bool(logits[0].grad.isfinite().all())


def test_masks_of_other_maps_are_refused() -> None:
    with pytest.raises(FocaldetError, match=r"logits of masks lie on maps \[\(2, 4, 6\)"):
        mask_loss(_logits(), [mask.transpose(1, 2) for mask in _masks()])
