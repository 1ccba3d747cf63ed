"""The verb `tile`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from focaldet.cli.options import AnySize, Data, DryRun, Overwrite
from focaldet.cli.verb import Answer, reads_data, verb
from focaldet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from focaldet.data.tiles import Cut


@verb
@reads_data
def tile(
    data: Data,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For the tiles.")],
    cut: Annotated[
        str | None,
        typer.Option("--cut", metavar="NAME", help="mmrotate, mmrotate-ms, original (its training), original-test."),
    ] = None,
    like: Annotated[
        str | None, typer.Option("--like", metavar="RECIPE", help="Cut as a recipe trains, instead of --cut.")
    ] = None,
    side: Annotated[
        int | None, typer.Option("--tile", min=1, metavar="PIXELS", help="Side of a tile, instead of the cut's.")
    ] = None,
    overlap: Annotated[
        int | None, typer.Option("--overlap", min=0, metavar="PIXELS", help="Of neighbours, instead of the cut's.")
    ] = None,
    rates: Annotated[
        str | None, typer.Option("--rates", metavar="A,B,...", help="Scales: at 0.5, tiles have twice the side.")
    ] = None,
    owner: Annotated[
        Literal["centre", "share"] | None, typer.Option("--owner", help="What makes an object a tile's.")
    ] = None,
    min_share: Annotated[
        float | None, typer.Option("--min-share", min=0, max=1, help="Of an object's area, for --owner share.")
    ] = None,
    pad: Annotated[
        str | None, typer.Option("--pad", metavar="R,G,B", help="Colour beyond the picture; none: tiles end there.")
    ] = None,
    empty: Annotated[
        bool | None, typer.Option("--empty/--no-empty", help="Whether tiles without objects are written.")
    ] = None,
    format: Annotated[Literal["png", "jpg"], typer.Option("--format", help="Of the tiles.")] = "png",
    headers: Annotated[bool, typer.Option("--headers", help="Put DOTA's two header lines above labels.")] = False,
    workers: Annotated[
        int, typer.Option("--workers", min=0, metavar="N", help="Processes, each with a picture at a time.")
    ] = 1,
    any_size: AnySize = False,
    resume: Annotated[bool, typer.Option("--resume", help="Keep what a broken-off call left.")] = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> Answer:
    """Cut big pictures into tiles, with the objects of each."""
    from focaldet.engine import tiling

    changes: dict[str, Any] = {
        "tile": side,
        "overlap": overlap,
        "rates": None if rates is None else numbers_of(rates, "--rates"),
        "owner": owner,
        "min_share": min_share,
        "empty": empty,
    }
    chosen = replace(chosen_cut(cut, like), **{name: value for name, value in changes.items() if value is not None})
    if pad is not None:
        chosen = replace(chosen, pad=None if pad == "none" else colour_of(pad))
    from focaldet.cli.progress import new_listener

    summary = tiling.tile(
        data,
        output,
        chosen,
        format=format,
        headers=headers,
        workers=workers,
        any_size=any_size,
        resume=resume,
        overwrite=overwrite,
        dry_run=dry_run,
        listener=new_listener(),
    )
    for _, sentence in summary.failed:
        print(f"focaldet: error: {sentence}", file=sys.stderr)
    document = {**summary.to_dict(), "cut": chosen.to_dict(), "output": str(output)}
    place = f"nothing is written to {output}: " if dry_run else f"{output}: "
    return Answer(document, place + summary.text(), exit_code=1 if summary.failed else 0)


def chosen_cut(name: str | None, like: str | None) -> Cut:
    """Return a named cut, or the one that a recipe trains on; mmrotate's where nothing is asked for."""
    from focaldet.data.tiles import CUTS

    if like is not None:
        from focaldet.engine.build import build_training_cut
        from focaldet.recipes import get_recipe

        if name is not None:
            raise UsageError(f"--cut {name} and --like {like} both say how to cut; leave out one")
        return build_training_cut(get_recipe(like))
    name = name or "mmrotate"
    if name not in CUTS:
        raise UsageError(f"--cut {name!r} does not exist{did_you_mean(name, CUTS)}; use {', '.join(CUTS)}")
    return CUTS[name]


def numbers_of(text: str, flag: str) -> tuple[float, ...]:
    """Return the numbers of a flag's value, which are separated by commas."""
    try:
        return tuple(float(word) for word in text.split(","))
    except ValueError:
        raise UsageError(f"{flag} {text!r} should be numbers with commas between them, such as 0.5,1,1.5") from None


def colour_of(text: str) -> tuple[int, int, int]:
    """Return the colour of `--pad`."""
    numbers = numbers_of(text, "--pad")
    if len(numbers) != 3 or any(number != int(number) for number in numbers):
        raise UsageError(f"--pad {text!r} should be a colour of three whole numbers, such as 124,116,104, or none")
    red, green, blue = (int(number) for number in numbers)
    return red, green, blue
