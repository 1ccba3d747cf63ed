"""The verb `recipes`: the published rows and ours."""

from __future__ import annotations

from typing import Annotated

import typer

from focaldet.cli.changes import parse_changes, split_changes
from focaldet.cli.verb import Answer, verb
from focaldet.errors import UsageError, did_you_mean

ACTIONS = {"list": "list", "show": "show NAME [field=value ...]", "diff": "diff A B"}


@verb
def recipes(
    action: Annotated[
        str, typer.Argument(metavar="list|show|diff", help="All, one, or what differs between two.")
    ] = "list",
    names: Annotated[list[str] | None, typer.Argument(metavar="NAME", help="Which; also field=value.")] = None,
) -> Answer:
    """Print the published rows and ours: reported figure, paper, quirks, what differs."""
    from focaldet.recipes import RECIPES, get_recipe, tables

    if action not in ACTIONS:
        hint = did_you_mean(action, ACTIONS)
        raise UsageError(f"recipes {action!r} does not exist{hint}; it is list, show NAME or diff A B")
    words, written = split_changes(names or [])
    changes = parse_changes(written)
    state = changes.pop("state", "published")
    chosen = [get_recipe(name, state).replace(**changes) for name in words]
    if len(chosen) != {"list": 0, "show": 1, "diff": 2}[action]:
        raise UsageError(f"it is written: focaldet recipes {ACTIONS[action]}")
    if action == "show":
        return Answer(tables.shown(chosen[0]), tables.show_table(chosen[0]))
    if action == "diff":
        differences = tables.differences(*chosen)
        return Answer(differences, tables.diff_table(*chosen) if differences else "they do not differ")
    everything = [recipe.at(state) for recipe in RECIPES.values()]
    return Answer(tables.overview(everything), tables.list_tables(everything))
