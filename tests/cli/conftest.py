"""The command line, called in this process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from focaldet.cli.main import main


class Result(NamedTuple):
    exit_code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run `focaldet` with some words; answers exit code, standard output and standard error."""

    def run(*words: object) -> Result:
        exit_code = main([str(word) for word in words])
        return Result(exit_code, *capsys.readouterr())

    return run
