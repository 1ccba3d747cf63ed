"""Where big pictures are cut into tiles, and which objects each tile gets: arithmetic, without a file.

The original rotated program's cut and mmrotate's are two settings of one rule (`CUTS`); both put windows at the same
places. Sections 3.1, 3.4 and 8.1 of the specification of the DOTA rows. Windows are in pixels of the scene, which is
never scaled: a rate of 0.5 cuts windows of twice the side, and whoever reads the tile scales it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from focaldet.errors import FocaldetError
from focaldet.geometry.quads import quad_areas

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MANIFEST = "tiles.json"
"""In a folder of tiles, the file that says where each one lies and how it was cut."""
LABEL = "{:.12g} " * 8 + "{} {}\n"
"""A line of DOTA's labels: corners, class, whether it is difficult."""
SAME_SHARE = 0.01
"""Windows whose shares of picture differ by less than this count as equal (mmrotate)."""


@dataclass(frozen=True)
class Cut:
    """How scenes are cut.

    Attributes:
        tile: side of a tile in pixels, at rate 1.
        overlap: pixels that neighbours share, at rate 1; the last of a row or column is moved back inside and shares
            more.
        rates: a window has tile / rate pixels of the scene, rounded down; several give tiles of several scales.
        owner: what makes an object a tile's: "centre", the mean of its corners lies in the window, its border included
            (original program); or "share", at least `min_share` of its area does (mmrotate).
        min_share: for "share".
        min_picture: of the windows, those are left out of which no more than this share shows the picture, unless all
            show so little: then those that show most stay.
        pad: RGB colour that fills what a window shows beyond the picture; None: the tile ends with the picture.
        empty: whether tiles without objects are written.
    """

    tile: int = 1024
    overlap: int = 200
    rates: tuple[float, ...] = (1.0,)
    owner: Literal["centre", "share"] = "share"
    min_share: float = 0.7
    min_picture: float = 0.6
    pad: tuple[int, int, int] | None = (124, 116, 104)
    empty: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.overlap < self.tile:
            raise FocaldetError(
                f"overlap={self.overlap} must lie between 0 and tile={self.tile}, which it must not reach"
            )
        if (
            not self.rates
            or len(set(self.rates)) < len(self.rates)
            or not all(0 < rate < math.inf for rate in self.rates)
        ):
            raise FocaldetError(f"rates={self.rates} must be different numbers above 0")
        if any(int(self.tile / rate) <= int(self.overlap / rate) for rate in self.rates):
            raise FocaldetError(f"rates={self.rates} are too high for tile={self.tile}: windows would have no pixels")
        for name in ("min_share", "min_picture"):
            if not 0 <= getattr(self, name) <= 1:
                raise FocaldetError(f"{name}={getattr(self, name)} must lie between 0 and 1")
        if self.pad is not None and (len(self.pad) != 3 or not all(0 <= value <= 255 for value in self.pad)):
            raise FocaldetError(f"pad={self.pad} must be a colour of three numbers from 0 to 255, or None")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as json knows them."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """(side, overlap) in pixels of the scene, one pair a rate."""
        return tuple((int(self.tile / rate), int(self.overlap / rate)) for rate in self.rates)


CUTS: dict[str, Cut] = {
    "mmrotate": Cut(),
    "mmrotate-ms": Cut(overlap=500, rates=(0.5, 1.0, 1.5)),
    "original": Cut(600, 150, owner="centre", min_picture=0.0, pad=None, empty=False),
    "original-test": Cut(600, 150, owner="centre", min_picture=0.0, pad=(0, 0, 0)),
}
"""mmrotate's at one rate and at several, what the original program trains on, and what it detects in."""


def plan_tiles(size: tuple[int, int], cut: Cut, *, repeated: bool = False) -> Ints:
    """Return the windows of a scene as (T, 4) x1, y1, x2, y2 in its pixels: by rate, then row by row.

    Windows cover the scene. Those of a rate have one size; in a scene that is smaller they reach out of it to the right
    and below, where `cut.pad` says what becomes of that.

    Args:
        size: (height, width) of the scene.
        cut: the rule.
        repeated: whether windows that the original program visits several times are listed as often: its loop comes to
            the last ones again, moved back to where it was.

    >>> plan_tiles((700, 1100), Cut(600, 150, min_picture=0.0))[:, :2].tolist()
    [[0, 0], [450, 0], [500, 0], [0, 100], [450, 100], [500, 100]]
    """
    height, width = size
    parts = []
    for side, overlap in cut.windows:
        rows, columns = (_starts(length, side, side - overlap, repeated) for length in (height, width))
        y, x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
        parts.append(np.stack([x, y, x + side, y + side], axis=1))
    windows = np.concatenate(parts)
    inside = np.minimum(windows, [width, height, width, height])
    shown = _areas(inside) / _areas(windows)
    kept = shown > cut.min_picture
    if not kept.any():
        kept = shown > shown.max() - SAME_SHARE
    return windows[kept]


def _starts(length: int, side: int, step: int, repeated: bool) -> Ints:
    """Return where windows of a side begin along a length."""
    starts = np.minimum(np.arange(0, length, step), max(length - side, 0))
    return starts if repeated else np.unique(starts)


def _areas(windows: Ints) -> Floats:
    return (windows[:, 2] - windows[:, 0]).astype(np.float64) * (windows[:, 3] - windows[:, 1])


def objects_of_tiles(polygons: Floats, windows: Ints, size: tuple[int, int], cut: Cut) -> Iterator[Ints]:
    """Yield the places of the objects that each of the (T, 4) windows gets, rising.

    Args:
        polygons: (N, 4, 2) corners in pixels of the scene. A tile gets an object whole or not at all.
        windows: as `plan_tiles` gives them.
        size: (height, width) of the scene; a centre has to lie in it, a share may lie beyond.
        cut: `owner` and `min_share`.
    """
    if cut.owner == "centre":
        points = polygons.mean(axis=1)
        for window in np.minimum(windows, [*size[::-1]] * 2):
            yield np.flatnonzero(((points >= window[:2]) & (points <= window[2:])).all(axis=1))
        return
    low, high, areas = polygons.min(axis=1), polygons.max(axis=1), quad_areas(polygons)
    for window in windows:
        near = np.flatnonzero(((low < window[2:]) & (high > window[:2])).all(axis=1))
        inside = areas_inside(polygons[near], window)
        yield near[(inside > 0) & (inside >= cut.min_share * areas[near])]


def areas_inside(polygons: Floats, window: Ints) -> Floats:
    """Return which area (N,) of polygons (N, 4, 2) lies in a window x1, y1, x2, y2.

    Exact, and for dented polygons too: the area is the integral, along the border, of y clamped to the window over the
    change of x clamped to the window. One whose sides cross has a difference of areas.

    >>> square = np.array([[[0.0, 0], [10, 0], [10, 10], [0, 10]]])
    >>> areas_inside(square, np.array([3, -5, 20, 5])).tolist()
    [35.0]
    """
    x1, y1, x2, y2 = window
    x, y = polygons[..., 0], polygons[..., 1] - y1  # so that products lose no digits far from the origin
    next_x, next_y = np.roll(x, -1, axis=1), np.roll(y, -1, axis=1)
    from_x, to_x = x.clip(x1, x2), next_x.clip(x1, x2)
    run = next_x - x
    slope = (next_y - y) / np.where(run == 0, 1.0, run)
    from_y, to_y = y + (from_x - x) * slope, y + (to_x - x) * slope
    from_in, to_in = from_y.clip(0, y2 - y1), to_y.clip(0, y2 - y1)
    rise = to_y - from_y
    part = (to_in - from_in) / np.where(rise == 0, 1.0, rise)
    mean = from_in + to_in + part * ((from_y + to_y) - (from_in + to_in))
    areas: Floats = np.abs(((to_x - from_x) * mean).sum(axis=1)) / 2
    return areas


def tile_name(scene: str, window: Sequence[int]) -> str:
    """Return the name of a window x1, y1, x2, y2, by which `results.dota.place_of_tile` finds its place again.

    >>> tile_name("P0003", (0, 824, 1024, 1848))
    'P0003__1024__0___824'
    """
    x1, y1, x2, _ = window
    return f"{scene}__{x2 - x1}__{x1}___{y1}"


def label_text(
    polygons: Floats, names: Sequence[str], difficult: Sequence[bool], corner: tuple[int, int], scene: str | None = None
) -> str:
    """Return a tile's label file in DOTA's form, with coordinates of the tile, to a ten-thousandth of a pixel.

    Args:
        polygons: (N, 4, 2) in pixels of the scene.
        names: N classes.
        difficult: N flags.
        corner: (x, y) of the tile's upper left corner.
        scene: for programs that drop two lines unseen: puts DOTA's two header lines above, with the scene as source.

    >>> print(label_text(np.array([[[100.5, 20], [110, 20], [110, 30], [100.5, 30]]]), ["ship"], [False], (100, 0)))
    0.5 20 10 20 10 30 0.5 30 ship 0
    <BLANKLINE>
    """
    moved = (polygons - np.array(corner)).reshape(-1, 8).round(4) + 0.0  # no -0.0
    lines = [] if scene is None else [f"imagesource:{scene}\ngsd:null\n"]
    for numbers, name, flag in zip(moved.tolist(), names, difficult, strict=True):
        lines.append(LABEL.format(*numbers, name, int(flag)))
    return "".join(lines)
