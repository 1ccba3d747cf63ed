"""The one exception that is meant for a user's eyes, and the did-you-mean that goes with it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FocaldetError(ValueError):
    """What went wrong, where, and what to do about it, in one sentence for the user.

    The command line prints the sentence without a traceback and ends with exit code 1; Python users catch it as the
    `ValueError` that it is.
    """


class UsageError(FocaldetError):
    """A wrong name, field or flag: the command line ends with exit code 2."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known word nearest to `word`, or an empty string where none is near.

    >>> did_you_mean("epoch", ["epochs", "batch"])
    " (did you mean 'epochs'?)"
    >>> did_you_mean("zzz", ["epochs", "batch"])
    ''
    """
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {near[0]!r}?)" if near else ""
