"""The command `focaldet`: its verbs, and how errors reach the user."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from focaldet.cli import converting, machine, predicting, recipes, submitting, tiling, training
from focaldet.cli.memory import keep_freed_memory
from focaldet.cli.verb import Interrupted
from focaldet.errors import FocaldetError, UsageError, did_you_mean


class Verbs(TyperGroup):
    """Commands in the order in which they were added; a wrong name gets a did-you-mean."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the first argument names."""
        if args[0] not in self.commands and not args[0].startswith("-"):
            hint = did_you_mean(args[0], self.commands)
            raise UsageError(f"there is no {args[0]!r} here{hint}; `{ctx.command_path} --help` lists what there is")
        return super().resolve_command(ctx, args)


def new_app(**options: Any) -> typer.Typer:
    """Return a group of commands; without rich in the help, which would cost 0.1 s of the 0.3 s that help may take."""
    return typer.Typer(
        cls=Verbs, rich_markup_mode=None, add_completion=False, pretty_exceptions_enable=False, **options
    )


app = new_app(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})


@app.callback()
def start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Dense detection with focal loss: train, score and predict with the published recipes and your own.

    focaldet VERB [what] [--flags] [field=value ...]: a flag says how to work, field=value changes the recipe.
    """
    if version:
        from importlib.metadata import version as version_of

        print(version_of("focaldet"))
    elif context.invoked_subcommand is None:
        print(context.get_help())


app.command("recipes")(recipes.recipes)
app.command("train")(training.train)
app.command("eval")(training.evaluate)
app.command("score")(training.score)
app.command("predict")(predicting.predict)
app.command("convert")(converting.convert)
app.command("tile")(tiling.tile)
app.command("submit")(submitting.submit)
app.command("bench")(machine.bench)
app.command("doctor")(machine.doctor)
app.command("demo")(machine.demo)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage. Errors are told in one sentence on standard error.
    """
    if arguments is None:
        keep_freed_memory()  # the process is ours
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return app(words, prog_name="focaldet", standalone_mode=False) or 0
    except BrokenPipeError:  # the reader of our output has seen enough, as in `focaldet recipes | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Interrupted, KeyboardInterrupt, typer.Abort):
        print("focaldet: stopped by Ctrl-C; what was finished is kept", file=sys.stderr)
        return 1
    except Exception as error:
        if "--debug" in words:
            traceback.print_exc()
        sentence, exit_code = explain(error)
        print(f"focaldet: error: {sentence}", file=sys.stderr)
        return exit_code


def explain(error: Exception) -> tuple[str, int]:
    """Return the sentence that tells a user of an error, and the exit code."""
    if isinstance(error, FocaldetError):
        return str(error), 2 if isinstance(error, UsageError) else 1
    if hasattr(error, "format_message"):  # of typer's parser, whose classes moved between its releases
        context = getattr(error, "ctx", None)
        message = " ".join(error.format_message().split()).rstrip(".")
        return f"{message}; see `{context.command_path if context else 'focaldet'} --help`", 2
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror, 1
    kind = type(error).__name__
    return f"unexpected {kind}: {error}; this is a bug of ours, --debug shows where it happened", 1
