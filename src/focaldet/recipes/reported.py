"""What the DOTA server answered for each class, where it was published (`spec/rotated.md` section 6)."""

from __future__ import annotations

from focaldet.recipes.recipe import Recipe

CLASSES = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle", "ship",
    "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout", "harbor", "swimming-pool",
    "helicopter",
)  # fmt: skip
"""In the devkit's order."""

# fmt: off
BY_ROW: dict[int, tuple[float, ...]] = {
    1: (87.98, 61.72, 33.58, 50.22, 60.89, 38.53, 54.84, 90.54, 62.76, 74.81, 26.79, 54.74, 29.10, 53.67, 17.30),
    2: (88.53, 74.98, 41.15, 67.76, 53.75, 48.30, 55.92, 90.19, 81.26, 79.12, 52.82, 61.98, 55.77, 56.72, 39.41),
    3: (88.58, 72.33, 39.25, 57.58, 63.50, 50.68, 65.93, 90.81, 74.53, 76.64, 45.41, 59.25, 51.93, 61.27, 44.19),
    4: (89.11, 77.69, 43.36, 65.86, 55.89, 43.40, 56.16, 90.54, 79.61, 79.49, 58.68, 63.43, 56.32, 57.86, 53.50),
    5: (89.35, 75.23, 42.26, 61.76, 66.54, 56.75, 65.77, 90.81, 79.68, 78.11, 51.31, 59.88, 54.09, 63.28, 52.09),
    6: (88.78, 77.36, 41.43, 66.18, 55.52, 48.57, 64.83, 90.85, 81.40, 80.26, 52.37, 59.81, 55.26, 66.52, 47.57),
    7: (88.25, 76.88, 38.47, 66.48, 54.15, 47.89, 60.87, 90.01, 79.21, 79.40, 51.92, 60.54, 53.63, 59.14, 54.72),
    8: (88.38, 68.45, 32.74, 57.98, 66.45, 73.37, 74.63, 90.86, 73.53, 74.02, 45.73, 60.72, 50.52, 57.10, 14.58),
    9: (88.79, 68.27, 31.64, 56.58, 66.38, 72.74, 70.32, 90.86, 73.87, 75.55, 44.22, 57.90, 51.96, 56.77, 27.95),
    10: (88.96, 70.74, 33.82, 55.22, 66.09, 74.27, 75.79, 90.88, 76.90, 75.29, 44.34, 59.76, 53.72, 58.03, 16.48),
    11: (88.06, 73.89, 42.72, 67.27, 65.81, 72.76, 70.14, 89.03, 75.24, 67.62, 54.63, 58.92, 56.07, 66.07, 46.44),
    18: (88.68, 85.22, 54.70, 73.71, 71.92, 84.14, 79.39, 90.82, 87.04, 86.02, 67.90, 60.86, 74.52, 70.76, 72.66),
}
"""AP x 100 of each class, by row of the DOTA table.

Rows 12 and 16 were published without; what is told of rows 13 to 15 and 17 could not be verified, and is left out.
"""
# fmt: on


def reported_classes(recipe: Recipe) -> dict[str, float]:
    """Return what was reported of each class, AP x 100; nothing where nothing was."""
    figures = BY_ROW.get(recipe.row, ()) if recipe.kind == "rbox" else ()
    return dict(zip(CLASSES, figures, strict=False))
