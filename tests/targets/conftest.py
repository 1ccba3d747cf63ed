"""Fixtures of the target tests: the stored outputs, the anchors they were made with, and a dense text of the rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt
import pytest
import torch

from focaldet.geometry.iou import hbox_iou
from focaldet.geometry.rotated_iou import rotated_iou
from focaldet.structures import BACKGROUND, IGNORED, AnchorGrid, Size
from focaldet.targets import search
from focaldet.targets.assign import AssignRule

Stored = dict[str, npt.NDArray[np.generic]]


@pytest.fixture(scope="session")
def units(golden: Path) -> Stored:
    """The stored outputs of the parts by themselves."""
    with np.load(golden / "coco" / "units.npz") as stored:
        return {
            name: stored[name] for name in stored.files if name.split(".")[0] in ("anchors", "assign", "targets", "gt")
        }


@pytest.fixture(scope="session")
def stored_grid(units: Stored) -> AnchorGrid:
    """The 15,354 anchors of a 256 x 320 input, from the stored shapes."""
    shapes = tuple(torch.from_numpy(units[f"anchors.base.p{level}"]) for level in range(3, 8))
    return AnchorGrid(shapes, (8, 16, 32, 64, 128), ((32, 40), (16, 20), (8, 10), (4, 5), (2, 3)))


def published_shapes(strides: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Nine shapes a level, written out as in section 6 of the specification."""
    scales = torch.tensor([4.0, 4 * 2 ** (1 / 3), 4 * 2 ** (2 / 3)])
    high = torch.tensor([0.5, 1.0, 2.0]).sqrt()
    wide = 1 / high
    levels = []
    for stride in strides:
        w, h = (stride * wide[:, None] * scales).flatten(), (stride * high[:, None] * scales).flatten()
        levels.append(torch.stack([-w / 2, -h / 2, w / 2, h / 2], dim=1))
    return tuple(levels)


@pytest.fixture(scope="session")
def make_grid() -> Callable[[Size, float], AnchorGrid]:
    """Build a grid for an input of (height, width), with an offset in strides."""

    def make(size: Size, offset: float = 0.0) -> AnchorGrid:
        strides = (8, 16, 32, 64, 128)
        sizes = tuple((-(-size[0] // stride), -(-size[1] // stride)) for stride in strides)
        return AnchorGrid(published_shapes(strides), strides, sizes, offset)

    return make


def dense_valid(grid: AnchorGrid, valid: tuple[Size, ...]) -> torch.Tensor:
    """Say of every anchor whether its place lies in the valid (rows, columns) of its level."""
    parts = []
    for (height, width), (rows, columns), shapes in zip(grid.sizes, valid, grid.shapes, strict=True):
        inside = (torch.arange(height)[:, None] < rows) & (torch.arange(width) < columns)
        parts.append(inside[..., None].expand(-1, -1, len(shapes)).flatten())
    return torch.cat(parts)


def dense_iou(first: torch.Tensor, second: torch.Tensor, rule: AssignRule, over_first: bool = False) -> torch.Tensor:
    """The full matrix of one set of boxes and another: rboxes exactly, hboxes by the rule's convention of pixels."""
    over = "first" if over_first else "union"
    if first.shape[1] == 5 or second.shape[1] == 5:
        iou = rotated_iou(_as_rboxes(first.double()), _as_rboxes(second.double()), over=over).float()
        return torch.where(iou < 1e-9, 0, iou)  # boxes that only touch
    if rule.pixels == "continuous":
        return hbox_iou(first, second, over=over)
    a, b = (boxes.double().numpy() for boxes in (first, second))
    sides = np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2]) + 1
    overlap = np.where((sides > 0).all(2), sides.prod(2), 0)
    area_a, area_b = ((box[:, 2:] - box[:, :2] + 1).prod(1) for box in (a, b))
    whole = area_a[:, None] if over_first else area_a[:, None] + area_b - overlap
    return torch.from_numpy(overlap / np.maximum(whole, 1e-6))


def _as_rboxes(boxes: torch.Tensor) -> torch.Tensor:
    if boxes.shape[1] == 5:
        return boxes
    size = (boxes[:, 2:] - boxes[:, :2]).clamp(min=0)
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, size, torch.zeros_like(size[:, :1])], 1)


def dense_assignment(
    anchors: torch.Tensor,
    truths: torch.Tensor,
    rule: AssignRule,
    inside: torch.Tensor,
    ignored_boxes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Assign by the full matrix, in the order of section 7 of the specification: (owners, IoU with the owner)."""
    owners, with_owner = torch.full((len(anchors),), BACKGROUND), torch.zeros(len(anchors))
    if len(truths) and len(anchors):
        iou = dense_iou(truths, anchors, rule)
        positive, negative = (torch.tensor(limit, dtype=iou.dtype) for limit in (rule.positive, rule.negative))
        iou[:, ~inside] = -1
        best, truth = torch.from_numpy(iou.numpy().max(0)), torch.from_numpy(iou.numpy().argmax(0))
        owners[best > negative if rule.negative_inclusive else best >= negative] = IGNORED
        owners[best >= positive] = truth[best >= positive]
        with_owner = best.clone()
        for number, row in enumerate(iou):
            if rule.claim == "none" or (row.max() <= 0 and rule.claim != "ties-zero"):
                continue
            ties = (row == row.max()) & inside
            owners[ties] = number if rule.claim == "ties-overwrite" else truth[ties]
            if rule.claim == "ties-overwrite":
                with_owner[ties] = row[ties]
    if ignored_boxes is not None and rule.ignored_iof is not None and len(ignored_boxes):
        share = dense_iou(anchors, ignored_boxes, rule, over_first=True)
        covered = (share >= torch.tensor(rule.ignored_iof, dtype=share.dtype)).any(1)
        owners[covered & inside & (owners < 0)] = IGNORED
    return owners, with_owner.float()


def dense_owners(
    grid: AnchorGrid,
    truths: torch.Tensor,
    rule: AssignRule,
    valid: tuple[Size, ...] | None = None,
    ignored_boxes: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Assign a grid by the full matrix: (owners, IoU with the owner)."""
    if truths.shape[1] == 5 and not grid.rotated:
        grid = replace(grid, shapes=tuple(_as_rboxes(shapes) for shapes in grid.shapes))
    inside = dense_valid(grid, valid if valid is not None else grid.sizes)
    return dense_assignment(torch.cat(grid.levels()), truths, rule, inside, ignored_boxes)


@pytest.fixture(scope="session")
def dense() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The oracle of the assignment."""
    return dense_owners


@pytest.fixture(scope="session")
def dense_list() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """The oracle of the assignment of listed anchors."""
    return dense_assignment


@contextmanager
def as_without_numba() -> Iterator[None]:
    """Search by the numpy text, as on a machine without numba."""
    with mock.patch.object(search, "compiled", lambda: False):
        yield


@pytest.fixture(scope="session")
def without_numba() -> Callable[[], AbstractContextManager[None]]:
    """The other back end, for a while."""
    return as_without_numba


@pytest.fixture(scope="session")
def valid_mask() -> Callable[[AnchorGrid, tuple[Size, ...]], torch.Tensor]:
    """The oracle of the valid places."""
    return dense_valid
