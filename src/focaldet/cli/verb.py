"""What all verbs share: `--json` and `--debug`, one answer, and its way to standard output."""

from __future__ import annotations

import contextlib
import functools
import inspect
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer


@dataclass(frozen=True)
class Answer:
    """What a verb has to say.

    Attributes:
        document: for `--json`: lists, dicts, strings, numbers.
        text: for people: text or a rich renderable.
        exit_code: 1 where a part failed, such as one of many pictures.
    """

    document: Any
    text: Any
    exit_code: int = 0


class Interrupted(Exception):
    """Ctrl-C while a verb was at work; apart from KeyboardInterrupt, on which typer would print lines of its own."""


AsJson = Annotated[bool, typer.Option("--json", help="Answer with one JSON document on standard output.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AllowOutside = Annotated[
    bool, typer.Option("--allow-outside", help="Take pictures that lists and jsons name outside of the data's folder.")
]
SHARED = {"as_json": AsJson, "debug": Debug}


def verb(function: Callable[..., Answer]) -> Callable[..., int]:
    """Make a command of a function that returns an Answer: adds `--json` and `--debug`, prints the answer.

    While the function runs, whatever it prints goes to standard error, so that standard output holds the answer alone.
    The command returns the exit code. An error leaves it as an exception; `focaldet.cli.main` tells it to the user.
    """

    @functools.wraps(function)
    def run(*, as_json: bool, debug: bool, **arguments: Any) -> int:
        try:
            with contextlib.redirect_stdout(sys.stderr):
                answer = function(**arguments)
        except KeyboardInterrupt:
            raise Interrupted from None
        print_answer(answer, as_json=as_json)
        return answer.exit_code

    signature = inspect.signature(function, eval_str=True)
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=annotation)
        for name, annotation in SHARED.items()
    ]
    parameters = [*signature.parameters.values(), *shared]
    run.__signature__ = inspect.Signature(parameters, return_annotation=int)  # type: ignore[attr-defined]
    run.__annotations__ = {item.name: item.annotation for item in parameters}
    return run


def reads_data(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """Add `--allow-outside` to a function of `verb` that opens data sets, and let it hold while the function runs."""

    @functools.wraps(function)
    def run(*, allow_outside: bool, **arguments: Any) -> Answer:
        from focaldet.data.paths import outside_allowed

        with outside_allowed(allow_outside):
            return function(**arguments)

    signature = inspect.signature(function, eval_str=True)
    flag = inspect.Parameter("allow_outside", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=AllowOutside)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), flag])  # type: ignore[attr-defined]
    return run


def print_answer(answer: Answer, *, as_json: bool) -> None:
    """Print an answer on standard output: as JSON, or for people."""
    if as_json:
        # NaN is no JSON: a figure that does not exist has to be None in the document
        print(json.dumps(answer.document, indent=2, ensure_ascii=False, allow_nan=False))
    elif isinstance(answer.text, str):
        print(answer.text)
    else:
        from rich.console import Console

        Console(width=None if sys.stdout.isatty() else 160).print(answer.text)
