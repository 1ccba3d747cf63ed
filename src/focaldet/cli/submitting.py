"""The verb `submit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from focaldet.cli.options import Overwrite
from focaldet.cli.verb import Answer, verb


@verb
def submit(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="With Task1_*.txt or detections.json; or such a json.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.zip", help="What the server takes.")],
    merge: Annotated[
        str | None,
        typer.Option("--merge", metavar="RULE", help="Tiles to scenes: an IoU; single-scale, multi-scale, after-2020."),
    ] = None,
    version: Annotated[
        Literal["1.0", "1.5", "2.0"] | None, typer.Option("--dota", help="Version; otherwise by the classes.")
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="PATH", help="List or folder of the scenes; no others.")
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Write empty files for classes without a word.")
    ] = False,
    overwrite: Overwrite = False,
) -> Answer:
    """Check detections and zip them for DOTA's server, Task 1."""
    from focaldet.engine import submitting

    done = submitting.submit(
        source,
        output,
        merge=merge,
        version=version,
        pictures=pictures,
        allow_missing=allow_missing,
        overwrite=overwrite,
    )
    return Answer(done.to_dict(), done.text())
