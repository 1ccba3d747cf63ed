"""Sigmoid focal loss (Lin et al. 2017, arXiv:1708.02002, section 3), for anchors that are nearly all background.

    FL(x, t) = alpha_t (1 - p_t)^gamma CE(x, t),    p = sigmoid(x),    p_t = p or 1 - p,    alpha_t = alpha or 1 - alpha

The dense pass takes every element as background, in blocks that stay in the cache, with one sigmoid and one log1p; no
one-hot targets. The elements of positive anchors are then put right and excluded rows emptied, by index. The gradient
has a closed form and is written in the same pass, so that nothing else is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from focaldet.geometry.hbox import in_full_precision

BLOCK = 1 << 16
"""Logits a thread works on in one go: its float32 buffers of this length (1 MiB) stay in the cache."""


def focal_loss(
    logits: Tensor,
    positives: Tensor,
    labels: Tensor,
    excluded: Tensor,
    normalizer: Tensor | float = 1.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> Tensor:
    """Sum the sigmoid focal loss over rows of logits; differentiable in the logits, once.

    Never computed in half precision, also under autocast; the gradient has the dtype of the logits.

    Args:
        logits: (..., C), before the sigmoid; R rows when all axes but the last are joined. Best contiguous.
        positives: (P,) int64 rows that show a class, rising.
        labels: (P,) int64 that class; every other class of the row, and every row not named, has target 0.
        excluded: (E,) int64 rows that take no part, rising.
        normalizer: what the sum is divided by.
        alpha: weight of the elements with target 1; the others weigh 1 - alpha.
        gamma: how strongly easy elements fade; 0 gives cross-entropy. Not negative.

    Returns:
        A scalar, at least float32.

    >>> logits, none = torch.zeros(2, 3), torch.tensor([], dtype=torch.int64)
    >>> focal_loss(logits, torch.tensor([1]), torch.tensor([2]), none, alpha=0.5, gamma=0.0) / (6 * 0.5)
    tensor(0.6931)
    """
    loss: Tensor = _FocalLoss.apply(logits, positives, labels, excluded, normalizer, alpha, gamma)
    return loss


class _FocalLoss(torch.autograd.Function):
    """See `focal_loss`; the gradient is worked out with the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        positives: Tensor,
        labels: Tensor,
        excluded: Tensor,
        normalizer: Tensor | float,
        alpha: float,
        gamma: float,
    ) -> Tensor:
        rows = logits.reshape(-1, logits.shape[-1])
        gradient = torch.empty_like(rows) if ctx.needs_input_grad[0] else None
        background, foreground = (1 - alpha) / normalizer, alpha / normalizer
        buffers: list[Tensor] = []
        sums = []
        for start, stop, shown, out in _blocks(rows, positives, excluded):
            block = in_full_precision(rows[start:stop])
            buffers = buffers or [torch.empty_like(block) for _ in range(4)]
            loss, slope = _background_terms(block, background, gamma, gradient is not None, buffers)
            where = (positives[shown] - start, labels[shown])
            # An element with target 1 is one with target 0 looked at from the other side of 0.
            loss_shown, slope_shown = _background_terms(-block[where], foreground, gamma, gradient is not None)
            loss[where] = loss_shown
            loss.index_fill_(0, excluded[out] - start, 0)
            sums.append(loss.sum())
            if gradient is not None:
                slope[where] = -slope_shown
                gradient[start:stop] = slope.index_fill_(0, excluded[out] - start, 0)
        if gradient is not None:
            ctx.save_for_backward(gradient.view(logits.shape))
        return torch.stack(sums).sum() if sums else in_full_precision(rows).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        if (
            grad_output.is_cpu and grad_output.item() == 1
        ):  # the usual case; saves a pass (elsewhere it would cost a wait)
            return gradient, None, None, None, None, None, None
        return gradient * grad_output.to(gradient.dtype), None, None, None, None, None, None


def _blocks(rows: Tensor, positives: Tensor, excluded: Tensor) -> Iterator[tuple[int, int, slice, slice]]:
    """Cut rows into blocks: (first row, row after the last, which positives, which excluded rows lie in it).

    Only on the CPU: elsewhere to look where the positives lie would make the host wait for the device.
    """
    count, classes = rows.shape
    if not rows.is_cpu:
        yield 0, count, slice(None), slice(None)
        return
    step = max(1, BLOCK * torch.get_num_threads() // max(1, classes))
    starts = torch.arange(0, count + step, step).clamp_(max=count)
    edges, shown, out = (t.tolist() for t in (starts, *(torch.searchsorted(r, starts) for r in (positives, excluded))))
    for number in range(len(edges) - 1):
        start, stop = edges[number : number + 2]
        yield start, stop, slice(shown[number], shown[number + 1]), slice(out[number], out[number + 1])


def _background_terms(
    logits: Tensor, weight: Tensor | float, gamma: float, with_slope: bool, buffers: list[Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Return weight * p^gamma * softplus(x) of every element, and its derivative (meaningless unless `with_slope`).

        loss' = weight * p^gamma * (gamma (1 - p) softplus(x) + p),    softplus(x) = max(x, 0) - log1p(-min(p, 1 - p))

    The form of softplus is the stable one of cross-entropy: exact for logits of any size, without overflow.
    """
    p, minus_q, softplus, power = (b[: len(logits)] for b in buffers or [torch.empty_like(logits) for _ in range(4)])
    torch.sigmoid(logits, out=p)
    torch.sub(p, 1, out=minus_q)
    torch.neg(p, out=power)
    torch.maximum(power, minus_q, out=power).log1p_()
    torch.clamp(logits, min=0, out=softplus)
    softplus.sub_(power)
    torch.pow(p, gamma, out=power)
    power.mul_(weight)
    loss = softplus.mul_(power)
    if with_slope:
        power.mul_(p).addcmul_(minus_q, loss, value=-gamma)
    return loss, power
