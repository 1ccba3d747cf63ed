"""Cut one picture into tile files: decoded once, written tile by tile.

This file does without torch, so that a process which cuts (`python -m focaldet.data.cutter`) holds little
beside the picture, of which Pillow keeps four bytes a pixel. Such a process takes jobs from standard input, a json a
line, and answers each with a line on standard output.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from focaldet.data.pictures import any_size, read_image, window_pixels
from focaldet.errors import FocaldetError
from focaldet.results.files import write_beside

TileFormat = Literal["png", "jpg"]
Picture = npt.NDArray[np.uint8]
Window = tuple[int, int, int, int]

JPEG_QUALITY = 95
PNG_FILTER = "IMWRITE_PNG_FILTER"
"""OpenCV's name of what is stored in place of pixels."""


@dataclass(frozen=True)
class Job:
    """One picture's tiles.

    Attributes:
        picture: its file.
        size: (height, width) that it should have.
        windows: (x1, y1, x2, y2) of each tile in its pixels.
        tiles: the file of each tile.
        labels: the label file of each tile and what goes into it; empty where there are no labels.
        pad: RGB colour beyond the picture; not needed where windows end with it.
        format: of the tiles.
        any_size: take a picture of more than two gigapixels.
    """

    picture: str
    size: tuple[int, int]
    windows: Sequence[Window]
    tiles: Sequence[str]
    labels: Sequence[tuple[str, str]] = ()
    pad: tuple[int, int, int] | None = None
    format: TileFormat = "png"
    any_size: bool = False


def cut_picture(job: Job) -> None:
    """Write all tiles and label files of one picture, or none of them.

    Raises:
        FocaldetError: the picture cannot be read, has another size, or a file cannot be written.
    """
    with any_size(job.any_size):
        scene = read_image(job.picture, None)
    if scene.size != (job.size[1], job.size[0]):
        raise FocaldetError(
            f"picture {job.picture} has {scene.width} x {scene.height} pixels, but its labels say {job.size[1]} x "
            f"{job.size[0]}; correct them"
        )
    encode = encode_png if job.format == "png" else encode_jpeg
    written: list[Path] = []
    try:
        for window, tile in zip(job.windows, job.tiles, strict=True):
            with write_beside(Path(tile), sync=False) as file:
                file.write(encode(cut_out(scene, window, job.pad)))
            written.append(Path(tile))
        for name, text in job.labels:
            with write_beside(Path(name), "w", sync=False) as file:
                file.write(text)
            written.append(Path(name))
    except BaseException:
        for path in written:
            path.unlink(missing_ok=True)
        raise


def cut_out(scene: Image.Image, window: Window, pad: tuple[int, int, int] | None = None) -> Picture:
    """Return a window (x1, y1, x2, y2) of a grey or RGB picture as (H, W) or (H, W, 3), filled up with a colour.

    Padding in colour makes RGB of grey.
    """
    x1, y1, x2, y2 = window
    part = window_pixels(scene, (x1, y1, min(x2, scene.width), min(y2, scene.height)))
    height, width = y2 - y1, x2 - x1
    if pad is None or part.shape[:2] == (height, width):
        return part
    tile = np.full((height, width, 3), pad, dtype=np.uint8)
    tile[: part.shape[0], : part.shape[1]] = part if part.ndim == 3 else part[:, :, None]
    return tile


def encode_png(tile: Picture) -> bytes:
    """Return an (H, W) or (H, W, 3) picture as a PNG file: by OpenCV where it is installed, half the time of Pillow."""
    opencv = _opencv()
    if opencv is not None:
        # of each row the difference from the one above: faster than OpenCV's own choice, the one to the left, and of
        # pictures from the air a twentieth smaller; releases that know no choice take their own
        above = [opencv.IMWRITE_PNG_FILTER, opencv.IMWRITE_PNG_FILTER_UP] if hasattr(opencv, PNG_FILTER) else []
        pixels = tile if tile.ndim == 2 else opencv.cvtColor(tile, opencv.COLOR_RGB2BGR)  # numpy's [::-1]: 4 times that
        written: bytes = opencv.imencode(".png", pixels, above)[1].tobytes()
        return written
    file = io.BytesIO()  # runs only, as OpenCV does: a search for other repetitions takes longer than it is worth
    Image.fromarray(tile).save(file, "png", compress_level=1, compress_type=Image.RLE)
    return file.getvalue()


@cache
def _opencv() -> ModuleType | None:
    try:
        import cv2
    except ImportError:
        return None
    return cv2


def encode_jpeg(tile: Picture) -> bytes:
    """Return a picture as a JPEG file of quality 95, with the colours at full resolution."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "jpeg", quality=JPEG_QUALITY, subsampling=0)
    return file.getvalue()


def cut_pictures(jobs: Iterable[Job], workers: int) -> Iterator[tuple[Job, str | None]]:
    """Do jobs and yield each as it is done, with the sentence of what went wrong, or None.

    Args:
        jobs: taken as they are needed.
        workers: processes, each with a picture at a time; 0 does all in this one.
    """
    if workers == 0:
        for job in jobs:
            yield job, _try(job)
        return
    waiting, under_way = iter(jobs), dict[Future[str | None], Job]()
    with _Processes() as processes, ThreadPoolExecutor(workers) as threads:
        try:
            while True:
                for job in islice(waiting, workers + 1 - len(under_way)):
                    under_way[threads.submit(processes.cut, job)] = job
                if not under_way:
                    return
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    yield under_way.pop(future), future.result()
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            processes.kill()


def _try(job: Job) -> str | None:
    try:
        cut_picture(job)
    except FocaldetError as error:
        return str(error)
    return None


class _Processes:
    """One process that cuts for each thread which asks; they end with the block."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[subprocess.Popen[str]] = []

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for process in self._all:
            process.communicate()  # closes its pipes

    def kill(self) -> None:
        """Stop all at once, in the middle of a picture if need be."""
        for process in self._all:
            process.kill()

    def cut(self, job: Job) -> str | None:
        """Let this thread's process do a job; returns the sentence of what went wrong, or None."""
        process = getattr(self._own, "process", None) or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(vars(job)) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):  # it ended, or was ended
            answer = ""
        if answer:
            sentence: str | None = json.loads(answer)
            return sentence
        self._own.process = None
        return f"the process that cut {job.picture} ended with code {process.wait()}; is there memory enough?"

    def _start(self) -> subprocess.Popen[str]:
        places = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        self._own.process = subprocess.Popen(
            [sys.executable, "-m", "focaldet.data.cutter"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places))},
            start_new_session=True,  # Ctrl-C is for the process that knows what to say
        )
        self._all.append(self._own.process)
        started: subprocess.Popen[str] = self._own.process
        return started


def main() -> None:
    """Do the jobs of standard input until it ends."""
    for line in sys.stdin:
        print(json.dumps(_try(Job(**json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
