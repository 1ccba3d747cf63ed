"""What docs/coming-from.md names is there: recipes, fields, functions, angle forms, keys, commands."""

from __future__ import annotations

import dataclasses
import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import focaldet
from focaldet.cli.main import main
from focaldet.geometry import convert_boxes
from focaldet.models.weights import KEYS
from focaldet.recipes import Recipe

PAGE = (Path(__file__).parents[1] / "docs/coming-from.md").read_text(encoding="utf-8")


def rows(part: str) -> list[list[str]]:
    """Return the cells of the tables' lines in a part of the page, headers and rules left out."""
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    header = {PAGE.splitlines()[k - 1] for k, line in enumerate(PAGE.splitlines()) if line.startswith("|---")}
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line not in header]


def section(title: str, level: str = "##") -> str:
    found = re.search(rf"^{level} {re.escape(title)}\n(.*?)(?=^##{{1,{len(level) - 1}}} |\Z)", PAGE, re.M | re.S)
    assert found is not None, title
    return found[1]


def code(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def test_recipes() -> None:
    named = {name for row in rows(section("Config to recipe")) if len(row) == 3 for name in code(row[2])}
    published = {name for name in focaldet.list_recipes() if not name.endswith("-small")}
    of_the_papers = {name for name in published if "dota" in name and "fpn" not in name}  # by another program
    assert named == published - of_the_papers
    for words in re.findall(r"focaldet (?:predict|train|load\(\") ?\"?(retinanet_\w+)", PAGE):
        focaldet.get_recipe(words)


def test_fields() -> None:
    fields = {field.name for field in dataclasses.fields(Recipe)}
    named = [name for row in rows(section("Config to recipe")) if len(row) == 2 for name in code(row[1])]
    assert len(named) > 20
    assert set(named) <= fields


def look_up(path: str) -> Any:
    """Return what a dotted name stands for; where a module and a function share a name, as users get it."""
    found: Any = focaldet
    whole = "focaldet"
    for name in path.split(".")[1:]:
        whole = f"{whole}.{name}"
        try:
            found = getattr(found, name)
        except AttributeError:
            found = importlib.import_module(whole)
    return found


NAMED = sorted({name for row in rows(section("Operator to function")) for name in code(row[-1]) if "." in name})


@pytest.mark.parametrize("name", [name for name in NAMED if name.startswith("focaldet.")])
def test_functions(name: str) -> None:
    assert callable(look_up(name))


def test_verbs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    verbs = set(re.findall(r"^  ([a-z]+) ", capsys.readouterr().out, re.M))
    named = set(re.findall(r"^    focaldet ([a-z]+)|`focaldet ([a-z]+)", PAGE, re.M))
    assert {one or other for one, other in named} <= verbs


def test_angle_forms() -> None:
    box = torch.tensor([[50.0, 40.0, 30.0, 10.0, 0.5]])
    forms = [form for row in rows(section("Angle forms")) for form in code(row[1])]
    assert len(forms) == 8
    for form in forms:
        assert torch.allclose(convert_boxes(convert_boxes(box, "le90", form), form, "le90"), box, atol=1e-4)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.S)
    exec(example, {})


@pytest.mark.parametrize("dialect", ["mmdetection", "mmrotate-1.x", "torchvision", "detectron2"])
def test_keys(dialect: str) -> None:
    named = [tuple(code(cell)[0] for cell in row) for row in rows(section(dialect, "###"))]
    assert len(named) >= 4
    assert set(named) <= set(KEYS[dialect])
    if dialect == "mmdetection":
        assert [pair for pair in KEYS[dialect] if not pair[0].startswith("refine")] == named
