"""The verb `doctor`."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError
from typing import Any

import pytest

from focaldet.cli import doctor


def test_ready(command: Any) -> None:
    exit_code, out, _ = command("doctor")
    assert exit_code == 0
    assert out.splitlines()[-1] == "ready"
    assert "torch" in out


def test_as_json(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "self_test", lambda: "left out")
    document = json.loads(command("doctor", "--json").out)
    assert document["ready"] is True
    assert document["versions"]["focaldet"]
    assert document["devices"][0].startswith("cpu")
    assert document["threads"] >= 1


def test_says_what_computes_rotated_boxes(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "self_test", lambda: "left out")
    line = json.loads(command("doctor", "--json").out)["back ends"]["rotated boxes by"]
    assert re.fullmatch(r"numba \S+ on cpu.* \(self-test: numba within \de-\d\d of torch.*\)", line)


def test_what_is_missing_is_said_with_what_to_do(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "timm":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr(doctor, "self_test", lambda: "left out")
    monkeypatch.setattr(doctor, "version", version)
    monkeypatch.setenv("FOCALDET_WEIGHTS", "/no/such/folder")
    exit_code, out, _ = command("doctor")
    assert exit_code == 1
    assert out.splitlines()[-2:] == [
        "versions: timm is not installed; run: pip install timm",
        "weights: FOCALDET_WEIGHTS names /no/such/folder, which is no folder; correct or unset it",
    ]


def test_nonsense_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    def nonsense() -> str:
        raise RuntimeError("two and two make five")

    monkeypatch.setattr(doctor, "self_test", nonsense)
    findings = doctor.examine()
    assert not findings.ready
    assert findings.problems == ["self-test: two and two make five"]
