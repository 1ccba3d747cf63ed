"""What becomes of a gradient between the loss and the optimizer's step: sums over pictures, clipping, weight decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, get_total_norm

from focaldet.engine.distributed import ALONE, Processes
from focaldet.errors import FocaldetError

ClipPer = Literal["total", "variable"]


@dataclass(frozen=True)
class UpdateRule:
    """How the variables of a network follow their gradients, beside the learning rate.

    Attributes:
        weight_decay: what every variable loses of itself in each step, times the rate.
        decay_all: also norms and biases; else only what has more than one axis, such as the kernels of convolutions.
        backbone_lr: factor on the rate of the backbone.
        bias_gradient: factor on the gradients of convolutions' biases, behind all clipping. Applied to their rate,
            which is the same with SGD.
        clip: largest L2 norm; None for any.
        clip_per: norm of what. "total": of all gradients together, once they are summed over the update's pictures;
            weight decay comes on top. "variable": of each variable's by itself, for each group of pictures that shares
            a normalizer before these are summed, with the weight decay inside that of the last group, as in the
            original rotated program (`shared/spec/rotated.md` section 3.2).
    """

    weight_decay: float = 0.0
    decay_all: bool = True
    backbone_lr: float = 1.0
    bias_gradient: float = 1.0
    clip: float | None = None
    clip_per: ClipPer = "total"

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise FocaldetError(f"clip={self.clip} must be above 0; leave it out to clip nothing")
        if self.clip_per not in get_args(ClipPer):
            raise FocaldetError(f"clip_per={self.clip_per!r} is not one of {', '.join(get_args(ClipPer))}")

    @property
    def decay_is_clipped(self) -> bool:
        """Whether weight decay belongs to the gradients, so that the optimizer must add none."""
        return self.clip is not None and self.clip_per == "variable"

    def decay(self, parameter: nn.Parameter) -> float:
        """Return the weight decay of a parameter."""
        return self.weight_decay if self.decay_all or parameter.ndim > 1 else 0.0

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return a torch optimizer's groups of the trained parameters; the schedule sets each one's rate from `scale`.

        Raises:
            FocaldetError: all parameters are frozen.
        """
        biases = {f"{name}.bias" for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                decay = 0.0 if self.decay_is_clipped else self.decay(parameter)
                scale = self.backbone_lr if name.startswith("backbone.") else 1.0
                scale *= self.bias_gradient if name in biases else 1.0
                groups.setdefault((decay, scale), []).append(parameter)
        if not groups:
            raise FocaldetError("all parameters of the network are frozen, so there is nothing to train")
        return [{"params": params, "weight_decay": decay, "scale": scale} for (decay, scale), params in groups.items()]


class Gradients:
    """Gathers the gradient of an update, group of pictures by group of pictures, and keeps it within bounds.

    Begin an update with `optimizer.zero_grad`, `add` each group, then `finish`.

    Args:
        model: the network that is trained.
        rule: what bounds hold.
        processes: whose gradients are summed.
        scale: what losses are multiplied by on their way to gradients in half precision.
    """

    def __init__(
        self, model: nn.Module, rule: UpdateRule, processes: Processes = ALONE, scale: LossScale | None = None
    ) -> None:
        self.parameters = list(model.parameters())
        self.rule = rule
        self.processes = processes
        self.scale = scale

    def add(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of one group's share of the loss.

        Args:
            loss: of one group of pictures, divided by the number of groups in all processes.
            last: whether this is the update's last group, in all processes.
        """
        if self.scale is not None:
            loss = loss * self.scale.value
        if self.rule.decay_is_clipped:
            self._add_clipped(loss, with_decay=last)
        else:
            loss.backward()  # type: ignore[no-untyped-call]

    def finish(self) -> float:
        """Sum over processes and clip; then all is ready for the optimizer.

        Returns:
            The L2 norm of all gradients together, before "total" clips it. Not finite: the update must be left out.
        """
        self._sum_over_processes()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self.scale is not None and not self.rule.decay_is_clipped:
            torch._foreach_div_(gradients, self.scale.value)
        if self.rule.clip is None or self.rule.decay_is_clipped:
            return float(get_total_norm(gradients))
        return float(clip_grad_norm_(self.parameters, self.rule.clip))

    def _sum_over_processes(self) -> None:
        """Sum what any process has: a parameter without a gradient here may have one elsewhere."""
        if self.processes.count == 1:
            return
        holders = self.processes.sum(parameter.grad is not None for parameter in self.parameters)
        for parameter, held in zip(self.parameters, holders, strict=True):
            if held and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.processes.sum_tensors([parameter.grad for parameter in self.parameters if parameter.grad is not None])

    def _add_clipped(self, loss: Tensor, *, with_decay: bool) -> None:
        before = [parameter.grad for parameter in self.parameters]
        for parameter in self.parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        assert self.rule.clip is not None
        for parameter, summed in zip(self.parameters, before, strict=True):
            if parameter.grad is None:
                parameter.grad = summed
                continue
            if self.scale is not None:
                parameter.grad.div_(self.scale.value)
            if with_decay:
                parameter.grad.add_(parameter.detach(), alpha=self.rule.decay(parameter))
            clip_to_norm_(parameter.grad, self.rule.clip)
            if summed is not None:
                parameter.grad.add_(summed)


class LossScale:
    """What the loss is multiplied by so that gradients in float16 neither vanish nor overflow.

    Without a fixed value it is halved when a gradient overflows, and that update left out; it is doubled after 2,000
    updates without one (Micikevicius et al. 2018, arXiv:1710.03740, section 3.2).

    Args:
        fixed: the value for good; None to let it follow the gradients.
    """

    START = 65536.0
    PATIENCE = 2000
    LEAST = 2.0**-10
    """Gradients that overflow even so are not to be helped by scaling."""

    def __init__(self, fixed: float | None = None) -> None:
        self.fixed = fixed
        self.value = fixed or self.START
        self.since = 0

    @property
    def exhausted(self) -> bool:
        """Whether a smaller value would not help either."""
        return self.fixed is not None or self.value <= self.LEAST

    def update(self, *, finite: bool) -> None:
        """Take note of how an update's gradients came out."""
        self.since = self.since + 1 if finite else 0
        if self.fixed is not None:
            return
        if not finite:
            self.value /= 2
        elif self.since == self.PATIENCE:
            self.value, self.since = 2 * self.value, 0

    def state_dict(self) -> dict[str, float]:
        """Return plain numbers."""
        return {"value": self.value, "since": self.since}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from there."""
        self.value, self.since = state["value"], int(state["since"])


def clip_to_norm_(gradient: Tensor, limit: float) -> None:
    """Shorten a gradient, in place, to the L2 norm `limit` if it is longer; makes no host wait for its device.

    >>> gradient = torch.tensor([3.0, 4.0])
    >>> clip_to_norm_(gradient, 1.0)
    >>> gradient
    tensor([0.6000, 0.8000])
    """
    gradient.mul_(limit / torch.linalg.vector_norm(gradient).clamp(min=limit))
