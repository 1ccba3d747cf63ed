"""Draw docs/images/conventions.png: one box in every form of `convert_boxes`. Run: python docs/draw_conventions.py."""

from __future__ import annotations

import io
import math
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.patches import Arc, FancyArrowPatch, Polygon, Wedge
from PIL import Image

from focaldet.geometry import convert_boxes, rbox_to_polygon

OUTPUT = Path(__file__).parent / "images" / "conventions.png"
BOX = torch.tensor([[60.0, 50.0, 70.0, 30.0, math.radians(-50)]], dtype=torch.float64)  # in "le90"
SIZE = 120, 104  # of a panel, in the pixels of the box
W_SIDE, H_SIDE, ANGLE, RANGE = "#d1495b", "#30638e", "#222222", "#ffe08a"

FORMS = {  # what is said below each name, the range of theta in degrees clockwise, and what to add to theta to get w
    "le90": ("w ≥ h,  θ in [−π/2, π/2)", (-90, 90), 0),
    "le135": ("w ≥ h,  θ in [−π/4, 3π/4)", (-45, 135), 0),
    "oc": ("θ in (0, π/2]", (0, 90), 0),
    "oc-negative": ("θ in [−π/2, 0)", (-90, 0), 0),
    "degrees-ccw": ("degrees, counter-clockwise, any range", None, 0),
    "tf90": ("degrees, θ in [−90, 0)", (-90, 0), 0),
    "tf180": ("w ≥ h,  degrees, θ in [−180, 0) = direction of w − 90", (-180, 0), 90),
    "polygon": ("corners from behind and left of θ, clockwise", None, 0),
    "hbox": ("the upright hull; what was turned is lost", None, 0),
}


def main() -> None:
    """Draw all forms into one picture."""
    figure, panels = plt.subplots(3, 3, figsize=(11.4, 11.6))
    for axes, (form, (rule, wedge, ahead)) in zip(panels.flat, FORMS.items(), strict=True):
        numbers = convert_boxes(BOX, "le90", form)[0].tolist()
        prepare(axes, form, rule, numbers)
        if form == "polygon":
            draw_polygon(axes, numbers)
        elif form == "hbox":
            draw_hull(axes, numbers)
        else:
            theta = direction_of(form, numbers[4])
            draw_box(axes, (*numbers[:4], math.radians(theta + ahead)), wedge)
            draw_angle(axes, numbers[:2], theta, wedge, ahead)
    figure.tight_layout(h_pad=1.6)
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=100, format="png")
    Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(OUTPUT, optimize=True)


def direction_of(form: str, theta: float) -> float:
    """Return theta of a form in degrees, clockwise."""
    if form == "degrees-ccw":
        return -theta
    return theta if form in ("tf90", "tf180") else math.degrees(theta)


def prepare(axes: Axes, form: str, rule: str, numbers: list[float]) -> None:
    """Set up one panel, in pixels as on the screen: x to the right, y down."""
    axes.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0), aspect="equal")
    axes.set_xticks([0, 60, 120])
    axes.set_yticks([0, 50, 100])
    axes.tick_params(labelsize=8, length=2)
    axes.set_title(f"{form}\n", fontsize=13, fontweight="bold")
    written = [f"{number:.3f}" if abs(number) < 5 else f"{number:.4g}" for number in numbers]
    lines = [written[:4], written[4:]] if len(written) == 8 else [written]
    text = "(" + ",\n ".join(", ".join(line) for line in lines) + ")"
    axes.text(0.5, 1.015, rule, transform=axes.transAxes, ha="center", va="bottom", fontsize=9)
    axes.set_xlabel(text.replace("-", "−"), fontsize=10.5, family="monospace")


def draw_box(axes: Axes, box: tuple[float, ...], wedge: tuple[int, int] | None = None) -> None:
    """Draw a rectangle with its w sides and h sides in two colours, and name them where the range of theta is not."""
    corners = fill_box(axes, box)
    for first, name, colour in ((0, "w", W_SIDE), (1, "h", H_SIDE)):
        labels = []
        for i in (first, first + 2):
            (x1, y1), (x2, y2) = corners[i], corners[(i + 1) % 4]
            axes.plot([x1, x2], [y1, y2], color=colour, linewidth=3, zorder=3)
            labels.append(((x1 + x2) / 2 - box[0], (y1 + y2) / 2 - box[1]))
        x, y = min(labels, key=lambda label: wedge is not None and within(label, wedge))
        out = 1 + 5 / math.hypot(x, y)
        place = box[0] + out * x, box[1] + out * y
        axes.text(*place, name, color=colour, ha="center", va="center", fontsize=12, fontweight="bold")


def within(point: tuple[float, float], wedge: tuple[int, int]) -> bool:
    """Say whether a point, seen from the centre, lies in a range of directions in degrees."""
    turn = math.degrees(math.atan2(point[1], point[0]))
    return any(wedge[0] <= turn + full <= wedge[1] for full in (-360, 0, 360))


def fill_box(axes: Axes, box: tuple[float, ...], edge: str = "none") -> list[list[float]]:
    """Draw a rectangle without names and return its corners."""
    corners: list[list[float]] = rbox_to_polygon(torch.tensor([box], dtype=torch.float64)).reshape(4, 2).tolist()
    axes.add_patch(Polygon(corners, closed=True, facecolor="#eef1f4", edgecolor=edge, linewidth=1.5, zorder=1))
    return corners


def draw_angle(axes: Axes, centre: list[float], theta: float, wedge: tuple[int, int] | None, ahead: int) -> None:
    """Draw theta from the x axis on, its range behind it, and where it points."""
    x, y = centre
    if wedge is not None:
        axes.add_patch(Wedge((x, y), 21, *wedge, facecolor=RANGE, alpha=0.75, zorder=2))
    axes.plot([x, x + 26], [y, y], color=ANGLE, linewidth=0.8, linestyle=":", zorder=4)
    turn = math.radians(theta)
    tip = x + 27 * math.cos(turn), y + 27 * math.sin(turn)
    style = {"arrowstyle": "-|>", "mutation_scale": 12, "shrinkA": 0, "shrinkB": 0, "zorder": 5}
    axes.add_patch(FancyArrowPatch((x, y), tip, color=ANGLE, linewidth=1.4, linestyle="--" if ahead else "-", **style))
    axes.add_patch(
        Arc((x, y), 26, 26, theta1=min(0, theta), theta2=max(0, theta), color=ANGLE, linewidth=1.2, zorder=4)
    )
    middle = math.radians(theta / 2)
    label = x + 17.5 * math.cos(middle), y + 17.5 * math.sin(middle)
    axes.text(*label, "θ", ha="center", va="center", fontsize=12, color=ANGLE, zorder=6)
    axes.plot(x, y, "o", color=ANGLE, markersize=4, zorder=6)


def draw_polygon(axes: Axes, numbers: list[float]) -> None:
    """Draw the corners with their numbers."""
    x, y = (sum(numbers[i::2]) / 4 for i in (0, 1))
    fill_box(axes, tuple(BOX[0].tolist()), edge="#9aa5b1")
    for i in range(4):
        corner = numbers[2 * i], numbers[2 * i + 1]
        axes.plot(*corner, "o", color=W_SIDE, markersize=6, zorder=5)
        away = math.hypot(corner[0] - x, corner[1] - y)
        out = corner[0] + (corner[0] - x) / away * 6, corner[1] + (corner[1] - y) / away * 6
        axes.text(*out, str(i + 1), ha="center", va="center", fontsize=12, fontweight="bold", color=W_SIDE)


def draw_hull(axes: Axes, numbers: list[float]) -> None:
    """Draw the upright hull around the box, with its two corners that are written."""
    x1, y1, x2, y2 = numbers
    fill_box(axes, tuple(BOX[0].tolist()), edge="#9aa5b1")
    axes.add_patch(Polygon([(x1, y1), (x2, y1), (x2, y2), (x1, y2)], fill=False, edgecolor=W_SIDE, linewidth=2.5))
    for name, (x, y), shift in (("x1, y1", (x1, y1), -4), ("x2, y2", (x2, y2), 4)):
        axes.plot(x, y, "o", color=W_SIDE, markersize=6, zorder=5)
        axes.text(x, y + shift, name, ha="center", va="center", fontsize=10, color=W_SIDE)


if __name__ == "__main__":
    main()
