"""What the public functions of this folder take: tensors or numpy arrays, of the right shape, with numbers in them."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor

from focaldet.errors import FocaldetError

P = ParamSpec("P")
R = TypeVar("R")


def takes_numpy(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function of tensors take numpy arrays as well, and then answer with numpy arrays.

    Raises:
        FocaldetError: tensors and arrays are mixed in one call.
    """

    @functools.wraps(function)
    def either(*args: Any, **kwargs: Any) -> Any:
        given = [*args, *kwargs.values()]
        if not any(isinstance(item, np.ndarray) for item in given):
            return function(*args, **kwargs)
        if any(isinstance(item, Tensor) for item in given):
            raise FocaldetError(
                f"{function.__name__} got tensors and numpy arrays in one call; give one kind, for instance by "
                "torch.from_numpy(array)"
            )
        answer: Any = function(
            *(_to_tensor(item) for item in args),
            **{name: _to_tensor(item) for name, item in kwargs.items()},
        )
        return answer.numpy()

    return either


def check_rboxes(boxes: Tensor, name: str) -> None:
    """Raise FocaldetError unless `boxes` are (N, 5) finite floating-point numbers with sides of 0 or more.

    Costs one pass over the numbers; while a graph is being traced, where no number can be looked at, only the shape
    and the type are checked.
    """
    check_numbers(boxes, name, 5, "rboxes (x, y, w, h, theta)")
    if numbers_are_known(boxes) and bool((boxes[:, 2:4] < 0).any()):
        row = int((boxes[:, 2:4] < 0).any(dim=1).nonzero()[0])
        raise FocaldetError(f"{name}[{row}] is {_row(boxes, row)}, with a negative side; give w >= 0 and h >= 0")


def check_numbers(boxes: Tensor, name: str, columns: int, what: str) -> None:
    """Raise FocaldetError unless `boxes` has shape (N, columns), a floating-point type and finite numbers."""
    if not isinstance(boxes, Tensor):
        raise FocaldetError(f"{name} is a {type(boxes).__name__}; give {what} as a tensor or numpy array")
    if boxes.ndim != 2 or boxes.shape[1] != columns:
        raise FocaldetError(f"{name} has shape {tuple(boxes.shape)}; give {what} of shape (N, {columns})")
    if not boxes.is_floating_point():
        raise FocaldetError(f"{name} holds {boxes.dtype}; give {what} as floating-point numbers, by .float()")
    if numbers_are_known(boxes) and not math.isfinite(boxes.detach().sum().item()):
        bad = (~boxes.isfinite().all(dim=1)).nonzero()
        if len(bad):  # else only their sum is too large
            row = int(bad[0])
            raise FocaldetError(f"{name}[{row}] is {_row(boxes, row)}; give finite numbers")


def numbers_are_known(boxes: Tensor) -> bool:
    """Whether code may look at the numbers; not while a graph is traced or exported, and not on the meta device."""
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[no-untyped-call, attr-defined]
    return not (traced or boxes.device.type == "meta")


def check_together(**tensors: Tensor) -> None:
    """Raise FocaldetError unless all tensors, given by their argument's name, lie on one device and share a type."""
    (first, one), *others = tensors.items()
    for name, other in others:
        if one.device != other.device:
            raise FocaldetError(f"{first} is on {one.device} and {name} on {other.device}; bring them to one device")
        if one.dtype != other.dtype:
            raise FocaldetError(f"{first} holds {one.dtype} and {name} {other.dtype}; give both the same type")


def _to_tensor(item: Any) -> Any:
    if not isinstance(item, np.ndarray):
        return item
    try:
        return torch.from_numpy(np.require(item, requirements=("C", "W")))  # copied where torch could not share it
    except (TypeError, ValueError) as error:
        raise FocaldetError(f"an array holds {item.dtype}, unknown to torch; give float32 or float64") from error


def _row(boxes: Tensor, row: int) -> list[float]:
    return [float(f"{number:.6g}") for number in boxes[row].tolist()]
