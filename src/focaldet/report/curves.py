"""Charts as inline SVG text, lines and stacked bars; the page's style sheet colours them, so they follow its theme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40

Range = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """One curve of a chart.

    Attributes:
        name: as in the legend.
        points: (x, y), x rising.
        tone: class names of the style sheet, such as "c1" or "c2 dashed".
    """

    name: str
    points: tuple[tuple[float, float], ...]
    tone: str


@dataclass(frozen=True)
class Frame:
    """Where data coordinates lie in the chart: `x` and `y` are the (low, high) that the axes span."""

    x: Range
    y: Range

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the SVG coordinates of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def line_chart(
    lines: Sequence[Line], *, labels: tuple[str, str], x: Range | None = None, y: Range | None = None
) -> str:
    """Draw curves over one pair of axes, with a legend and the last value of each curve in it.

    Args:
        lines: curves; those without points are left out.
        labels: what the x and the y axis show.
        x: range of the x axis; None takes that of the data.
        y: range of the y axis; None starts at 0 and reaches a round number above the data.

    Returns:
        HTML of a figure; a sentence in place of the chart where no curve has a point.
    """
    drawn = [line for line in lines if line.points]
    if not drawn:
        return '<figure class="chart"><p class="none">Nothing was measured.</p></figure>'
    xs = [point[0] for line in drawn for point in line.points]
    ys = [point[1] for line in drawn for point in line.points]
    frame = Frame(x or _widened(min(xs), max(xs)), y or (0.0, _ceiling(max(ys))))
    curves = "".join(_curve(line, frame) for line in drawn)
    return _figure([(line.name, line.tone) for line in drawn], _axes(frame, labels) + curves, labels)


def bar_chart(
    edges: Sequence[float], stacks: Sequence[tuple[str, Sequence[int], str]], *, labels: tuple[str, str]
) -> str:
    """Draw a histogram of stacked counts.

    Args:
        edges: (N + 1,) borders of the bins.
        stacks: (name, N counts, tone) from the bottom of the stack to its top.
        labels: what the x and the y axis show.
    """
    totals = [sum(counts) for counts in zip(*(counts for _, counts, _ in stacks), strict=True)]
    if not any(totals):
        return '<figure class="chart"><p class="none">There is nothing to count.</p></figure>'
    frame = Frame((edges[0], edges[-1]), (0.0, _ceiling(max(totals))))
    bars, base = [], [0] * len(totals)
    for name, counts, tone in stacks:
        for index, count in enumerate(counts):
            if count:
                bars.append(_bar(frame, (edges[index], edges[index + 1]), (base[index], count), f"bar {tone}", name))
            base[index] += count
    return _figure([(name, tone) for name, _, tone in stacks], _axes(frame, labels) + "".join(bars), labels)


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Return about `count` round numbers within [low, high].

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(1, 20)
    [5.0, 10.0, 15.0, 20.0]
    """
    step = _round_step((high - low) / count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 10) for index in range(first, last + 1)]


def _round_step(step: float) -> float:
    """Return 1, 2 or 5 times a power of ten, the nearest that is not much below `step`."""
    power = 10.0 ** math.floor(math.log10(step))
    return power * next(factor for factor in (1, 2, 5, 10) if step <= factor * power * 1.0001)


def _ceiling(value: float) -> float:
    """Return a round number at or above `value`, above 0."""
    if value <= 0:
        return 1.0
    step = _round_step(value / 5)
    return math.ceil(value / step - 1e-9) * step


def _widened(low: float, high: float) -> Range:
    """Return the range, made wide enough to divide by where all values are one."""
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _curve(line: Line, frame: Frame) -> str:
    places = [frame.place(x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    text = f'<polyline class="line {line.tone}" points="{path}"><title>{escape(line.name)}</title></polyline>'
    if len(places) > 40:  # dots would hide the curve
        return text
    for (x, y), (left, top) in zip(line.points, places, strict=True):
        label = f"{escape(line.name)}: {number(y)} at {number(x)}"
        text += (
            f'<circle class="dot {line.tone}" cx="{left:.1f}" cy="{top:.1f}" r="2.4"><title>{label}</title></circle>'
        )
    return text


def _bar(frame: Frame, x: Range, stack: tuple[int, int], tone: str, name: str) -> str:
    base, count = stack
    left, bottom = frame.place(x[0], base)
    right, top = frame.place(x[1], base + count)
    title = f"<title>{escape(name)}: {count} from {number(x[0])} to {number(x[1])}</title>"
    shape = f'x="{left + 0.8:.1f}" y="{top:.1f}" width="{right - left - 1.6:.1f}" height="{bottom - top:.1f}"'
    return f'<rect class="{tone}" {shape}>{title}</rect>'


def _axes(frame: Frame, labels: tuple[str, str]) -> str:
    parts = []
    for value in ticks(*frame.y):
        _, top = frame.place(frame.x[0], value)
        parts.append(f'<line class="grid-line" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{top:.1f}" y2="{top:.1f}"/>')
        parts.append(f'<text x="{LEFT - 7}" y="{top + 4:.1f}" text-anchor="end">{number(value)}</text>')
    for value in ticks(*frame.x):
        left, _ = frame.place(value, frame.y[0])
        parts.append(f'<text x="{left:.1f}" y="{HEIGHT - BOTTOM + 17}" text-anchor="middle">{number(value)}</text>')
    base = HEIGHT - BOTTOM
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="label" x="{middle}" y="{HEIGHT - 5}" text-anchor="middle">{escape(labels[0])}</text>')
    return "".join(parts)


def _figure(legend: Sequence[tuple[str, str]], content: str, labels: tuple[str, str]) -> str:
    keys = "".join(f'<span class="key {tone}"><i></i>{escape(name)}</span>' for name, tone in legend)
    title = escape(f"{labels[1]} over {labels[0]}")
    return (
        f'<figure class="chart"><figcaption>{keys}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">{content}</svg></figure>'
    )


def number(value: float) -> str:
    """Write a number as briefly as it can be read.

    >>> number(0.30000001), number(12.0), number(1234.5)
    ('0.3', '12', '1234')
    """
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
