"""`field=value` on the command line: what a run changes of its recipe."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from focaldet.errors import UsageError, did_you_mean

FORM = re.compile(r"[A-Za-z_]\w*=", re.ASCII)


def parse_changes(words: Iterable[str] | None, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Read `field=value` words into the changes of a recipe; values are YAML scalars or lists.

    >>> parse_changes(["epochs=3", "drops=[8, 11]", "lr=1e-3", "clip=none"])
    {'epochs': 3, 'drops': (8, 11), 'lr': 0.001, 'clip': None}

    Args:
        words: of the command line.
        more: names that a verb takes beside fields and `state`, with their types.

    Raises:
        UsageError: a word of another form, a field that does not exist or is named twice, a value that does not fit.
    """
    from focaldet.recipes.recipe import FIELD_TYPES, State

    known = FIELD_TYPES | {"state": State} | dict(more or {})
    changes: dict[str, Any] = {}
    for word in words or ():
        name, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"{word!r} is not understood; a change of the recipe is written field=value")
        if name not in known:
            raise UsageError(f"{name!r} is no field of a recipe{did_you_mean(name, known)}")
        if name in changes:
            raise UsageError(f"{name} is given twice")
        changes[name] = parse_value(name, text, known[name])
    return changes


def parse_value(name: str, text: str, expected: Any) -> Any:
    """Read one value and bring it into the type of its field."""
    import yaml

    from focaldet.recipes.recipe import coerce

    if type(None) in typing.get_args(expected) and text.lower() in ("", "none"):
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise UsageError(
            f"{name}={text} is no YAML value; a list is written {name}=[1,2], without spaces or quoted"
        ) from None
    if expected is str or (typing.get_origin(expected) is typing.Literal and value not in typing.get_args(expected)):
        value = text  # YAML would read some names as numbers, dates or truth values
    return coerce(name, value, expected)


def split_changes(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Tell the names of files from `field=value` words; what exists as a file is a file.

    >>> split_changes(["a.jpg", "score=0.5"])
    (['a.jpg'], ['score=0.5'])
    """
    files: list[str] = []
    changes: list[str] = []
    for word in words:
        (changes if FORM.match(word) and not Path(word).exists() else files).append(word)
    return files, changes
