from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import focaldet
from focaldet.engine.build import build_model
from focaldet.engine.checkpoint import save_recipe, save_weights
from focaldet.engine.convert_weights import check_allowed, convert_weights
from focaldet.engine.weights import read_weights
from focaldet.errors import FocaldetError, UsageError
from focaldet.models.weights import from_ours
from focaldet.recipes import Recipe, get_recipe

SMALL = {"backbone": "resnet18", "neck_channels": 8, "head_channels": 8, "head_convs": 1}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    base = get_recipe("retinanet_r50_1x_coco")
    return base.replace(**SMALL, name="small-coco", classes=("ship", "car"), p7_relu=True)


@pytest.fixture(scope="module")
def ours(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    path = tmp_path_factory.mktemp("ours") / "model.safetensors"
    save_weights(path, build_model(recipe).state_dict(), recipe)
    return path


def weights_of(path: Path) -> dict[str, Tensor]:
    return {key: value for key, value in read_weights(path).state.items() if "num_batches" not in key}


def assert_same(one: Path, other: Path) -> None:
    first, second = weights_of(one), weights_of(other)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize(
    ("format", "name"), [("mmdetection", "a.pth"), ("detectron2", "a.pth"), ("detectron2", "a.pkl")]
)
def test_there_and_back(recipe: Recipe, ours: Path, format: str, name: str, tmp_path: Path) -> None:
    there = convert_weights(ours, tmp_path / name, format)
    assert (there.format, there.recipe) == (format, "small-coco")
    assert read_weights(tmp_path / name).dialect == format
    save_recipe(tmp_path / "recipe.yaml", recipe)
    back = convert_weights(tmp_path / name, tmp_path / "b.safetensors", recipe=str(tmp_path / "recipe.yaml"))
    assert back.to_dict() == {
        "target": str(tmp_path / "b.safetensors"),
        "format": "focaldet",
        "recipe": "small-coco",
        "entries": back.entries,
    }
    assert_same(ours, tmp_path / "b.safetensors")
    assert focaldet.load(tmp_path / "b.safetensors").classes == ("ship", "car")


def test_what_torch_and_pickle_read_of_what_is_written(ours: Path, tmp_path: Path) -> None:
    convert_weights(ours, tmp_path / "a.pth", "mmdetection")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert content["meta"]["CLASSES"] == content["meta"]["dataset_meta"]["classes"] == ("ship", "car")
    assert content["state_dict"]["bbox_head.retina_cls.bias"].shape == (18,)
    convert_weights(ours, tmp_path / "b.pth", "detectron2")
    names = torch.load(tmp_path / "b.pth", weights_only=True)["model"]
    assert "backbone.bottom_up.res5.1.conv2.norm.running_var" in names
    assert not any("num_batches" in name for name in names)


def test_the_classes_of_the_file_become_those_of_the_recipe(recipe: Recipe, ours: Path, tmp_path: Path) -> None:
    convert_weights(ours, tmp_path / "a.pth", "mmdetection")
    save_recipe(tmp_path / "recipe.yaml", recipe.replace(classes=("a", "b", "c")))
    convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", recipe=str(tmp_path / "recipe.yaml"))
    assert read_weights(tmp_path / "b.safetensors").classes == ("ship", "car")


def test_weights_that_do_not_say_what_they_are_of(ours: Path, tmp_path: Path) -> None:
    convert_weights(ours, tmp_path / "a.pth", "mmdetection")
    with pytest.raises(UsageError, match=r"holds weights of mmdetection, .* name its recipe by --recipe"):
        convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors")
    with pytest.raises(FocaldetError, match=r"the weights do not fit the model in \d+ of \d+ entries: .* instead of"):
        convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", recipe="retinanet_r50_1x_coco")
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.parametrize(
    ("format", "changes", "sentence"),
    [
        (
            "detectron2",
            {"p7_relu": False},
            r"detectron2 would compute something else .* p7_relu=False, it has p7_relu=True",
        ),
        ("torchvision", {}, r"anchors='octave', it has anchors='whole'"),
        ("mmdetection", {"backbone": "mobilenetv2_100"}, r"mmdetection has no names for backbone=mobilenetv2_100"),
        ("mmdetection", {"neck_norm": "group"}, r"neck_norm='group', it has neck_norm='none'"),
        ("detectron2", {"levels": (3, 4, 5, 6)}, r"levels=\(3, 4, 5, 6\)"),
    ],
)
def test_networks_that_another_program_does_not_have(
    recipe: Recipe, format: str, changes: dict[str, Any], sentence: str
) -> None:
    check_allowed(recipe, "focaldet")
    with pytest.raises(FocaldetError, match=sentence):
        check_allowed(recipe.replace(**changes), format)


@pytest.mark.parametrize(
    ("target", "format", "sentence"),
    [
        ("a.pth", None, r"whose weights .*a\.pth should be is not clear"),
        ("a.pth", "torchvison", r"cannot be written as 'torchvison'.*torchvision"),
        ("a.pkl", "mmdetection", r"weights of mmdetection end in \.pth; .*a\.pkl does not"),
        ("there.safetensors", None, r"there\.safetensors is there already; add --overwrite"),
    ],
)
def test_targets_that_make_no_sense(ours: Path, target: str, format: str | None, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "there.safetensors").touch()
    with pytest.raises(UsageError, match=sentence):
        convert_weights(ours, tmp_path / target, format)


def test_a_bomb_is_not_converted(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(b"cos\nsystem\n(Vtouch " + str(tmp_path / "trace").encode() + b"\ntR.")
    with pytest.raises(FocaldetError, match=r"asks to run os\.system, .* nothing in it was executed"):
        convert_weights(tmp_path / "a.pkl", tmp_path / "b.safetensors")
    assert not (tmp_path / "trace").exists()


def test_refused_names_leave_no_file(recipe: Recipe, tmp_path: Path) -> None:
    state = from_ours(build_model(recipe).state_dict(), "mmdetection")
    torch.save({"state_dict": state | {"bbox_head.extra": torch.ones(1)}}, tmp_path / "a.pth")
    save_recipe(tmp_path / "recipe.yaml", recipe)
    with pytest.raises(FocaldetError, match=r"in 1 of \d+ entries: bbox_head\.extra 1 instead of absent"):
        convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", recipe=str(tmp_path / "recipe.yaml"))
    assert not (tmp_path / "b.safetensors").exists()


@pytest.mark.slow
def test_torchvisions_network_is_known_by_its_head(tmp_path: Path) -> None:
    for name, norm in (("retinanet_r50_torchvision", "none"), ("retinanet_r50_torchvision-v2", "group-no-bias")):
        check_allowed(get_recipe(name), "torchvision")
        state = build_model(get_recipe(name)).state_dict()
        torch.save(from_ours(state, "torchvision"), tmp_path / "a.pth")
        done = convert_weights(tmp_path / "a.pth", tmp_path / "b.safetensors", overwrite=True)
        assert done.recipe == name
        given = read_weights(tmp_path / "b.safetensors")
        assert given.recipe is not None and given.recipe.head_norm == norm
        assert all(torch.equal(given.state[key], state[key]) for key in state)
