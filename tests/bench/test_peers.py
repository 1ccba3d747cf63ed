"""benchmarks/peers.py as far as it runs without the programs that it measures."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from focaldet.bench.networks import COCO, R3DET, ROTATED

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def peers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peers")


def test_peers_are_those_that_are_installed(peers: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    assert peers.importable_peers() == []
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: object())
    found = [(peer.name, peer.network) for peer in peers.importable_peers()]
    mmrotate = [("mmrotate", ROTATED), ("mmrotate", R3DET)]
    assert found == [("detectron2", COCO), ("mmdetection", COCO), *mmrotate]
    assert {network.name for _, network in mmrotate} == peers.MMROTATE_CONFIGS.keys()


def test_operators_that_are_missing_say_so_when_they_are_called(peers: ModuleType) -> None:
    with pytest.raises(NotImplementedError, match="nms_rotated is a compiled operator of MMCV"):
        peers.OperatorsMissing("mmcv._ext").nms_rotated()
