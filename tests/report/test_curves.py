from __future__ import annotations

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focaldet.report.curves import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Line, bar_chart, line_chart, ticks

LABELS = ("epoch", "loss")


def _drawn(text: str, tag: str) -> list[dict[str, str]]:
    return [element.attrib for element in ET.fromstring(text).iter(tag)]


def test_line_spans_the_chart_from_corner_to_corner() -> None:
    text = line_chart([Line("total", ((1, 0.0), (3, 2.0)), "c1")], labels=LABELS)
    (curve,) = _drawn(text, "polyline")
    assert curve["points"] == f"{LEFT:.1f},{HEIGHT - BOTTOM:.1f} {WIDTH - RIGHT:.1f},{TOP:.1f}"


def test_single_point_is_a_dot() -> None:
    text = line_chart([Line("total", ((1, 0.5),), "c1")], labels=LABELS)
    assert len(_drawn(text, "circle")) == 1
    assert "nan" not in text


def test_long_curve_has_no_dots() -> None:
    text = line_chart([Line("precision", tuple((n / 100, 0.5) for n in range(101)), "c1")], labels=LABELS)
    assert not _drawn(text, "circle")


def test_lines_without_points_are_left_out_and_said() -> None:
    text = line_chart([Line("train", ((1, 1.0), (2, 1.0)), "c1"), Line("validation", (), "c2")], labels=LABELS)
    assert "validation" not in text
    assert "Nothing was measured" in line_chart([Line("validation", (), "c2")], labels=LABELS)


def test_names_are_escaped() -> None:
    text = line_chart([Line("<script>", ((1, 1.0), (2, 2.0)), "c1")], labels=LABELS)
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_bars_stack() -> None:
    text = bar_chart([0, 0.5, 1], [("hits", [1, 3], "hit"), ("false alarms", [2, 0], "false")], labels=LABELS)
    bars = [rect for rect in _drawn(text, "rect") if "bar" in rect["class"]]
    tops = [float(bar["y"]) for bar in bars]
    bottoms = [float(bar["y"]) + float(bar["height"]) for bar in bars]
    assert len(bars) == 3  # an empty bin draws nothing
    assert bottoms[:2] == pytest.approx([HEIGHT - BOTTOM] * 2, abs=0.11)
    assert bottoms[2] == pytest.approx(tops[0], abs=0.11)  # one decimal is written


def test_no_bars_are_a_sentence() -> None:
    assert "nothing to count" in bar_chart([0, 1], [("hits", [0], "hit")], labels=LABELS)


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_ticks_are_few_round_and_within(low: float, span: float) -> None:
    found = ticks(low, low + span)
    slack = 1e-6 * span + 1e-9
    assert 1 <= len(found) <= 6
    assert all(low - slack <= value <= low + span + slack for value in found)


def test_charts_are_figures_with_a_label() -> None:
    text = line_chart([Line("AP", ((1, 0.2), (2, 0.4)), "c1")], labels=("epoch", "AP"), y=(0, 1))
    assert 'aria-label="AP over epoch"' in text
    assert re.findall(r">(0\.\d|\d)</text>", text)[:6] == ["0", "0.2", "0.4", "0.6", "0.8", "1"]
