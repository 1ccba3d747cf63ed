"""Boxes as numbers: no weights, no files, no recipe.

The names below are the public ones, for tensors on any device and for numpy arrays; each is imported when it is first
used. The other functions of this folder are used by the rest of the package, and may change.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from focaldet.geometry.nms import batched_rotated_nms, rotated_nms
    from focaldet.geometry.polygon import polygon_to_rbox
    from focaldet.geometry.rbox import convert_boxes, rbox_to_hbox, rbox_to_polygon
    from focaldet.geometry.rotated_iou import rotated_iou, rotated_iou_aligned

__all__ = [
    "batched_rotated_nms",
    "convert_boxes",
    "polygon_to_rbox",
    "rbox_to_hbox",
    "rbox_to_polygon",
    "rotated_iou",
    "rotated_iou_aligned",
    "rotated_nms",
]

_HOMES = {
    "batched_rotated_nms": "nms",
    "convert_boxes": "rbox",
    "polygon_to_rbox": "polygon",
    "rbox_to_hbox": "rbox",
    "rbox_to_polygon": "rbox",
    "rotated_iou": "rotated_iou",
    "rotated_iou_aligned": "rotated_iou",
    "rotated_nms": "nms",
}
"""Which module each public name lives in."""


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """A package whose public function `rotated_iou` is not hidden by the module of that name.

    Python binds a module to its package whenever it is first imported, be it by another module of ours, and the user's
    `from focaldet.geometry import rotated_iou` would then get the module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
