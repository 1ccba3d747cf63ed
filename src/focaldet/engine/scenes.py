"""Detecting in one picture that is too large for a network: tile by tile, then merged.

The scene is decoded once and never copied; tiles are cut, a batch at a time, when the network is ready for them, and
only boxes are kept. So memory does not grow with the number of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt
from PIL import Image

from focaldet.data.cutter import Window
from focaldet.data.pictures import window_pixels
from focaldet.data.tiles import Cut, plan_tiles
from focaldet.engine.progress import Listener, Quiet
from focaldet.errors import FocaldetError
from focaldet.postprocess.merge import MergeRule, merge_tiles, merge_upright_tiles
from focaldet.results.detections import Detections

Picture = npt.NDArray[np.uint8]
Look = Callable[[list[Picture]], list[Detections]]
"""Says what is in each picture (H, W, channels) of a list, in its pixels."""


def predict_scene(
    look: Look,
    scene: Picture | Image.Image,
    cut: Cut,
    rule: MergeRule,
    classes: Sequence[str],
    *,
    batch: int = 1,
    listener: Listener | None = None,
) -> Detections:
    """Detect objects in a scene, rotated or upright as the detector finds them.

    Args:
        look: the detector, for tiles; it scales them as its recipe says, and answers in pixels of the tile.
        scene: (H, W, channels) uint8, or a decoded Pillow picture, whose four bytes a pixel are then all there is.
        cut: how tiles lie; of several rates, those of each are looked at.
        rule: how the tiles' detections become those of the scene.
        classes: the detector's names.
        batch: tiles that are looked at together.
        listener: hears about each batch.

    Returns:
        Detections in pixels of the scene, best first.

    Raises:
        FocaldetError: what the detector answers are not boxes of one kind and these classes.
    """
    if batch < 1:
        raise FocaldetError(f"batch={batch} must be above 0")
    height, width = (scene.height, scene.width) if isinstance(scene, Image.Image) else scene.shape[:2]
    windows: list[Window] = [(x1, y1, x2, y2) for x1, y1, x2, y2 in plan_tiles((height, width), cut).tolist()]
    listener = listener or Quiet()
    listener.start(len(windows), "looking at tiles")
    found: list[Detections] = []
    for some in _batches(windows, batch):
        found += look([cut_tile(scene, window, cut.pad) for window in some])
        listener.advance(len(some))
    listener.finish()
    if not found[0].rotated:
        return merge_upright_tiles(found, windows, (height, width), rule, classes)
    return merge_tiles(found, [window[:2] for window in windows], rule, classes)


def cut_tile(scene: Picture | Image.Image, window: Window, pad: tuple[int, int, int] | None) -> Picture:
    """Return a window (x1, y1, x2, y2) of a scene as (H, W, channels), filled up with a colour.

    Args:
        scene: as in `predict_scene`.
        window: in its pixels; may reach out of it to the right and below.
        pad: what fills the rest; where there are not three channels, its mean. None: the tile ends with the scene.
    """
    part = _shown(scene, window)
    height, width = window[3] - window[1], window[2] - window[0]
    if pad is None or part.shape[:2] == (height, width):
        return part
    colour = pad if part.shape[2] == 3 else sum(pad) // 3
    tile = np.empty((height, width, part.shape[2]), dtype=np.uint8)
    tile[...] = colour
    tile[: part.shape[0], : part.shape[1]] = part
    return tile


def _shown(scene: Picture | Image.Image, window: Window) -> Picture:
    """Return what a window shows of the scene itself."""
    x1, y1, x2, y2 = window
    if not isinstance(scene, Image.Image):
        return scene[y1:y2, x1:x2]
    part = window_pixels(scene, (x1, y1, min(x2, scene.width), min(y2, scene.height)))
    return part[:, :, None] if part.ndim == 2 else part


def _batches(windows: Sequence[Window], batch: int) -> Iterator[list[Window]]:
    """Yield the windows in order, a batch at a time, each of windows of one side."""
    for _, group in groupby(windows, key=lambda window: window[2] - window[0]):
        while some := list(islice(group, batch)):
            yield some
