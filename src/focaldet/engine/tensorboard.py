"""The figures of a run for TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from focaldet.errors import FocaldetError

FLUSH_SECONDS = 20
"""What a run that is killed may lose."""


class Board:
    """Writes figures into a folder that TensorBoard reads.

    Args:
        folder: where.

    Raises:
        FocaldetError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FocaldetError(
                "--tensorboard needs TensorBoard, which is not installed: pip install 'focaldet[log]'; "
                "metrics.csv has the same figures without it"
            ) from error
        self._folder = folder
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def add(self, step: int, figures: Mapping[str, float]) -> None:
        """Write figures of a step; losses and rates under "train", scores under "val"."""
        if self._writer is None:
            self._writer = self._make(str(self._folder), flush_secs=FLUSH_SECONDS)
        for name, value in figures.items():
            part = "val" if name.startswith(("AP", "AR", "val_")) else "train"
            self._writer.add_scalar(f"{part}/{name}", value, step)

    def close(self) -> None:
        """Write out what waits."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
