"""The verb `recipes`."""

from __future__ import annotations

import json
from typing import Any

import focaldet
from focaldet.recipes import RECIPES


def test_list_names_every_recipe_and_reported_figure(command: Any) -> None:
    exit_code, out, _ = command("recipes")
    assert exit_code == 0
    for recipe in RECIPES.values():
        assert recipe.name in out
        assert recipe.reported is None or str(recipe.reported) in out
    assert "arXiv:1708.02002" in out
    assert "nms_labels=offset" in out


def test_list_as_json(command: Any) -> None:
    document = json.loads(command("recipes", "list", "--json").out)
    assert [entry["name"] for entry in document] == focaldet.list_recipes()
    first = document[0]
    assert (first["row"], first["reported"], first["paper"]) == (1, 36.3, "arXiv:1708.02002")
    assert first["quirks"] == ["claim=ties-overwrite", "nms_labels=offset", "warmup_until=last"]
    assert first["differs"]["style"] == "caffe"


def test_show_prints_all_of_one(command: Any) -> None:
    document = json.loads(command("recipes", "show", "retinanet_r50_1x_coco", "--json").out)
    assert document["reported"] == 36.5
    assert document["num_anchors"] == 9
    out = command("recipes", "show", "retinanet_r50_1x_coco").out
    assert all(name in out for name in document if name != "name")


def test_show_takes_changes_and_states(command: Any) -> None:
    words = ["recipes", "show", "retinanet_r50_1x_coco", "epochs=3", "state=clean", "--json"]
    document = json.loads(command(*words).out)
    assert document["epochs"] == 3
    assert document["quirks"] == []


def test_diff_of_two(command: Any) -> None:
    words = ["recipes", "diff", "retinanet_r50_1x_coco", "retinanet_r50_2x_coco"]
    document = json.loads(command(*words, "--json").out)
    assert document["epochs"] == [12, 24]
    assert set(document) == {"row", "reported", "source", "epochs", "drops"}
    assert "[16,22]" in command(*words).out


def test_a_recipe_does_not_differ_from_itself(command: Any) -> None:
    assert "they do not differ" in command("recipes", "diff", "retinanet-small", "retinanet-small").out
