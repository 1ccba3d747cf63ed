"""Arguments and flags that several verbs take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A run folder, a checkpoint, or a recipe's name with --weights.")
]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A dataset's folder or file: COCO json, DOTA, YOLO, VOC, data.yaml.")
]
DataChanges = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="field=value", help="Changes of the recipe; also format=dota, where data has several forms."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Workers = Annotated[int, typer.Option("--workers", min=0, metavar="N", help="Processes that read pictures.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
AnySize = Annotated[bool, typer.Option("--any-size", help="Take pictures over two gigapixels.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
