"""Which back end answers, and what `focaldet doctor` says of it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from focaldet.geometry.kernels import choose, iou
from focaldet.geometry.rotated_iou import rotated_iou, rotated_iou_torch


@pytest.fixture
def forget() -> Iterator[None]:
    """Let what a test finds missing be there again afterwards."""
    choose.why_not.cache_clear()
    yield
    choose.why_not.cache_clear()


def test_numba_fits_plain_numbers_on_a_cpu() -> None:
    boxes, wanting = torch.ones(1, 5), torch.ones(1, 5, requires_grad=True)
    assert choose.numba_fits(boxes, boxes)
    assert not choose.numba_fits(boxes, wanting)
    with torch.no_grad():
        assert choose.numba_fits(boxes, wanting)
    assert not choose.numba_fits(boxes, boxes.to("meta"))
    assert not choose.triton_fits(boxes, boxes)


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("broken", [None, "numba needs numpy 2.4 or less"])
def test_without_numba_torch_answers(monkeypatch: pytest.MonkeyPatch, broken: str | None) -> None:
    """Not installed, or not for this numpy."""
    boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0, 0.3], [1.0, 0.0, 2.0, 4.0, 0.4]])

    def fail(module: str) -> None:
        raise ImportError(broken) if broken else ModuleNotFoundError("No module named 'numba'", name="numba")

    monkeypatch.setattr(choose.importlib, "import_module", fail)
    monkeypatch.setattr(iou, "pairwise_iou", None)  # a call would fail
    assert not choose.numba_fits(boxes)
    assert torch.equal(rotated_iou(boxes, boxes), rotated_iou_torch(boxes, boxes))
    reason = f"numba does not load: {broken}" if broken else "numba is not installed"
    assert choose.back_ends()["cpu"] == f"torch ({reason})"
    assert choose.self_test() == {}


def test_back_ends_are_named_with_their_version() -> None:
    assert choose.back_ends()["cpu"].startswith("numba 0.")


def test_self_test(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose.self_test()["numba"] < 1e-14
    wrong = iou.pairwise_iou
    monkeypatch.setattr(iou, "pairwise_iou", lambda *args: 0.999 * wrong(*args))
    with pytest.raises(RuntimeError, match=r"numba answers an IoU 1.0e-03 away from torch's; reinstall numba"):
        choose.self_test()


def test_numba_is_imported_by_the_first_call_only() -> None:
    program = (
        "import sys, torch, focaldet, focaldet.geometry.rotated_iou as _\n"
        "from focaldet.geometry.rotated_iou import rotated_iou\n"
        "boxes = torch.ones(1, 5)\n"
        "rotated_iou(boxes.requires_grad_(), boxes)\n"
        "assert 'numba' not in sys.modules and 'triton' not in sys.modules\n"
        "rotated_iou(boxes.detach(), boxes.detach())\n"
        "assert 'numba' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
