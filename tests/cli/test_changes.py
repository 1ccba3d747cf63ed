"""field=value words become changes of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from focaldet.cli.changes import parse_changes, split_changes
from focaldet.errors import UsageError
from focaldet.recipes import get_recipe, list_recipes


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("epochs=3", 3),
        ("lr=1", 1.0),
        ("lr=1e-4", 1e-4),
        ("drops=[8,11]", (8, 11)),
        ("sizes=[[480,360],[320,240]]", ((480, 360), (320, 240))),
        ("classes=[ship, harbor]", ("ship", "harbor")),
        ("backbone=convnext_tiny", "convnext_tiny"),
        ("backbone=1234", "1234"),
        ("frozen=none", "none"),
        ("clip=none", None),
        ("clip=", None),
        ("clip=0.5", 0.5),
        ("decay_all=false", False),
        ("state=clean", "clean"),
        ("paper=a=b", "a=b"),
    ],
)
def test_values_take_the_type_of_their_field(word: str, value: Any) -> None:
    found = parse_changes([word])
    assert found == {word.partition("=")[0]: value}
    assert type(next(iter(found.values()))) is type(value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["epochs"], "'epochs' is not understood; a change of the recipe is written field=value"),
        (["epoch=3"], "'epoch' is no field of a recipe (did you mean 'epochs'?)"),
        (["epochs=3", "epochs=4"], "epochs is given twice"),
        (["epochs=2.5"], "epochs=2.5 should be of type int"),
        (["epochs=true"], "epochs=True should be of type int"),
        (["drops=8"], "drops=8 should be a list, such as [1, 2]"),
        (["classes=ship"], "classes='ship' should be a list, such as [a, b]"),
        (["drops=[8"], "drops=[8 is no YAML value"),
        (["box_loss=l2"], "box_loss='l2' is not one of 'l1', 'smooth_l1', "),
        (["state=cleen"], "(did you mean 'clean'?)"),
        (["test_size=[1,2,3]"], "test_size=[1, 2, 3] should have 2 entries"),
    ],
)
def test_what_does_not_fit_is_a_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_changes(words)
    assert sentence in str(error.value)


@given(st.sampled_from(list_recipes()), st.data())
def test_every_value_of_every_recipe_can_be_written(name: str, data: st.DataObject) -> None:
    recipe = get_recipe(name)
    field = data.draw(st.sampled_from(sorted(recipe.to_dict())))
    value = recipe.to_dict()[field]
    text = (
        value
        if isinstance(value, str)
        else yaml.safe_dump(value, default_flow_style=True, width=10**6).split("\n...")[0].strip()
    )
    assert parse_changes([f"{field}={text}"]) == {field: getattr(recipe, field)}


def test_a_file_with_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("score=1.jpg").touch()
    words = ["a.jpg", "score=1.jpg", "score=0.5", "folder/x=1.png"]
    assert split_changes(words) == (["a.jpg", "score=1.jpg", "folder/x=1.png"], ["score=0.5"])
