"""Arguments and flags that several verbs take, each described once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from focaldet.errors import FocaldetError, UsageError

Source = Annotated[
    str, typer.Argument(metavar="SOURCE", help="A run folder, a checkpoint, or a recipe's name with --weights.")
]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="A dataset's folder or file: COCO json, YOLO, VOC, data.yaml.")
]
Changes = Annotated[list[str] | None, typer.Argument(metavar="field=value", help="Changes of the recipe.")]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="Where to compute: cpu, cuda, cuda:1, mps.")]
Workers = Annotated[int, typer.Option("--workers", min=0, metavar="N", help="Processes that read pictures.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]


def read_device(name: str) -> str:
    """Return a device's name if this machine has it.

    Raises:
        UsageError: torch knows no such device.
        FocaldetError: this machine has none.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise UsageError(f"--device {name} is no device; use cpu, cuda, cuda:1 or mps") from None
    missing = device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()
    missing |= device.type == "mps" and not torch.backends.mps.is_available()
    if missing:
        raise FocaldetError(f"--device {name}: this machine has none that torch can use; `focaldet doctor` lists them")
    return name
