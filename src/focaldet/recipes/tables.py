"""Recipes side by side: what differs between them, as plain dicts and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from focaldet.recipes.recipe import Recipe, plain

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

IDENTITY = ("name", "row", "reported", "source")
"""Fields that differ between any two recipes and move no number."""
UNPUBLISHED = ("backbone", "batch", "epochs", "test_size")
"""Columns of a table that holds a single recipe, in which nothing differs."""


def groups(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Split recipes by table: the rows of one paper together, ours together, in the order given."""
    return [list(group) for _, group in groupby(recipes, key=lambda recipe: (recipe.row > 0, recipe.paper))]


def differing_fields(recipes: Sequence[Recipe]) -> list[str]:
    """Return the fields, apart from `IDENTITY`, in which the recipes are not all equal.

    >>> differing_fields([Recipe(name="a"), Recipe(name="b", epochs=24)])
    ['epochs']
    """
    first, *others = [recipe.to_dict() for recipe in recipes]
    return [name for name in first if name not in IDENTITY and any(other[name] != first[name] for other in others)]


def overview(recipes: Sequence[Recipe]) -> list[dict[str, Any]]:
    """Return a dict a recipe: name, row, reported figure, paper, source, quirks, and what differs within its table."""
    entries = []
    for group in groups(recipes):
        columns = differing_fields(group)
        for recipe in group:
            fields = recipe.to_dict()
            entry = {name: fields[name] for name in (*IDENTITY, "paper")} | {"quirks": list(recipe.quirks)}
            entries.append(entry | {"differs": {name: fields[name] for name in columns}})
    return entries


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return all fields of a recipe and what follows from them."""
    return recipe.to_dict() | {
        "num_anchors": recipe.num_anchors,
        "peak_lr": recipe.peak_lr,
        "quirks": list(recipe.quirks),
    }


def differences(first: Recipe, second: Recipe) -> dict[str, list[Any]]:
    """Return {field: [value of the first, value of the second]} where two recipes differ, names left out.

    >>> differences(Recipe(name="a"), Recipe(name="b", epochs=24))
    {'epochs': [12, 24]}
    """
    values, others = resolved(first), resolved(second)
    return {name: [value, others[name]] for name, value in values.items() if name != "name" and value != others[name]}


def list_tables(recipes: Sequence[Recipe]) -> RenderableType:
    """Return one table a published table: the columns that differ, beside reported figure, paper and quirks."""
    from rich.console import Group

    return Group(*(_list_table(group) for group in groups(recipes)))


def show_table(recipe: Recipe) -> Table:
    """Return all of one recipe."""
    table = _table(recipe.name, "field", "value")
    for name, value in resolved(recipe).items():
        if name != "name":
            _add_row(table, name, text(value))
    return table


def diff_table(first: Recipe, second: Recipe) -> Table:
    """Return the fields in which two recipes differ."""
    table = _table(None, "field", first.name, second.name)
    for name, values in differences(first, second).items():
        _add_row(table, name, *map(text, values))
    return table


def text(value: Any) -> str:
    """Write a field's value as the command line takes it, long lists shortened.

    >>> text((8, 11)), text(None), text(41.0), text(4.0 * 2 ** (1 / 3))
    ('[8,11]', 'none', '41.0', '5.03968')
    """
    if isinstance(value, (list, tuple)):
        shown = [text(item) for item in value[:8]] + ([f"... {len(value)} in all"] if len(value) > 8 else [])
        return f"[{','.join(shown)}]"
    if isinstance(value, float):
        return str(value) if len(str(value)) < 8 else f"{value:.6g}"
    return "none" if value is None else str(value)


def _list_table(group: Sequence[Recipe]) -> Table:
    leading, following = _partition(group, differing_fields(group) or list(UNPUBLISHED))
    published = group[0].row > 0
    columns = [*(["row"] if published else []), "name", *(["reported"] if published else []), *leading]
    caption = [f"paper {group[0].paper}"] if group[0].paper else []
    caption += [f"with {name}: {', '.join(names)}" for name, names in following.items()]
    quirks = group[0].quirks
    if all(recipe.quirks == quirks for recipe in group):
        caption += [f"quirks {', '.join(quirks)}"] if quirks else []
    else:
        columns.append("quirks")
    table = _table(None if published else "ours", *columns, caption="\n".join(caption))
    for recipe in group:
        _add_row(table, *(text(getattr(recipe, name)) for name in columns))
    return table


def _partition(group: Sequence[Recipe], columns: Sequence[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Find the columns that say everything: those that split the rows just as an earlier one does, follow from it."""
    leading: dict[tuple[int, ...], str] = {}
    following: dict[str, list[str]] = {}
    for name in columns:
        values = [plain(getattr(recipe, name)) for recipe in group]
        split = tuple(values.index(value) for value in values)
        if split in leading and len(group) > 1:
            following.setdefault(leading[split], []).append(name)
        else:
            leading[split if len(group) > 1 else (len(leading),)] = name
    return list(leading.values()), following


def _table(title: str | None, *columns: str, caption: str = "") -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE, caption=caption or None, caption_justify="left", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _add_row(table: Table, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells))  # plain strings would have their [lists] read as markup
