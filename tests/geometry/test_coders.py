from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from focaldet.errors import FocaldetError
from focaldet.geometry.coders import MAX_LOG_SCALE, decode_hbox, encode_hbox
from focaldet.geometry.hbox import clip_hbox


def _boxes(seed: int, count: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator, dtype=dtype) * 800 - 100
    return torch.cat([corner, corner + 1 + torch.rand(count, 2, generator=generator, dtype=dtype) * 50], dim=1)


@given(st.integers(0, 10_000))
def test_decode_undoes_encode(seed: int) -> None:
    boxes, anchors = _boxes(seed, 16), _boxes(seed + 1, 16)
    torch.testing.assert_close(decode_hbox(encode_hbox(boxes, anchors), anchors), boxes, rtol=0, atol=1e-9)


def test_no_deltas_give_the_anchor_back() -> None:
    anchors = torch.tensor([[-16.0, -8.0, 16.0, 8.0]])
    assert torch.equal(decode_hbox(torch.zeros(1, 4), anchors), anchors)
    assert torch.equal(encode_hbox(anchors, anchors), torch.zeros(1, 4))


def test_sizes_are_clamped_on_both_sides_and_centres_are_not() -> None:
    anchor = torch.tensor([0.0, 0.0, 16.0, 16.0], dtype=torch.float64)
    big, small = decode_hbox(torch.tensor([[0.0, 0.0, 99.0, 99.0], [0.0, 0.0, -99.0, -99.0]]).double(), anchor)
    torch.testing.assert_close(big[2:] - big[:2], torch.full((2,), 1000.0, dtype=torch.float64))
    torch.testing.assert_close(small[2:] - small[:2], torch.full((2,), 0.256, dtype=torch.float64))
    far = decode_hbox(torch.tensor([1e6, 0.0, 0.0, 0.0]).double(), anchor)
    assert far[0].item() == 16e6
    assert pytest.approx(4.135166556742356) == MAX_LOG_SCALE


def test_gradients() -> None:
    deltas = torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: decode_hbox(d, _boxes(3, 5)), (deltas,))


def test_half_precision_is_decoded_in_float32() -> None:
    anchors = torch.tensor([[1000.0, 1000.0, 1032.0, 1032.0]])
    with torch.autocast("cpu", torch.bfloat16):
        decoded = decode_hbox(torch.zeros(1, 4, dtype=torch.bfloat16), anchors)
    assert decoded.dtype == torch.float32 and torch.equal(decoded, anchors)


def test_wrong_shapes_are_said() -> None:
    with pytest.raises(FocaldetError, match="anchors has shape"):
        decode_hbox(torch.zeros(2, 4), torch.zeros(2, 5))


@pytest.mark.golden
def test_equals_the_stored_outputs(units: dict[str, np.ndarray]) -> None:
    boxes, deltas, truth = (torch.from_numpy(units[f"coder.{name}"]) for name in ("boxes", "deltas", "gt"))
    decoded, encoded = decode_hbox(deltas, boxes), encode_hbox(truth, boxes)
    # exp and log are the only operations that differ between machines: one unit in the last place
    torch.testing.assert_close(decoded, torch.from_numpy(units["coder.decoded.free"]), rtol=2e-7, atol=2e-4)
    clipped = torch.from_numpy(units["coder.decoded.clip"])
    torch.testing.assert_close(clip_hbox(decoded, (250, 310)), clipped, rtol=2e-7, atol=2e-4)
    torch.testing.assert_close(encoded, torch.from_numpy(units["coder.encoded"]), rtol=2e-7, atol=2e-7)
