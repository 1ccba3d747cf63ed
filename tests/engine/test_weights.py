from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import focaldet
from focaldet.engine.build import build_model
from focaldet.engine.weights import named_classes, num_classes, read_weights
from focaldet.errors import FocaldetError
from focaldet.models.weights import from_ours
from focaldet.recipes import Recipe, get_recipe
from focaldet.recipes.recipe import COCO_CLASSES

SMALL = {"backbone": "resnet18", "neck_channels": 8, "head_channels": 8, "head_convs": 1}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return get_recipe("retinanet_r50_1x_coco").replace(**SMALL, classes=("ship", "car", "plane"))


@pytest.fixture(scope="module")
def state(recipe: Recipe) -> dict[str, Tensor]:
    torch.manual_seed(3)
    return build_model(recipe).state_dict()


def same(one: Any, other: Any) -> bool:
    return list(one) == list(other) and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("place", ["meta", "dataset_meta"])
def test_a_file_of_mmdetection_names_its_classes(
    recipe: Recipe, state: dict[str, Tensor], place: str, tmp_path: Path
) -> None:
    names: dict[str, Any] = {"CLASSES": list(recipe.classes)}
    meta = names if place == "meta" else {"dataset_meta": {"classes": recipe.classes}, "cfg": "model = dict()"}
    torch.save({"meta": meta, "state_dict": from_ours(state, "mmdetection")}, tmp_path / "theirs.pth")
    given = read_weights(tmp_path / "theirs.pth")
    assert (given.dialect, given.classes, given.recipe) == ("mmdetection", recipe.classes, None)
    assert same(given.state, state)


def test_weights_of_mmdetection_are_loaded_or_refused_by_their_classes(
    recipe: Recipe, state: dict[str, Tensor], tmp_path: Path
) -> None:
    content = {"meta": {"CLASSES": recipe.classes}, "state_dict": from_ours(state, "mmdetection")}
    torch.save(content, tmp_path / "theirs.pth")
    detector = focaldet.load(recipe, weights=tmp_path / "theirs.pth")
    assert same(detector.model.state_dict(), state)
    with pytest.raises(
        FocaldetError, match=r"know 3 classes \(ship, car, plane\), the model has 3 \(car, ship, plane\)"
    ):
        focaldet.load(recipe, weights=tmp_path / "theirs.pth", classes=("car", "ship", "plane"))


@pytest.mark.parametrize("dialect", ["torchvision", "detectron2"])
def test_80_nameless_classes_are_cocos(recipe: Recipe, dialect: str) -> None:
    coco = build_model(recipe.replace(classes=COCO_CLASSES)).state_dict()
    assert read_weights(from_ours(coco, dialect)).classes == COCO_CLASSES
    assert read_weights(from_ours(coco, "mmdetection")).classes is None


def test_other_nameless_classes_stay_unknown(recipe: Recipe, state: dict[str, Tensor]) -> None:
    given = read_weights(from_ours(state, "detectron2"))
    assert (given.classes, num_classes(given.state)) == (None, 3)
    assert num_classes({}) is None


def test_a_pickle_of_detectron2_is_loaded(recipe: Recipe, state: dict[str, Tensor], tmp_path: Path) -> None:
    arrays = {key: value.numpy() for key, value in from_ours(state, "detectron2").items()}
    content = {"model": arrays, "__author__": "detectron2 model zoo", "matching_heuristics": True}
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(content))
    detector = focaldet.load(recipe, weights=tmp_path / "model_final.pkl")
    kept = {key: value for key, value in state.items() if "num_batches" not in key}
    assert same({key: detector.model.state_dict()[key] for key in kept}, kept)


def test_variables_of_tensorflow_are_recognized_in_a_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "variables.npz", **{"rpn_net/rpn_regression/biases": np.ones(9, np.float32)})
    given = read_weights(tmp_path / "variables.npz")
    assert given.dialect == "tensorflow"
    assert list(given.state) == ["head.deltas.bias"]


def test_our_own_files_carry_their_recipe(unbroken: Any, tmp_path: Path) -> None:
    folder = unbroken[0].folder
    sources = [folder, folder / "model.safetensors", folder / "checkpoints/last.pt", tmp_path / "moved.pt"]
    (tmp_path / "moved.pt").write_bytes((folder / "checkpoints/last.pt").read_bytes())
    for source in sources:
        given = read_weights(source)
        assert given.recipe is not None
        assert given.classes == given.recipe.classes == ("red", "blue")
        assert given.state.keys() == read_weights(folder).state.keys()
    assert same(read_weights(tmp_path / "moved.pt").state, read_weights(folder / "checkpoints/last.pt").state)


def test_files_of_nothing_we_know(tmp_path: Path) -> None:
    torch.save({"rpn.head.weight": torch.ones(2)}, tmp_path / "other.pth")
    with pytest.raises(FocaldetError, match=r"other\.pth: these are no weights of a RetinaNet of .*rpn\.head\.weight"):
        read_weights(tmp_path / "other.pth")
    with pytest.raises(FocaldetError, match=r"there is no weights file .*none\.pth"):
        read_weights(tmp_path / "none.pth")


@pytest.mark.parametrize("meta", [None, {}, {"CLASSES": None}, {"CLASSES": [1, 2]}, {"dataset_meta": 3}, [1]])
def test_a_meta_without_names(meta: Any) -> None:
    assert named_classes(meta) is None
