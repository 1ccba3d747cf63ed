"""Recipes side by side: what differs between them, as plain dicts and as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from focaldet.recipes.recipe import Recipe, plain
from focaldet.recipes.reported import reported_classes

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

IDENTITY = ("name", "row", "reported", "source", "note")
"""Fields that differ between any two recipes and move no number."""
UNPUBLISHED = ("backbone", "batch", "epochs", "test_size")
"""Columns of a table that holds a single recipe, in which nothing differs."""
COMPANY = 3
"""As many rows as must agree before what one other has alone is told below the table."""


def groups(recipes: Sequence[Recipe]) -> list[list[Recipe]]:
    """Split recipes by table: the rows of one model and paper together, ours together, in the order given.

    A published name starts with its model; R3Det and R3Det*, which differ in a number of stages, are one. Apart are
    what its paper's table does not number, and another program's: a name of three parts ends with that.
    """

    def table(recipe: Recipe) -> tuple[str, ...]:
        model = recipe.name.partition("_")[0].removesuffix("-star")
        parts = recipe.name.split("_")
        program = parts[2].partition("-")[0] if len(parts) == 3 else ""
        return (model, recipe.paper, str(recipe.row > 0), program) if recipe.published else ()

    return [list(group) for _, group in groupby(recipes, key=table)]


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


def shown(recipe: Recipe) -> dict[str, Any]:
    """Return all that is known of a recipe: what `resolved` returns, and what was reported of each class."""
    classes = reported_classes(recipe)
    return resolved(recipe) | ({"reported_classes": classes} if classes else {})


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
    for name, value in shown(recipe).items():
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
    if isinstance(value, dict):
        return ", ".join(f"{name} {text(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        shown = [text(item) for item in value[:8]] + ([f"... {len(value)} in all"] if len(value) > 8 else [])
        return f"[{','.join(shown)}]"
    if isinstance(value, float):
        return str(value) if len(str(value)) < 8 else f"{value:.6g}"
    return "none" if value is None else str(value)


def _list_table(group: Sequence[Recipe]) -> Table:
    columns, following, alone = _partition(group, differing_fields(group) or list(UNPUBLISHED))
    if group[0].published:
        columns = ["name", "reported", *columns]
    if any(recipe.row for recipe in group):
        columns = ["row", *columns]
    columns = columns if "name" in columns else ["name", *columns]
    caption = [f"paper {group[0].paper}"] if group[0].paper else []
    caption += [f"with {name}: {', '.join(names)}" for name, names in following.items()]
    caption += [f"{name} alone: {', '.join(values)}" for name, values in alone.items()]
    headings = [name.replace("_", "_\n") for name in columns]  # a word a line: most values are short
    table = _table(None if group[0].published else "ours", *headings, caption="\n".join(caption + _quirk_lines(group)))
    for recipe in group:
        _add_row(table, *(_figure(recipe, group) if name == "reported" else _cell(recipe, name) for name in columns))
    return table


def _partition(
    group: Sequence[Recipe], fields: Sequence[str]
) -> tuple[list[str], dict[str, list[str]], dict[str, list[str]]]:
    """Find the columns that say everything of a group.

    Returns:
        The columns. By column, the fields that split the rows just as it does, and so follow from it. By recipe, what
        it has alone where all others, at least `COMPANY`, agree: that needs no column.
    """
    splits: dict[tuple[int, ...], list[str]] = {}
    alone: dict[str, list[str]] = {}
    for name in fields:
        values = [plain(getattr(recipe, name)) for recipe in group]
        odd = _odd_one(values)
        if odd is not None:
            alone.setdefault(group[odd].name, []).append(f"{name}={text(values[odd])}")
            continue
        # in a table of a single row nothing follows from anything
        split = tuple(values.index(value) for value in values) if len(group) > 1 else (len(splits),)
        splits.setdefault(split, []).append(name)
    columns = [names[0] for names in splits.values()]
    return columns, {names[0]: names[1:] for names in splits.values() if names[1:]}, alone


def _odd_one(values: Sequence[Any]) -> int | None:
    """Return the place of the one value that differs from all others, of which there are enough and which are equal.

    >>> _odd_one([1, 1, 2, 1, 1]), _odd_one([1, 1, 2, 2, 1]), _odd_one([1, 2])
    (2, None, None)
    """
    if len(values) <= COMPANY:
        return None
    odd = [place for place, value in enumerate(values) if values.count(value) == 1]
    return odd[0] if len(odd) == 1 and values.count(values[odd[0] - 1]) == len(values) - 1 else None


def _quirk_lines(group: Sequence[Recipe]) -> list[str]:
    """Name the quirks that all rows have, and those of some, which are told in columns too."""
    every = list(dict.fromkeys(quirk for recipe in group for quirk in recipe.quirks))
    common = [quirk for quirk in every if all(quirk in recipe.quirks for recipe in group)]
    others = [quirk for quirk in every if quirk not in common]
    lines = [f"quirks {', '.join(common)}"] if common else []
    return lines + ([f"quirks of some {', '.join(others)}"] if others else [])


def _cell(recipe: Recipe, name: str) -> str:
    return text(getattr(recipe, name))


def _figure(recipe: Recipe, group: Sequence[Recipe]) -> str:
    """Write a reported figure, with as many decimals as the table's others."""
    decimals = max(len(str(other.reported).partition(".")[2]) for other in group if other.reported is not None)
    return "none" if recipe.reported is None else f"{recipe.reported:.{decimals}f}"


def _table(title: str | None, *columns: str, caption: str = "") -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title, box=box.SIMPLE, padding=(0, 1, 0, 0), caption_justify="left", title_justify="left")
    table.caption = Text(caption, style="table.caption") if caption else None  # as markup it would lose its [lists]
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=column == "name")
    return table


def _add_row(table: Table, *cells: str) -> None:
    from rich.text import Text

    table.add_row(*map(Text, cells))  # plain strings would have their [lists] read as markup
