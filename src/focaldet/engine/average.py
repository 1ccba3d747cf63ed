"""The mean of a network's weights over the last steps, which often scores better than the last weights."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Average(Generic[Model]):
    """An exponential moving average of weights and statistics (Polyak and Juditsky 1992).

    It begins with short memory: after t updates at most (1 + t) / (10 + t) of the old is kept, so that the random
    start is soon forgotten.

    Attributes:
        model: a network with the averaged weights, in evaluation mode.

    Args:
        model: the network that is trained.
        decay: what of the old is kept in a step, such as 0.9998.
    """

    def __init__(self, model: Model, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.model: Model = copy.deepcopy(model).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move towards the weights as they are now."""
        self.updates += 1
        keep = min(self.decay, (1 + self.updates) / (10 + self.updates))
        mine, theirs = _floats(self.model), _floats(model)
        torch._foreach_lerp_(mine, theirs, 1 - keep)
        for own, new in zip(self.model.buffers(), model.buffers(), strict=True):
            if not own.is_floating_point():
                own.copy_(new)

    def restart(self, model: nn.Module) -> None:
        """Begin anew from the weights as they are now."""
        self.updates = 0
        self.model.load_state_dict(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Return tensors and numbers."""
        return {"updates": self.updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.updates = state["updates"]
        self.model.load_state_dict(state["model"])


def _floats(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]
