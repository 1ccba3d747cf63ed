from __future__ import annotations

import subprocess
import sys

import pytest

import focaldet.geometry


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_imports_nothing_else() -> None:
    heavy = "torch", "numpy", "numba", "triton"
    assert python(f"import focaldet.geometry, sys; print([m for m in {heavy} if m in sys.modules])") == "[]\n"


def test_a_function_is_not_hidden_by_the_module_of_its_name() -> None:
    code = """
import focaldet.geometry.rotated_iou
from focaldet.geometry import rotated_iou
from focaldet.geometry.rotated_iou import rotated_iou as same
assert rotated_iou is same and callable(focaldet.geometry.rotated_iou)
import focaldet.geometry.rbox
assert focaldet.geometry.rbox.FORMS
print(focaldet.geometry.rotated_iou.__name__)
"""
    assert python(code) == "rotated_iou\n"


def test_public_names_are_those_that_are_promised() -> None:
    promised = "rotated_iou rotated_iou_aligned rotated_nms batched_rotated_nms convert_boxes"
    promised += " rbox_to_polygon polygon_to_rbox rbox_to_hbox"
    assert sorted(focaldet.geometry.__all__) == sorted(promised.split())
    for name in focaldet.geometry.__all__:
        assert getattr(focaldet.geometry, name).__name__ == name and name in dir(focaldet.geometry)
    with pytest.raises(AttributeError, match=r"module 'focaldet\.geometry' has no attribute 'rotated_niou'"):
        _ = focaldet.geometry.rotated_niou
