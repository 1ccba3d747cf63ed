"""Where tiles lie and which objects they get: stored windows of the original program, mmrotate's rule, properties."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldet.data.tiles import CUTS, Cut, areas_inside, label_text, objects_of_tiles, plan_tiles, tile_name
from focaldet.errors import FocaldetError
from focaldet.geometry.quads import cross_themselves, quad_areas
from focaldet.results.dota import place_of_tile


@pytest.mark.golden
@pytest.mark.parametrize("case", ["big", "exact", "small"])
def test_windows_and_objects_are_the_original_programs(golden: Path, case: str) -> None:
    with np.load(golden / "tf" / "unit" / "rtr.npz") as file:
        stored = {name.split(f".{case}.")[1]: file[name] for name in file.files if f"clip_image.{case}." in name}
    height, width = stored["in.size"].tolist()
    polygons = stored["in.boxes"][:, :8].reshape(-1, 4, 2).astype(np.float64)
    windows = plan_tiles((height, width), CUTS["original"], repeated=True)
    owned = list(objects_of_tiles(polygons, windows, (height, width), CUTS["original"]))
    filled = [k for k in range(len(windows)) if len(owned[k])]  # only these are written
    assert windows[filled][:, 1::-1].tolist() == stored["out.top_left_row_col"].tolist()
    inside = np.minimum(windows[filled], [width, height] * 2)
    assert (inside[:, 2:] - inside[:, :2])[:, ::-1].tolist() == stored["out.size"].tolist()
    assert [len(owned[k]) for k in filled] == stored["out.count"].tolist()
    moved = [polygons[owned[k]] - windows[k, :2] for k in filled]
    np.testing.assert_array_equal(np.concatenate(moved).reshape(-1, 8), stored["out.boxes"][:, :8])
    once = plan_tiles((height, width), CUTS["original"])
    assert sorted(map(tuple, once.tolist())) == sorted(set(map(tuple, windows.tolist())))


def mmrotate_windows(size: tuple[int, int], tile: int, gap: int, rates: tuple[float, ...]) -> list[list[int]]:
    """Windows by the words of mmrotate's own tool: as many as are needed, the last one moved back."""
    windows, shares = [], []
    for rate in rates:
        side, step = int(tile / rate), int(tile / rate) - int(gap / rate)
        starts = []
        for length in size[::-1]:
            count = 1 if length <= side else int(np.ceil((length - side) / step + 1))
            places = [step * k for k in range(count)]
            if count > 1 and places[-1] + side > length:
                places[-1] = length - side
            starts.append(places)
        for x in starts[0]:
            for y in starts[1]:
                windows.append([x, y, x + side, y + side])
                shares.append(min(side, size[1] - x) * min(side, size[0] - y) / side**2)
    if max(shares) <= 0.6:
        return [window for window, share in zip(windows, shares, strict=True) if share > max(shares) - 0.01]
    return [window for window, share in zip(windows, shares, strict=True) if share > 0.6]


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([(1.0,), (0.5, 1.0, 1.5)]))
def test_windows_are_mmrotates(height: int, width: int, rates: tuple[float, ...]) -> None:
    ours = plan_tiles((height, width), Cut(1024, 200, rates=rates))
    assert sorted(ours.tolist()) == sorted(mmrotate_windows((height, width), 1024, 200, rates))


cuts = st.builds(
    lambda tile, overlap, rates, owner: Cut(tile, min(overlap, tile // 2), rates, owner=owner),
    st.integers(16, 60),
    st.integers(0, 30),
    st.sampled_from([(1.0,), (0.5, 1.0, 1.5), (0.25, 2.0)]),
    st.sampled_from(["centre", "share"]),
)


@given(st.integers(1, 200), st.integers(1, 200), cuts)
def test_every_pixel_lies_in_a_tile(height: int, width: int, cut: Cut) -> None:
    seen = np.zeros((height, width), dtype=bool)
    windows = plan_tiles((height, width), cut)
    for x1, y1, x2, y2 in windows.tolist():
        assert x1 < width and y1 < height
        seen[y1:y2, x1:x2] = True
    assert seen.all()
    assert len(np.unique(windows, axis=0)) == len(windows)


def some_polygons(seed: int, count: int, low: float, high: float, size: float) -> Any:
    rng = np.random.default_rng(seed)
    polygons = rng.uniform(low, high, (count, 1, 2)) + rng.uniform(-size, size, (count, 4, 2))
    return polygons[~cross_themselves(polygons) & (quad_areas(polygons) > 0)]


@given(st.integers(0, 10**6), st.integers(20, 200), st.integers(20, 200), cuts)
def test_no_object_is_lost_uncounted(seed: int, height: int, width: int, cut: Cut) -> None:
    """By its centre each object inside the scene has a tile; by its share each that a window shows enough of."""
    polygons = some_polygons(seed, 40, 0, 200, 20)
    windows = plan_tiles((height, width), cut)
    owned = np.zeros(len(polygons), dtype=bool)
    for window, objects in zip(windows, objects_of_tiles(polygons, windows, (height, width), cut), strict=True):
        owned[objects] = True
        share = areas_inside(polygons, window) / quad_areas(polygons)
        if cut.owner == "share":
            # a hair apart from the threshold, where the order of operations decides
            assert set(np.flatnonzero(share > 0.7 + 1e-9)) <= set(objects) <= set(np.flatnonzero(share > 0.7 - 1e-9))
    if cut.owner == "centre":
        centres = polygons.mean(axis=1)
        inside = ((centres >= 0) & (centres <= [width, height])).all(axis=1)
        assert (owned == inside).all()


@given(st.integers(0, 10**6))
def test_areas_inside_add_up_and_equal_clipping(seed: int) -> None:
    polygons = some_polygons(seed, 20, 0, 100, 60)
    grid = [np.array([x, y, x + 75, y + 110]) for x in (-100, -25, 50, 125) for y in (-100, 10, 120)]
    parts = np.stack([areas_inside(polygons, window) for window in grid])
    np.testing.assert_allclose(parts.sum(axis=0), quad_areas(polygons), rtol=1e-9, atol=1e-9)
    for polygon, area in zip(polygons, parts[4], strict=True):
        assert area == pytest.approx(clipped_area(polygon, grid[4]), rel=1e-9, abs=1e-9)


def clipped_area(polygon: Any, window: Any) -> float:
    """Cut a polygon by the four sides of a window, one after the other, and add up triangles."""
    corners = polygon.tolist()
    for axis, sign, end in ((0, 1, window[0]), (1, 1, window[1]), (0, -1, window[2]), (1, -1, window[3])):
        kept = []
        for one, other in zip(corners, corners[1:] + corners[:1], strict=True):
            inside, next_inside = (sign * (point[axis] - end) >= 0 for point in (one, other))
            if inside:
                kept.append(one)
            if inside != next_inside:
                t = (end - one[axis]) / (other[axis] - one[axis])
                kept.append([a + t * (b - a) for a, b in zip(one, other, strict=True)])
        corners = kept
    x, y = np.array(corners).reshape(-1, 2).T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def test_share_counts_from_seven_tenths_on() -> None:
    square = np.array([[[0.0, 0], [10, 0], [10, 10], [0, 10]]])
    windows = np.array([[3, 0, 23, 20], [4, 0, 24, 20], [10, 0, 30, 20]])
    assert [len(own) for own in objects_of_tiles(square, windows, (50, 50), Cut(20, 0))] == [1, 0, 0]


def test_names_bring_tiles_back() -> None:
    for window in plan_tiles((3000, 3000), CUTS["mmrotate-ms"]).tolist():
        assert place_of_tile(tile_name("P__1", window)) == ("P__1", (float(window[0]), float(window[1])), 1.0)


def test_label_text() -> None:
    polygons = np.array([[[2753.0, 2408.5], [2861, 2385], [2888, 2468], [2805, 2502.123456]]])
    text = label_text(polygons, ["plane"], [True], (2753, 2400), "P0003")
    assert text == "imagesource:P0003\ngsd:null\n0 8.5 108 -15 135 68 52 102.1235 plane 1\n"
    assert label_text(polygons[:0], [], [], (0, 0)) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"overlap": 1024}, "overlap=1024 must lie between 0 and tile=1024"),
        ({"rates": (1.0, 1.0)}, "must be different numbers above 0"),
        ({"rates": (0.0,)}, "must be different numbers above 0"),
        ({"rates": (2000.0,)}, "windows would have no pixels"),
        ({"min_share": 1.5}, "min_share=1.5 must lie between 0 and 1"),
        ({"pad": (0, 0, 256)}, "must be a colour of three numbers"),
    ],
)
def test_cuts_that_are_none(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FocaldetError, match=words.replace("(", r"\(")):
        Cut(**change)
