"""Which files a data set may name: those in its own folders, unless the user allows others.

Label files come from the net as pictures do. One that names `../../photos/private.jpg` would have it read, drawn into a
report, copied by `convert`. docs/decisions/paths-of-a-data-set.md tells what counts as a data set's own folders.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from focaldet.errors import FocaldetError

VARIABLE = "FOCALDET_ALLOW_OUTSIDE"
"""Of the environment, so that the processes of a run, which open the data each for itself, are told as well."""


@contextlib.contextmanager
def outside_allowed(wanted: bool = True) -> Iterator[None]:
    """Let data sets name files anywhere inside the block, in processes started there too; only if that is wanted.

    >>> with outside_allowed():
    ...     refuse_outside(["/somewhere/else.jpg"], Path("set"), [Path("set")], lambda k: f"line {k + 1} of train.txt")
    """
    before = os.environ.get(VARIABLE)
    if wanted:
        os.environ[VARIABLE] = "1"
    try:
        yield
    finally:
        if wanted:
            _restore(before)


def _restore(before: str | None) -> None:
    if before is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = before


def is_inside(path: Path, roots: Iterable[Path]) -> bool:
    """Tell whether a path lies in one of some folders, by its words alone.

    Links are not followed: a link in the folder was put there by its owner, as `convert --link` does. The root of the
    file system holds everything, and so counts as no folder.

    >>> is_inside(Path("set/labels/../images/a.jpg"), [Path("set")]), is_inside(Path("set/../a.jpg"), [Path("set")])
    (True, False)
    """
    whole = os.path.abspath(path)
    folders = (os.path.abspath(root) for root in roots)
    return any(whole.startswith(folder + os.sep) for folder in folders if folder != os.path.dirname(folder))


def refuse_outside(names: Sequence[str], folder: Path, roots: Sequence[Path], place: Callable[[int], str]) -> None:
    """Refuse names that leave the data set's folders, unless that is allowed.

    Args:
        names: as written; relative ones start at `folder`. 100,000 take 0.1 s: most cannot leave, as their words show.
        folder: where names start.
        roots: the data set's own folders.
        place: called with a name's number, says where it stands: file and line, or file and record.

    Raises:
        FocaldetError: the first name that leaves, where it stands, and how to allow it.
    """
    if os.environ.get(VARIABLE, "") not in ("", "0"):
        return
    for number, name in enumerate(names):
        if _may_leave(name) and not is_inside(folder / name, roots):
            raise FocaldetError(
                f"{place(number)} names {name}, which lies outside of the data set's folder {roots[0]}; "
                "if you trust this file, add --allow-outside"
            )


def _may_leave(name: str) -> bool:
    return ".." in name or ":" in name or os.path.isabs(name)  # a colon: Windows' drives
