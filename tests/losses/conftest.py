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


@pytest.fixture(scope="session", params=["rtr", "r3d", "rtr_2019", "r3d_2020"])
def tf_units(request: pytest.FixtureRequest, golden: Path) -> dict[str, npt.NDArray[np.generic]]:
    """The loss functions of one of the original rotated programs, and under "program" which one."""
    with np.load(golden / "tf" / "unit" / f"{request.param}.npz") as stored:
        losses = {name: stored[name] for name in stored.files if "loss" in name}
    return losses | {"program": np.array(request.param)}
