"""Statistics of batch norms when several processes share a step's groups of pictures."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from focaldet.engine.distributed import Processes


class Statistics:
    """Makes running statistics what one process would have that saw all groups in order.

    Of a group with the mean s, a norm of momentum m makes r <- (1 - m) r + m s. That is linear in r, so that what one
    process did to r can be done behind what the others did before it.

    Args:
        model: the network; norms without momentum keep what the first process saw.
        processes: who shares a step.
        groups: of pictures in a step, in all processes.
    """

    def __init__(self, model: nn.Module, processes: Processes, groups: int) -> None:
        self.model, self.processes, self.groups = model, processes, groups
        mine = processes.share(range(groups))
        self.own, self.later = len(mine), groups - (mine[-1] + 1 if mine else 0)
        self._before: list[list[Tensor]] = []

    def _norms(self) -> list[_BatchNorm]:
        """Return the norms that learn statistics now: those of frozen parts are in evaluation mode."""
        if self.processes.count == 1:
            return []
        norms = (module for module in self.model.modules() if isinstance(module, _BatchNorm) and module.training)
        return [norm for norm in norms if norm.running_mean is not None and norm.momentum is not None]

    def begin(self) -> None:
        """Note the statistics before a step."""
        self._before = [[tensor.clone() for tensor in _of(norm)] for norm in self._norms()]

    @torch.no_grad()
    def finish(self) -> None:
        """Bring together what the step did to them in each process."""
        norms = self._norms()
        for norm, before in zip(norms, self._before, strict=True):
            keep = 1 - float(norm.momentum or 0)
            for tensor, old in zip(_of(norm), before, strict=True):
                tensor.sub_(old, alpha=keep**self.own).mul_(keep**self.later)
        self.processes.sum_tensors([tensor for norm in norms for tensor in _of(norm)])
        for norm, before in zip(norms, self._before, strict=True):
            keep = 1 - float(norm.momentum or 0)
            for tensor, old in zip(_of(norm), before, strict=True):
                tensor.add_(old, alpha=keep**self.groups)
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.add_(self.groups - self.own)


def _of(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert norm.running_mean is not None and norm.running_var is not None
    return norm.running_mean, norm.running_var
