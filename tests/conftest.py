"""Fixtures that every test may use: where the shared folder is, and how its stored outputs are rebuilt."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("focaldet", deadline=None, derandomize=True, max_examples=100)
hypothesis.settings.load_profile("focaldet")
torch.set_num_threads(1)  # pytest-xdist runs one worker a core


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of specifications, golden outputs and real pictures; tests that need it skip in a user's clone."""
    named = os.environ.get("FOCALDET_SHARED")
    folder = Path(named or Path(__file__).parents[2] / "shared")
    if folder.is_dir():
        return folder
    if named:
        pytest.fail(f"FOCALDET_SHARED names {named}, which is no folder")
    pytest.skip("needs the shared folder of stored outputs; set FOCALDET_SHARED to it")


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """The stored outputs of the original programs."""
    return shared / "golden"
