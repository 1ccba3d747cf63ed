"""The verb `convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    for name in ("images", "labelTxt"):
        (folder / name).mkdir(parents=True)
    Image.new("L", (64, 48)).save(folder / "images/a.png")
    (folder / "labelTxt/a.txt").write_text("1 2 21 2 21 12 1 12 ship 1\n")
    return folder


def test_convert(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answer = command("convert", source, tmp_path / "yolo", "--format", "yolo-obb")
    assert answer.exit_code == 0
    assert answer.out.splitlines() == [
        "train: difficult objects written like others: 1",
        f"{tmp_path}/yolo (yolo-obb): train: 1 pictures, 1 objects",
    ]
    assert (tmp_path / "yolo/labels/train/a.txt").read_text().startswith("0 0.015625 0.04166666667 ")
    again = command("convert", source, tmp_path / "yolo", "--format", "yolo")
    assert again.exit_code == 2
    assert "is there already; add --overwrite to replace it" in again.err
    as_json = command("convert", source, tmp_path / "yolo", "--format", "yolo", "--overwrite", "--link", "--json")
    document = json.loads(as_json.out)
    assert document["splits"] == {"train": {"pictures": 1, "objects": 1}}
    assert document["format"] == "yolo"


def test_convert_to_a_json(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answer = command("convert", source, tmp_path / "truth.json", "--split", "train", "--from", "dota")
    assert (answer.exit_code, answer.out) == (0, f"{tmp_path}/truth.json (coco): train: 1 pictures, 1 objects\n")
    (source / "labelTxt/a.txt").write_text("1 2 3 4 5 6 7 ship\n")
    broken = command("convert", source, tmp_path / "other", "--format", "coco")
    assert broken.exit_code == 1
    assert "a.txt:1 reads '1 2 3 4 5 6 7 ship'; expected is" in broken.err
    assert broken.err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set", "truth.json"]


def test_convert_weights(command, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from focaldet.engine.build import build_model
    from focaldet.engine.checkpoint import save_weights
    from focaldet.recipes import get_recipe

    small = {"backbone": "resnet18", "neck_channels": 8, "head_channels": 8, "head_convs": 1}
    recipe = get_recipe("retinanet_r50_1x_coco").replace(**small, classes=("ship",))
    save_weights(tmp_path / "a.safetensors", build_model(recipe).state_dict(), recipe)
    done = command("convert", tmp_path / "a.safetensors", tmp_path / "a.pth", "--format", "mmdetection")
    assert done.exit_code == 0
    assert done.out.startswith(f"{tmp_path}/a.pth (mmdetection): ")
    assert done.out.endswith(" entries of retinanet_r50_1x_coco\n")
    unknown = command("convert", tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert unknown.exit_code == 2 and "name its recipe by --recipe" in unknown.err
    wrong = command("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--recipe", "retinanet_r50_1x_coco")
    assert wrong.exit_code == 1 and "the weights do not fit the model" in wrong.err
    split = command("convert", tmp_path / "a.pth", tmp_path / "b.safetensors", "--split", "train", "--link")
    assert split.exit_code == 2 and "--split, --link is about data" in split.err


def test_a_recipe_is_of_no_use_for_data(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    answer = command("convert", source, tmp_path / "yolo", "--recipe", "retinanet-small", "--format", "yolo")
    assert answer.exit_code == 2
    assert "--recipe says what weights are those of" in answer.err


def test_pictures_outside_have_to_be_allowed(command, source: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    Image.new("L", (64, 48)).save(tmp_path / "private.png")
    (source / "labelTxt/private.txt").write_text("")
    (source / "train.txt").write_text("../private.png\n")
    refused = command("convert", source, tmp_path / "target", "--format", "coco")
    assert refused.exit_code == 1
    assert f"line 1 of {source}/train.txt names ../private.png, which lies outside" in refused.err
    assert command("convert", source, tmp_path / "target", "--format", "coco", "--allow-outside").exit_code == 0
