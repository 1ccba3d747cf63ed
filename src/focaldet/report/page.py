"""The page of a run: one HTML file that needs nothing else, in the light or dark of whoever reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from focaldet.report.curves import Line, bar_chart, line_chart
from focaldet.report.data import ClassRow, Confusion, Figure, Operating, ReportData, Validation
from focaldet.report.pictures import picture_card

STYLE = Path(__file__).with_name("page.css")

SCRIPT = """
const slider = document.getElementById("threshold");
slider?.addEventListener("input", () => {
  const threshold = Number(slider.value);
  document.getElementById("threshold-value").textContent = threshold.toFixed(2);
  for (const card of document.querySelectorAll(".picture")) {
    for (const box of card.querySelectorAll("[data-score]")) {
      const above = Number(box.dataset.score) >= threshold;
      box.toggleAttribute("hidden", box.classList.contains("missed") ? above : !above);
    }
    for (const count of card.querySelectorAll("[data-count]"))
      count.textContent = card.querySelectorAll(`.box.${count.dataset.count}:not([hidden])`).length;
  }
});
"""
"""Moves the threshold of the pictures; without it the page shows them at the best F1."""


def render(data: ReportData) -> str:
    """Return the HTML page of a report; names of files and classes are escaped, nothing is loaded from elsewhere."""
    sections = (
        _header(data),
        _section("How it learned", "", _history(data.history)),
        "" if data.validation is None else _validation(data.validation),
        _section("What was run", "", _facts(data.facts, data.recipe)),
        _section("Use it", "", _usage(data.usage)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(data.title)}</title><style>\n{STYLE.read_text(encoding='utf-8')}</style></head>\n"
        f"<body><main>{''.join(sections)}\n<footer>Written by focaldet. This file needs no other.</footer></main>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


SEEN = (
    "Validation pictures, which the training never saw. A hit overlaps a truth box of its class with an IoU of at "
    "least 0.5. Move the threshold, or point at a box."
)


def _validation(validation: Validation) -> str:
    return (
        _section("How good it is", f"Scored by {escape(validation.rule)}. From 0 to 1.", _scores(validation))
        + _section("Where it errs", _operating(validation.operating), _errors(validation))
        + _section("What it sees", SEEN, _pictures(validation))
    )


def _section(heading: str, lead: str, content: str) -> str:
    told = f'<p class="lead">{lead}</p>' if lead else ""
    return f"\n<section><h2>{heading}</h2>{told}{content}</section>" if content else ""


def _card(heading: str, content: str, note: str = "") -> str:
    foot = f'<p class="note">{note}</p>' if note else ""
    return f'<div class="card"><h3>{heading}</h3>{content}{foot}</div>'


def _header(data: ReportData) -> str:
    tiles = "".join(
        f'<div class="card{" main" if index == 0 else ""}"><b>{escape(value)}</b>'
        f"<span>{escape(name)}</span><small>{escape(note)}</small></div>"
        for index, (value, name, note) in enumerate(data.headline)
    )
    title = f"<h1>{escape(data.title)}</h1><p>{escape(data.lead)}</p>"
    return f'<header>{title}</header><div class="figures">{tiles}</div>'


LOSSES = (("loss", "train, total", "c1"), ("class", "train, class", "c2"), ("box", "train, box", "c3"))


def _history(history: Mapping[str, tuple[tuple[float, float], ...]]) -> str:
    """Return the charts of losses and of AP over epochs."""
    losses = [Line(name, history.get(column, ()), tone) for column, name, tone in LOSSES]
    losses.append(Line("validation, total", history.get("val_loss", ()), "c5 dashed"))
    scores = [Line(name, history.get(name, ()), f"c{tone}") for name, tone in (("AP50", 1), ("AP", 2), ("AP75", 3))]
    return (
        f'<div class="grid">{_card("Loss", line_chart(losses, labels=("epoch", "loss")))}'
        + _card("AP on the validation pictures", line_chart(scores, labels=("epoch", "AP"), y=(0.0, 1.0)), AP_NOTE)
        + "</div>"
    )


AP_NOTE = "AP50: at IoU 0.50. AP75: at IoU 0.75. AP: mean over IoU 0.50 to 0.95 in steps of 0.05."


def _scores(data: Validation) -> str:
    """Return the table of the twelve figures beside that of the classes and their curves."""
    curves = line_chart(data.precision_recall, labels=("recall", "precision"), x=(0.0, 1.0), y=(0.0, 1.0))
    classes = _card("Each class", _class_table(data.classes), AP_NOTE)
    classes += _card("Precision over recall at IoU 0.50", curves, "The area under a curve is the AP50 of its class.")
    return (
        f'<div class="grid">{_card("All classes", _figure_table(data.figures))}<div class="stack">{classes}</div></div>'
    )


def _figure_table(figures: Sequence[Figure]) -> str:
    rows = "".join(
        f'<tr><th class="name">{escape(figure.name)}</th><td class="n">{_value(figure.value)}</td>'
        f'<td class="rule">{escape(figure.rule)}</td></tr>'
        for figure in figures
    )
    return f'<div class="scroll"><table><tbody>{rows}</tbody></table></div>'


def _class_table(classes: Sequence[ClassRow]) -> str:
    rows = "".join(
        f'<tr><th class="name">{escape(row.name)}</th><td class="n">{_value(row.ap)}</td>{_meter(row.ap)}'
        f'<td class="n">{_value(row.ap50)}</td><td class="n">{_value(row.ap75)}</td>'
        f'<td class="n">{row.objects:,}</td></tr>'
        for row in classes
    )
    heads = "".join(
        f"<th{'' if name in ('class', '') else NUMERIC}>{name}</th>"
        for name in ("class", "AP", "", "AP50", "AP75", "objects")
    )
    return f'<div class="scroll tall"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


NUMERIC = ' class="n"'


def _value(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _meter(value: float | None) -> str:
    return f'<td class="meter"><i style="width:{100 * (value or 0):.0f}%"></i></td>'


def _operating(operating: Operating) -> str:
    return (
        f"Of the detections with a score of {operating.score:.2f} or more, {operating.precision:.0%} hit an object; "
        f"they find {operating.recall:.0%} of all objects (IoU at least 0.5). "
        "No other threshold has a higher F1 on these pictures."
    )


def _errors(data: Validation) -> str:
    """Return the histogram of scores and the confusion matrix."""
    stacks = (("hits", data.histogram.hits, "hit block"), ("false alarms", data.histogram.false, "false block"))
    bars = bar_chart(data.histogram.edges, stacks, labels=("score", "detections"))
    cards = _card("Scores of the detections", bars, "The further apart the colours, the easier the threshold.")
    if data.confusion is not None:
        title = f"What was taken for what, at a score of {data.operating.score:.2f} or more"
        cards += _card(title, _confusion(data.confusion), CONFUSION_NOTE)
    return f'<div class="grid">{cards}</div>'


CONFUSION_NOTE = (
    "Rows: what is there. Columns: what was said. A pair overlaps with an IoU of at least 0.5, whatever its classes, "
    "best scores first. Shade: share of the row."
)


def _confusion(confusion: Confusion) -> str:
    heads = "".join(f"<th>{escape(name)}</th>" for name in confusion.names) + "<th>missed</th>"
    rows = []
    for index, counts in enumerate(confusion.counts):
        background = index == len(confusion.names)
        name = "false alarm" if background else escape(confusion.names[index])
        cells = "".join(_cell(count, sum(counts), index == column) for column, count in enumerate(counts[:-1]))
        cells += "<td></td>" if background else _cell(counts[-1], sum(counts), False, "missed")
        rows.append(f"<tr><th>{name}</th>{cells}</tr>")
    return (
        f'<div class="scroll"><table class="confusion"><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _cell(count: int, total: int, right: bool, tone: str = "false") -> str:
    share = 60 * count / max(total, 1)  # full colour would hide the number
    return f'<td class="{"hit" if right else tone}" style="--share:{share:.0f}">{count}</td>'


def _pictures(data: Validation) -> str:
    """Return the slider and the pictures under their headings."""
    if not any(data.pictures.values()):
        return '<p class="none">There is no validation picture to show.</p>'
    threshold = round(data.operating.score, 2)
    keys = "".join(
        f'<span class="key {tone}"><i></i>{name}</span>'
        for tone, name in (("hit", "hit"), ("false dashed", "false alarm"), ("missed dashed", "missed"))
    )
    control = (
        f'<div class="card control"><label>Score from <output id="threshold-value">{threshold:.2f}</output>'
        '<input id="threshold" type="range" min="0.05" max="0.95" step="0.01" '
        f'value="{threshold:.2f}"></label>{keys}</div>'
    )
    text, number = [control], 0
    for heading, pictures in data.pictures.items():
        text.append(f"<h3>{escape(heading)}</h3>" if pictures else "")
        for picture in pictures:
            text.append(picture_card(picture, number, threshold, data.labels))
            number += 1
    return "".join(text)


def _facts(facts: Mapping[str, str], recipe: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    fields = "".join(f"<div><span>{escape(name)}:</span> {escape(value)}</div>" for name, value in recipe.items())
    every = f'<details><summary>Every field of the recipe</summary><div class="fields">{fields}</div></details>'
    return f'<div class="card"><dl>{rows}</dl>{every if recipe else ""}</div>'


def _usage(usage: Mapping[str, str]) -> str:
    parts = "".join(
        f"<h3>{escape(heading)}</h3><pre><code>{escape(code)}</code></pre>" for heading, code in usage.items()
    )
    return f'<div class="card use">{parts}</div>' if parts else ""
