"""Checkpoints: complete, safe to open, and never lost."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from focaldet.engine import checkpoint
from focaldet.errors import FocaldetError
from focaldet.recipes import get_recipe
from focaldet.results import files


def test_a_checkpoint_comes_back(tmp_path: Path) -> None:
    state = {"model": {"w": torch.arange(3.0)}, "step": 7, "name": "x", "nested": [{"a": (1, 2)}]}
    checkpoint.save_checkpoint(tmp_path / "checkpoints" / "last.pt", state)
    back = checkpoint.load_checkpoint(tmp_path / "checkpoints" / "last.pt")
    assert back["step"] == 7 and back["nested"] == [{"a": (1, 2)}]
    assert torch.equal(back["model"]["w"], state["model"]["w"])  # type: ignore[index]
    assert [file.name for file in (tmp_path / "checkpoints").iterdir()] == ["last.pt"]


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    """/dev/full refuses every write, as a full disk does."""
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint(path, {"step": 1})

    def full_disk(*arguments: Any, **options: Any) -> Any:
        return open("/dev/full", arguments[1])

    patched = pytest.MonkeyPatch()
    patched.setattr(files, "open", full_disk, raising=False)
    with pytest.raises(FocaldetError) as caught:
        checkpoint.save_checkpoint(path, {"step": 2, "weights": torch.zeros(100_000)})
    patched.undo()
    assert (
        "last.pt" in str(caught.value) and "untouched" in str(caught.value) and "free some space" in str(caught.value)
    )
    assert checkpoint.load_checkpoint(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_a_checkpoint_cut_short_is_said(tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    checkpoint.save_checkpoint(path, {"weights": torch.zeros(10_000)})
    path.write_bytes(path.read_bytes()[:5_000])
    with pytest.raises(FocaldetError, match=r"last\.pt is no complete checkpoint"):
        checkpoint.load_checkpoint(path)


def test_a_pickle_in_a_checkpoint_is_not_executed(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[str, ...]]:
            return (Path.touch, (tmp_path / "exploded",))  # type: ignore[return-value]

    torch.save({"format": checkpoint.FORMAT, "x": Bomb()}, tmp_path / "last.pt")
    with pytest.raises(FocaldetError, match="no complete checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "last.pt")
    assert not (tmp_path / "exploded").exists()


def test_weights_carry_their_recipe(tmp_path: Path) -> None:
    recipe = get_recipe("retinanet-small").replace(classes=("a", "b"))
    checkpoint.save_weights(tmp_path / "model.safetensors", {"w": torch.ones(2)}, recipe)
    weights, found = checkpoint.load_weights(tmp_path / "model.safetensors")
    assert found == recipe
    assert torch.equal(weights["w"], torch.ones(2))


def test_a_recipe_file_comes_back_and_a_broken_one_is_said(tmp_path: Path) -> None:
    recipe = get_recipe("retinanet_r50-caffe_1x_coco")
    checkpoint.save_recipe(tmp_path / "recipe.yaml", recipe)
    assert checkpoint.load_recipe(tmp_path / "recipe.yaml") == recipe
    (tmp_path / "recipe.yaml").write_text("name: [")
    with pytest.raises(FocaldetError, match=r"recipe\.yaml is no recipe"):
        checkpoint.load_recipe(tmp_path / "recipe.yaml")


def test_random_generators_go_back_to_where_they_were() -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    state = checkpoint.rng_state()
    first = draw()
    assert draw() != first
    checkpoint.set_rng_state(state)
    assert draw() == first
