"""The verb `predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from focaldet.cli.changes import parse_changes, split_changes
from focaldet.cli.options import AnySize, Device, DryRun, Overwrite, Source
from focaldet.cli.verb import Answer, verb
from focaldet.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from focaldet.engine.predict import PredictSummary


@verb
def predict(
    source: Source,
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURES", help="Files, folders, patterns; also field=value.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="For what is found.")],
    formats: Annotated[
        str, typer.Option("--format", metavar="NAMES", help="What to write: json, coco, task1, draw, with commas.")
    ] = "json,draw",
    score: Annotated[
        float | None, typer.Option("--score", min=0, max=1, help="Least score; otherwise the recipe's.")
    ] = None,
    tta: Annotated[
        bool,
        typer.Option("--tta", help="Look several times, at three sizes and mirrored, and merge: slower, finds more."),
    ] = False,
    weights: Annotated[str | None, typer.Option("--weights", metavar="FILE", help="Weights for a recipe.")] = None,
    device: Device = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Keep what a broken-off call left.")] = False,
    any_size: AnySize = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> Answer:
    """Detect in pictures, and draw what is found."""
    from focaldet.engine.predict import FORMATS, find_pictures, predict_folder

    named, written = split_changes(pictures)
    fields = parse_changes(written)
    chosen = [known for known in FORMATS if known in formats.split(",")]
    unknown = next((name for name in formats.split(",") if name not in FORMATS), None)
    if unknown is not None:
        raise UsageError(
            f"--format {unknown!r} does not exist{did_you_mean(unknown, FORMATS)}; use {', '.join(FORMATS)}"
        )
    if dry_run:
        found = [str(path) for path in find_pictures(named)]
        text = "\n".join([*found, f"{len(found)} pictures, answers into {output} as {', '.join(chosen)}"])
        return Answer({"pictures": found, "output": str(output), "formats": chosen}, text)
    from focaldet.cli.progress import new_listener
    from focaldet.data.pictures import any_size as pictures_of_any_size
    from focaldet.engine.detector import load

    detector = load(source, weights=weights, device=device, **fields)
    with pictures_of_any_size(any_size):
        summary = predict_folder(
            detector,
            named,
            output,
            formats=chosen,
            score=score,
            tta=tta or None,
            resume=resume,
            overwrite=overwrite,
            listener=new_listener(),
        )
    for _, sentence in summary.failed:
        print(f"focaldet: error: {sentence}", file=sys.stderr)
    return Answer(summary.to_dict(), summary_text(summary), exit_code=1 if summary.failed else 0)


def summary_text(summary: PredictSummary) -> str:
    """Say what was done and where it lies."""
    failed = f", {len(summary.failed)} could not be read" if summary.failed else ""
    return "\n".join([f"{summary.done} pictures done{failed}", *map(str, summary.files)])
