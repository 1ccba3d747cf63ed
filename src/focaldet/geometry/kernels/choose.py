"""Which back end computes: numba on a CPU, Triton on CUDA, the torch text for all else."""

from __future__ import annotations

import functools
import importlib
from importlib.metadata import version

import torch
from torch import Tensor

from focaldet.geometry.check import numbers_are_known

SELF_TEST_BOXES = (
    (0.0, 0.0, 4.0, 2.0, 0.0),
    (0.0, 0.0, 2.0, 4.0, 1.5707963267948966),  # the same in other words
    (1.0, 0.5, 4.0, 2.0, 0.7),
    (1.5, -0.5, 9.0, 0.5, -0.2),
    (50.0, 50.0, 4.0, 2.0, 0.3),
    (1.0, 1.0, 0.0, 2.0, 0.1),
)
SELF_TEST_TOLERANCE = {"numba": 1e-12, "triton": 1e-5}
"""How far a back end may be from the torch text: numba computes in float64, Triton in float32."""


def numba_fits(*tensors: Tensor) -> bool:
    """Whether the numba kernels may answer: all on a CPU, no gradient or graph asked for, and numba works here."""
    return all(tensor.device.type == "cpu" for tensor in tensors) and _plain(tensors) and not why_not("numba")


def triton_fits(*tensors: Tensor) -> bool:
    """Whether the Triton kernels may answer: as `numba_fits`, on CUDA; not for float64, for they compute in float32."""
    on_cuda = all(tensor.device.type == "cuda" and tensor.dtype != torch.float64 for tensor in tensors)
    return on_cuda and _plain(tensors) and not why_not("triton")


def back_ends() -> dict[str, str]:
    """Return what computes rotated boxes on each kind of device that is here, with the reason where it is torch."""
    kernels = {"cpu": "numba", **({"cuda": "triton"} if torch.cuda.is_available() else {})}
    return {device: _used(kernel) for device, kernel in kernels.items()}


def self_test() -> dict[str, float]:
    """Compare each back end in use with the torch text on a few boxes.

    Returns:
        The largest difference of an IoU, by back end.

    Raises:
        RuntimeError: one is further away than it rounds.
    """
    from focaldet.geometry.rotated_iou import rotated_iou, rotated_iou_torch

    boxes = torch.tensor(SELF_TEST_BOXES, dtype=torch.float64)
    expected = rotated_iou_torch(boxes, boxes)
    differences = {}
    for device, kernel in (("cpu", "numba"), ("cuda", "triton")):
        if (device == "cuda" and not torch.cuda.is_available()) or why_not(kernel):
            continue
        boxes = torch.tensor(SELF_TEST_BOXES, dtype=torch.float64 if device == "cpu" else torch.float32, device=device)
        differences[kernel] = float((rotated_iou(boxes, boxes).cpu().double() - expected).abs().max())
        if not differences[kernel] <= SELF_TEST_TOLERANCE[kernel]:
            raise RuntimeError(
                f"{kernel} answers an IoU {differences[kernel]:.1e} away from torch's; reinstall {kernel}, and if that "
                "does not help, remove it"
            )
    return differences


@functools.cache
def why_not(kernel: str) -> str:
    """Return why the kernels of "numba" or "triton" cannot be used here, in a few words; "" if they can."""
    module = {"numba": "focaldet.geometry.kernels.iou", "triton": "focaldet.geometry.kernels.triton"}[kernel]
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, RuntimeError, OSError) as error:  # another numpy than it knows; no folder to cache in
        return f"{kernel} does not load: {error}"
    return ""


def _used(kernel: str) -> str:
    reason = why_not(kernel)
    return f"torch ({reason})" if reason else f"{kernel} {version(kernel)}"


def _plain(tensors: tuple[Tensor, ...]) -> bool:
    wants_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)
    return not wants_gradient and all(numbers_are_known(tensor) for tensor in tensors)
