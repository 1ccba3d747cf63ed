"""The verbs `train`, `eval` and `score`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from focaldet.cli.changes import parse_changes
from focaldet.cli.options import AnySize, Data, DataChanges, Device, DryRun, Overwrite, Source, Workers
from focaldet.cli.verb import Answer, reads_data, verb
from focaldet.errors import UsageError

if TYPE_CHECKING:
    from focaldet.engine.plan import Plan
    from focaldet.engine.run import Run


@verb
@reads_data
def train(
    recipe: Annotated[
        str | None, typer.Argument(metavar="RECIPE", help="A name of `focaldet recipes list`.", show_default=False)
    ] = None,
    data: Annotated[
        Path | None,
        typer.Argument(metavar="DATA", help="A dataset's folder or file: COCO json, DOTA, YOLO, VOC, data.yaml."),
    ] = None,
    changes: DataChanges = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="RUN", help="The run's folder.")] = None,
    weights: Annotated[
        str, typer.Option("--weights", metavar="WHAT", help="Start from: imagenet, none, or a file to fine-tune.")
    ] = "imagenet",
    device: Device = "cpu",
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, metavar="N", help="Share the work among GPUs.")] = None,
    processes: Annotated[
        int, typer.Option("--processes", min=1, metavar="N", help="Share the work among processes of --device.")
    ] = 1,
    workers: Workers = 0,
    max_minutes: Annotated[float | None, typer.Option("--max-minutes", min=0.01, help="End after this time.")] = None,
    save_every: Annotated[
        float | None,
        typer.Option("--save-every", min=0, metavar="MINUTES", help="Save within epochs too; 0: after each step."),
    ] = None,
    eval_every: Annotated[
        int, typer.Option("--eval-every", min=1, metavar="EPOCHS", help="Score after so many epochs.")
    ] = 1,
    patience: Annotated[
        int | None, typer.Option("--patience", min=1, metavar="N", help="End after N scorings without a better AP.")
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="Run the network through torch.compile.")] = False,
    recompute: Annotated[
        bool, typer.Option("--activation-checkpointing", help="Compute activations twice: less memory, more time.")
    ] = False,
    channels_last: Annotated[bool, typer.Option(help="Lay maps out with their channels last.")] = True,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write figures for TensorBoard too.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Say where a step's time goes.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", metavar="FILE", help="Compute a failure again, from the failure.pt that a run left."),
    ] = None,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> Answer:
    """Train a recipe on a dataset; score it after each epoch."""
    if replay is not None:
        return replay_answer(replay, device)
    if recipe is None or data is None:
        raise UsageError("train needs RECIPE and DATA, such as `focaldet train retinanet-small DATA --output RUN`")
    fields, format = fields_and_format(changes)
    if resume and fields:
        given = (word for word in changes or () if not word.startswith("format="))
        raise UsageError(f"--resume goes on with the run's own recipe; leave out {' '.join(given)}")
    from focaldet.recipes import get_recipe

    chosen = get_recipe(recipe, fields.pop("state", "published"))
    if dry_run:
        from focaldet.engine.plan import plan

        planned = plan(chosen, data, device=device, format=format, **fields)
        return Answer(planned.to_dict(), plan_text(planned))
    if output is None:
        raise UsageError("train needs --output RUN, the folder for its files; --dry-run needs none")
    from focaldet.cli.progress import new_listener
    from focaldet.report.training import train as run_training

    run = run_training(
        chosen,
        data,
        output,
        format=format,
        device="cuda" if gpus is not None and device == "cpu" else device,
        processes=processes if gpus is None else gpus,
        workers=workers,
        weights=None if weights == "none" else weights,
        resume=resume,
        overwrite=overwrite,
        max_minutes=max_minutes,
        save_every=save_every,
        eval_every=eval_every,
        patience=patience,
        compile=compile,
        recompute=recompute,
        channels_last=channels_last,
        tensorboard=tensorboard,
        profile=profile,
        listener=new_listener(),
        **fields,
    )
    if not speaks():
        raise typer.Exit  # the first of the processes that torchrun or srun started answers for all
    return Answer(run.to_dict(), run_text(run))


def replay_answer(path: Path, device: str) -> Answer:
    """Compute a failure again and hold it against what was."""
    from focaldet.engine.replay import replay

    again = replay(path, device)
    return Answer(again.to_dict(), again.table(), exit_code=0 if again.same else 1)


def speaks() -> bool:
    """Say whether this process is the one, of those that torchrun or srun started, that answers."""
    from focaldet.engine.distributed import find_place

    return find_place().rank == 0


@verb
@reads_data
def evaluate(
    source: Source,
    data: Data,
    changes: DataChanges = None,
    split: Annotated[Literal["val", "train"], typer.Option("--split", help="Which pictures.")] = "val",
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE.json",
            help="Keep the detections: COCO results, or of rotated boxes our json.",
        ),
    ] = None,
    device: Device = "cpu",
    workers: Workers = 0,
    any_size: AnySize = False,
    overwrite: Overwrite = False,
) -> Answer:
    """Run a detector over a dataset's pictures and score it."""
    fields, format = fields_and_format(changes)
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output} is there already; add --overwrite to replace it, or name another file")
    from focaldet.cli.progress import new_listener
    from focaldet.data.pictures import any_size as pictures_of_any_size
    from focaldet.engine.evaluate import evaluate as run_evaluation

    with pictures_of_any_size(any_size):
        scores = run_evaluation(
            source,
            data,
            split=split,
            format=format,
            device=device,
            workers=workers,
            output=output,
            listener=new_listener(),
            **fields,
        )
    return Answer(scores.to_dict(), scores.table())


@verb
def score(
    truth: Annotated[Path, typer.Argument(metavar="TRUTH", help="COCO json, or a folder of DOTA's labels (labelTxt).")],
    detections: Annotated[
        Path, typer.Argument(metavar="DETECTIONS", help="COCO results, a folder of Task 1 files, or a detections json.")
    ],
    class_agnostic: Annotated[bool, typer.Option("--class-agnostic", help="Leave classes out of account.")] = False,
    merge: Annotated[
        float | None,
        typer.Option("--merge", metavar="IOU", help="Merge tiles SCENE__RATE__X___Y by NMS at this IoU, as 0.1."),
    ] = None,
    pictures: Annotated[
        Path | None, typer.Option("--pictures", metavar="FILE.txt", help="Names of the label files that count.")
    ] = None,
) -> Answer:
    """Score files of detections against files of truth, upright boxes or rotated ones."""
    from focaldet.engine.score import score as score_files

    scores = score_files(truth, detections, class_agnostic=class_agnostic, merge=merge, pictures=pictures)
    return Answer(scores.to_dict(), scores.table())


def fields_and_format(words: list[str] | None) -> tuple[dict[str, Any], str | None]:
    """Return the changes of the recipe, and the data's format where `format=` decides it."""
    from focaldet.data.dataset import Format

    fields = parse_changes(words, {"format": Format})
    return fields, fields.pop("format", None)


def plan_text(plan: Plan) -> str:
    """Describe a plan in lines."""
    rates = ", ".join(f"{rate:.3g} at step {step:,}" for step, rate in plan.rates.items())
    lines = [
        *plan.notes,
        f"recipe {plan.recipe}: {plan.parameters:,} parameters, {plan.trained:,} of them trained",
        f"{plan.steps:,} steps of {plan.batch} pictures, {plan.steps_per_epoch:,} steps an epoch of {plan.pictures:,}",
        f"learning rate {rates}",
        f"about {plan.hours:.3g} hours on this machine, by one measured step, validation not counted",
    ]
    return "\n".join(lines)


def run_text(run: Run) -> str:
    """Say what a run reached and where it lies."""
    from focaldet.engine.progress import duration

    lines = [f"{run.steps:,} steps in {duration(run.seconds)} ({duration(run.cpu_seconds)} of CPU time)"]
    if run.scores is not None:
        figures = run.scores.to_dict()
        known = [name for name in ("AP", "AP50", "AP75") if figures[name] is not None]  # None: nothing to be found
        lines.append(", ".join(f"{name} {figures[name]:.3f}" for name in known) + f" ({figures['rule']})")
    return "\n".join([*lines, f"all in {run.folder}"])
