"""Activation checkpointing: parts of a network keep their input only, and run again in the backward pass."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def parts_to_recompute(model: nn.Module) -> list[nn.Module]:
    """Return the blocks of the backbone that learn, the neck and the heads."""
    backbone: Any = model.get_submodule("backbone")
    stages = [stage for stage in backbone.body.children() if any(p.requires_grad for p in stage.parameters())]
    blocks = [list(stage.children()) if isinstance(stage, nn.Sequential) else [stage] for stage in stages]
    behind = [module for name, module in model.named_children() if name in ("neck", "head")]
    return [*(block for stage in blocks for block in stage), *behind]


@contextlib.contextmanager
def recomputing(parts: Iterable[nn.Module]) -> Iterator[None]:
    """Let the parts keep only their inputs in what is run inside; a backward pass may come later."""
    parts = list(parts)
    for part in parts:
        run = functools.partial(
            checkpoint, part.forward, use_reentrant=False, context_fn=functools.partial(_contexts, part)
        )
        part.forward = run
    try:
        yield
    finally:
        for part in parts:
            del part.forward  # the class's own shows again


def _contexts(part: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), keep_statistics(part)


@contextlib.contextmanager
def keep_statistics(part: nn.Module) -> Iterator[None]:
    """Let batch norms count into copies of their statistics: the first run has counted already."""
    norms = [norm for norm in part.modules() if isinstance(norm, _BatchNorm) and norm.training]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():  # not copied back: the first run's graph holds these very tensors
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
