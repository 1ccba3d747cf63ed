"""`import focaldet` and `--help` load nothing heavy, and every public name is there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import focaldet

HEAVY = ("torch", "numpy", "PIL", "yaml", "rich", "matplotlib", "timm", "numba")


def loaded_by(code: str) -> list[str]:
    """The heavy packages that a fresh interpreter has loaded after running `code`."""
    tail = f"import sys, json; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    run = subprocess.run([sys.executable, "-c", f"{code}\n{tail}"], capture_output=True, text=True, check=True)
    return list(json.loads(run.stdout.splitlines()[-1]))


def test_import_loads_nothing_heavy() -> None:
    assert loaded_by("import focaldet") == []


def test_recipes_need_no_torch() -> None:
    assert "torch" not in loaded_by("import focaldet; focaldet.list_recipes(); focaldet.get_recipe('retinanet-small')")


def test_cutting_tiles_needs_no_torch() -> None:
    """It would take a third of the memory and half of the time that a small picture needs."""
    assert "torch" not in loaded_by("import focaldet.engine.tiling")


@pytest.mark.parametrize("verb", ["", "recipes", "train", "eval", "score", "predict", "bench", "doctor", "demo"])
def test_help_loads_nothing_heavy(verb: str) -> None:
    words = [*verb.split(), "--help"]
    assert loaded_by(f"from focaldet.cli.main import main; assert main({words!r}) == 0") == []


def test_every_public_name_exists() -> None:
    for name in focaldet.__all__:
        assert getattr(focaldet, name) is not None
    assert set(focaldet.__all__) <= set(dir(focaldet))


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        focaldet.trian  # noqa: B018
