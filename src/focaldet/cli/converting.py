"""The verb `convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from focaldet.cli.options import Overwrite
from focaldet.cli.verb import Answer, reads_data, verb
from focaldet.errors import UsageError

if TYPE_CHECKING:
    from focaldet.engine.convert import Conversion

WEIGHTS = (".safetensors", ".pth", ".pt", ".pkl", ".npz")
"""Endings by which FROM or TO are known for weights; a run's folder is by those of TO."""


@verb
@reads_data
def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FROM", help="A dataset's folder or file, in any known format; or weights: a run, .pth, .pkl, .npz."
        ),
    ],
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TO",
            help="A new folder, or a .json for one split's labels in COCO's form; of weights .safetensors, .pth, .pkl.",
        ),
    ],
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Of TO: coco, dota, yolo, yolo-obb, voc, hrsc (rotated boxes); "
            "of weights focaldet, mmdetection, torchvision, detectron2.",
        ),
    ] = None,
    source_format: Annotated[
        str | None, typer.Option("--from", metavar="NAME", help="Of FROM, where it has several; also icdar.")
    ] = None,
    split: Annotated[
        Literal["train", "val"] | None, typer.Option("--split", help="Only these pictures; otherwise all.")
    ] = None,
    link: Annotated[bool, typer.Option("--link", help="Link pictures instead of copying them.")] = False,
    recipe: Annotated[
        str | None, typer.Option("--recipe", metavar="NAME", help="What weights of another program are those of.")
    ] = None,
    overwrite: Overwrite = False,
) -> Answer:
    """Write a dataset in another format, with its pictures; or a detector's weights as another program reads them.

    What a format of data cannot hold is counted and said; weights that would compute something else are refused.
    """
    if target.suffix in WEIGHTS or source.suffix in WEIGHTS:
        asked = {"--from": source_format, "--split": split, "--link": link}
        return _convert_weights(source, target, format, recipe, overwrite, [name for name in asked if asked[name]])
    if recipe is not None:
        raise UsageError(f"--recipe says what weights are those of, but {source} is data")
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


def _convert_weights(
    source: Path, target: Path, format: str | None, recipe: str | None, overwrite: bool, not_for_weights: list[str]
) -> Answer:
    if not_for_weights:
        raise UsageError(f"{', '.join(not_for_weights)} is about data, but {source} and {target} are weights")
    from focaldet.engine.convert_weights import convert_weights

    done = convert_weights(source, target, format, recipe=recipe, overwrite=overwrite)
    text = f"{done.target} ({done.format}): {done.entries} entries of {done.recipe}"
    return Answer(done.to_dict(), text)


def conversion_text(conversion: Conversion) -> str:
    """Say what was written, and what was lost on the way."""
    parts = [
        f"{split}: {pictures} pictures, {objects} objects" for split, (pictures, objects) in conversion.splits.items()
    ]
    return "\n".join([*conversion.notes, f"{conversion.target} ({conversion.format}): {'; '.join(parts)}"])
