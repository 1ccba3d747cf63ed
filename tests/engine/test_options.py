"""How a run works: what cannot be asked for."""

from __future__ import annotations

import pytest

from focaldet.engine.options import Options
from focaldet.errors import UsageError


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", -1), ("save_every", -0.5), ("eval_every", 0), ("patience", 0), ("max_minutes", 0.0)],
)
def test_what_cannot_be(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=rf"{name}={value} must be "):
        Options(**{name: value})  # type: ignore[arg-type]
    assert getattr(Options(), name) in (None, 0, 1)
