from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from focaldet.losses import focal
from focaldet.losses.focal import focal_loss

NONE = torch.zeros(0, dtype=torch.int64)


def plain(logits: Tensor, labels: Tensor, kept: Tensor, alpha: float, gamma: float) -> Tensor:
    """The formula as the paper writes it, with one-hot targets and the stable cross-entropy; C means background."""
    target = F.one_hot(labels, logits.shape[1] + 1)[:, :-1].to(logits)
    p = logits.sigmoid()
    wrong = (1 - p) * target + p * (1 - target)
    entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    each = (alpha * target + (1 - alpha) * (1 - target)) * wrong**gamma * entropy
    return each[kept].sum()


def _case(seed: int, rows: int, classes: int, spread: float) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, classes, generator=generator, dtype=torch.float64) * spread
    labels = torch.randint(0, 3 * classes, (rows,), generator=generator).clamp(max=classes)
    return logits, labels, torch.rand(rows, generator=generator) < 0.8


@given(
    st.integers(0, 1000),
    st.sampled_from([1, 7, 64]),
    st.sampled_from([1, 2, 5]),
    st.sampled_from([0.1, 3.0, 60.0]),
    st.sampled_from([0.0, 0.25, 1.0]),
    st.sampled_from([0.0, 0.5, 2.0, 3.7]),
    st.sampled_from([1, 16, 1 << 16]),
)
def test_equals_the_formula_with_its_gradient(
    seed: int, rows: int, classes: int, spread: float, alpha: float, gamma: float, block: int
) -> None:
    logits, labels, kept = _case(seed, rows, classes, spread)
    positive = labels < classes
    ours, theirs = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    shown, excluded = positive.nonzero()[:, 0], (~kept).nonzero()[:, 0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(focal, "BLOCK", block)  # so that blocks end in the middle of small tensors too
        loss = focal_loss(ours, shown, labels[positive], excluded, 3.0, alpha, gamma)
    expected = plain(theirs, labels, kept, alpha, gamma) / 3.0
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-11, atol=1e-14)
    if gamma in (0.0, 2.0) or spread < 60:  # autograd of p**gamma has no finite answer at p = 0 for other powers
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-12)
    assert ours.grad is not None and ours.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 1.5, 2.0])
def test_gradients(gamma: float) -> None:
    logits, labels, kept = _case(3, 12, 4, 2.0)
    positive, excluded = labels < 4, (~kept).nonzero()[:, 0]
    shown = positive.nonzero()[:, 0]

    def loss(x: Tensor) -> Tensor:
        return focal_loss(x, shown, labels[positive], excluded, 2.0, 0.25, gamma)

    assert torch.autograd.gradcheck(loss, (logits.requires_grad_(),))


def test_gamma_zero_is_cross_entropy() -> None:
    logits, labels, _ = _case(5, 30, 6, 4.0)
    positive = labels < 6
    loss = focal_loss(logits, positive.nonzero()[:, 0], labels[positive], NONE, alpha=0.5, gamma=0.0)
    target = F.one_hot(labels, 7)[:, :-1].double()
    torch.testing.assert_close(2 * loss, F.binary_cross_entropy_with_logits(logits, target, reduction="sum"))


@pytest.mark.parametrize("value", [88.0, 100.0, 1e4, 3e38])
def test_extreme_logits_stay_finite_and_exact(value: float) -> None:
    logits = torch.tensor([[value, -value], [value, -value]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([1]), torch.tensor([1]), NONE)
    # row 0: a false alarm of `value` and a right no; row 1: the same false alarm and a miss by `value`
    torch.testing.assert_close(loss, torch.tensor(2 * 0.75 * value + 0.25 * value))
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[0.75, 0.0], [0.75, -0.25]]))


def test_excluded_rows_may_hold_anything() -> None:
    logits = torch.tensor([[float("nan")], [0.5], [float("inf")]], requires_grad=True)
    loss = focal_loss(logits, NONE, NONE, torch.tensor([0, 2]))
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad[[0, 2]].eq(0).all()


def test_never_in_half_precision() -> None:
    logits = (torch.randn(50, 8, generator=torch.Generator().manual_seed(0)) - 4).bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = focal_loss(logits, NONE, NONE, NONE)
    loss.backward()
    exact = logits.detach().float().requires_grad_()
    expected = focal_loss(exact, NONE, NONE, NONE)
    expected.backward()
    assert loss.dtype == torch.float32 and torch.equal(loss, expected)
    assert logits.grad is not None and exact.grad is not None and logits.grad.dtype == torch.bfloat16
    assert torch.equal(logits.grad, exact.grad.bfloat16())


def test_any_layout_and_repeated_backward() -> None:
    logits = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).transpose(1, 2).requires_grad_()
    loss = 3 * focal_loss(logits, torch.tensor([5]), torch.tensor([2]), torch.tensor([0]))
    loss.backward(retain_graph=True)
    assert logits.grad is not None
    once = logits.grad.clone()
    loss.backward()
    assert torch.equal(logits.grad, 2 * once)
    flat = logits.detach().reshape(40, 3)
    assert torch.equal(loss, 3 * focal_loss(flat, torch.tensor([5]), torch.tensor([2]), torch.tensor([0])))


def test_no_rows_no_loss() -> None:
    logits = torch.zeros(0, 4, requires_grad=True)
    loss = focal_loss(logits, NONE, NONE, NONE)
    loss.backward()
    assert loss.item() == 0 and logits.grad is not None


@pytest.mark.golden
def test_equals_the_stored_outputs(units: dict[str, np.ndarray]) -> None:
    logits, labels, weights = (torch.from_numpy(units[f"focal.{name}"]) for name in ("logits", "labels", "weights"))
    assert set(weights.unique().tolist()) <= {0.0, 1.0}
    logits.requires_grad_()
    positive = labels < 80
    normalizer = 7 + torch.finfo(torch.float32).eps
    shown, excluded = positive.nonzero()[:, 0], (weights == 0).nonzero()[:, 0]
    loss = focal_loss(logits, shown, labels[positive], excluded, normalizer)
    loss.backward()
    # float32 sums: losses agree to 1e-6 relative between machines, see the folder's README
    assert loss.item() == pytest.approx(units["focal.avg7"].item(), rel=1e-6)
    torch.testing.assert_close(logits.grad, torch.from_numpy(units["focal.grad_avg7"]), rtol=1e-5, atol=1e-7)
    for row in range(len(logits)):  # each row by itself equals the sum of its stored elements
        own = torch.tensor([0]) if positive[row] else NONE
        alone = focal_loss(logits[row : row + 1], own, labels[row : row + 1][: len(own)], NONE)
        stored = units["focal.each"][row].astype(np.float64).sum()
        if weights[row]:
            assert alone.item() == pytest.approx(stored, rel=1e-6)


@pytest.mark.golden
@pytest.mark.parametrize("name", ["focal_loss", "focal_loss_", "focal_loss_nopos"])
def test_equals_the_original_rotated_programs(tf_units: dict[str, np.ndarray], name: str) -> None:
    logits, one_hot, state = (torch.from_numpy(tf_units[f"{name}.in.{part}"]) for part in ("pred", "labels", "state"))
    shown, excluded = (state == 1).nonzero()[:, 0], (state == -1).nonzero()[:, 0]
    # two variants of one case hold the labels of rows without a state of 1 too; they are background there
    wrong = (one_hot.sum(1) > 0) & (state == 0)
    shown = torch.cat([shown, wrong.nonzero()[:, 0]]).sort().values
    loss = focal_loss(
        logits.requires_grad_(), shown, one_hot[shown].argmax(1), excluded, max(1, int((state == 1).sum()))
    )
    loss.backward()
    assert loss.item() == pytest.approx(tf_units[f"{name}.out.loss"].item(), rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.from_numpy(tf_units[f"{name}.out.grad"]), rtol=1e-5, atol=1e-6)
