"""Exit codes, and one sentence for each error."""

from __future__ import annotations

import errno
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from focaldet.cli import main as main_module
from focaldet.cli.main import explain
from focaldet.errors import FocaldetError, UsageError

VERBS = ["recipes", "train", "eval", "score", "predict", "convert", "tile", "submit", "bench", "doctor", "demo"]


def test_without_a_verb_it_prints_the_verbs(command: Any) -> None:
    exit_code, out, err = command()
    assert exit_code == 0
    assert all(f"  {verb} " in out for verb in VERBS)
    assert err == ""


def test_verbs_are_those_of_this_release() -> None:
    assert (
        list(main_module.app.registered_commands)
        and [item.name for item in main_module.app.registered_commands] == VERBS
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_helps(command: Any, verb: str) -> None:
    exit_code, out, _ = command(verb, "--help")
    assert exit_code == 0
    assert "--json" in out
    assert "--debug" in out


def test_version(command: Any) -> None:
    exit_code, out, _ = command("--version")
    assert exit_code == 0
    assert out.strip()[0].isdigit()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "there is no 'trian' here (did you mean 'train'?); `focaldet --help` lists what there is"),
        (["recipes", "--jsn"], "--jsn"),
        (["train"], "train needs RECIPE and DATA, such as `focaldet train retinanet-small DATA --output RUN`"),
        (["eval", "retinanet-small"], "Missing argument 'DATA'"),
        (["train", "retinanet-smal", "data"], "there is no recipe 'retinanet-smal' (did you mean 'retinanet-small'?)"),
        (["train", "retinanet-small", "data", "epoch=3"], "'epoch' is no field of a recipe (did you mean 'epochs'?)"),
        (["train", "retinanet-small", "data", "epochs=many"], "epochs='many' should be of type int"),
        (["train", "retinanet-small", "data"], "train needs --output RUN"),
        (["train", "retinanet-small", "data", "-o", "x", "--resume", "epochs=3"], "leave out epochs=3"),
        (["train", "retinanet-small", "data", "-o", "x", "--device", "gpu"], "device gpu does not exist"),
        (
            ["eval", "retinanet-small", "data", "--split", "test"],
            "'test' is not one of 'val', 'train'",
        ),
        (["predict", "x", "y.jpg", "-o", "z", "--format", "cocoa"], "(did you mean 'coco'?)"),
        (["recipes", "shwo"], "did you mean 'show'?"),
        (["recipes", "diff", "retinanet-small"], "it is written: focaldet recipes diff A B"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(command: Any, words: list[str], sentence: str) -> None:
    exit_code, out, err = command(*words)
    assert exit_code == 2
    assert out == ""
    assert err.startswith("focaldet: error: ")
    assert sentence in err
    assert err.count("\n") == 1


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def raise_error(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("focaldet.recipes.get_recipe", raise_error)


@pytest.mark.parametrize(
    ("error", "exit_code", "sentence"),
    [
        (FocaldetError("a.jpg is broken"), 1, "focaldet: error: a.jpg is broken"),
        (UsageError("no such thing"), 2, "focaldet: error: no such thing"),
        (OSError(errno.ENOSPC, "No space left on device", "x.pt"), 1, "focaldet: error: No space left on device: x.pt"),
        (KeyboardInterrupt(), 1, "focaldet: stopped by Ctrl-C; what was finished is kept"),
        (KeyError("x"), 1, "focaldet: error: unexpected KeyError: 'x'; this is a bug of ours, --debug shows where"),
    ],
)
def test_errors_of_the_work_are_one_line(
    command: Any, monkeypatch: pytest.MonkeyPatch, error: BaseException, exit_code: int, sentence: str
) -> None:
    fail(monkeypatch, error)
    found = command("recipes", "show", "retinanet-small")
    assert found.exit_code == exit_code
    assert found.err.startswith(sentence)
    assert found.err.count("\n") == 1
    assert found.out == ""


def test_debug_shows_the_traceback(command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, FocaldetError("a.jpg is broken"))
    found = command("recipes", "show", "retinanet-small", "--debug")
    assert "Traceback" in found.err
    assert found.err.endswith("focaldet: error: a.jpg is broken\n")


def test_an_error_without_a_file_name() -> None:
    assert explain(OSError(errno.ENOSPC, "No space left on device")) == ("No space left on device", 1)


def test_a_reader_that_stops_reading_is_no_error() -> None:
    code = "from focaldet.cli.main import main; raise SystemExit(main(['recipes', 'list', '--json']))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert b"Traceback" not in process.stderr.read()
    process.stderr.close()
    assert process.wait() in (0, 1)


def test_python_m_focaldet() -> None:
    run: Callable[..., Any] = subprocess.run
    done = run([sys.executable, "-m", "focaldet", "recipes", "nothing"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("focaldet: error: ")
