"""Fixtures of the loss tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest


@pytest.fixture(scope="session")
def units(golden: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The stored outputs of the parts by themselves."""
    with np.load(golden / "coco" / "units.npz") as stored:
        return {name: stored[name] for name in stored.files if name.split(".")[0] in ("focal", "l1")}
