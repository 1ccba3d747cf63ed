"""The verb `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from focaldet.cli.options import Overwrite
from focaldet.cli.verb import Answer, verb

if TYPE_CHECKING:
    from focaldet.engine.convert import Conversion


@verb
def convert(
    source: Annotated[Path, typer.Argument(metavar="FROM", help="A dataset's folder or file, in any known format.")],
    target: Annotated[
        Path, typer.Argument(metavar="TO", help="A new folder; or a .json for one split's labels in COCO's form.")
    ],
    format: Annotated[
        str | None,
        typer.Option("--format", metavar="NAME", help="Of TO: coco, dota, yolo, yolo-obb, voc, hrsc (rotated boxes)."),
    ] = None,
    source_format: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="Of FROM, where it has several; also icdar.")
    ] = None,
    split: Annotated[
        Literal["train", "val"] | None, typer.Option("--split", help="Only these pictures; otherwise all.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link pictures instead of copying them.")] = False,
    overwrite: Overwrite = False,
) -> Answer:
    """Write a dataset in another format, with its pictures; what that format cannot hold is counted and said."""
    from focaldet.cli.progress import new_listener
    from focaldet.engine.convert import convert as run_conversion

    conversion = run_conversion(
        source,
        target,
        format,
        source_format=source_format,
        split=split,
        link=link,
        overwrite=overwrite,
        listener=new_listener(),
    )
    return Answer(conversion.to_dict(), conversion_text(conversion))


def conversion_text(conversion: Conversion) -> str:
    """Say what was written, and what was lost on the way."""
    parts = [
        f"{split}: {pictures} pictures, {objects} objects" for split, (pictures, objects) in conversion.splits.items()
    ]
    return "\n".join([*conversion.notes, f"{conversion.target} ({conversion.format}): {'; '.join(parts)}"])
