"""--json: one document on standard output, all else on standard error."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rich.table import Table

from focaldet.cli.verb import Answer, print_answer, verb


def test_what_a_verb_prints_on_the_way_goes_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    @verb
    def chatty() -> Answer:
        print("working")
        return Answer({"x": 1}, "done", exit_code=1)

    assert chatty(as_json=True, debug=False) == 1
    out, err = capsys.readouterr()
    assert json.loads(out) == {"x": 1}
    assert err == "working\n"
    chatty(as_json=False, debug=False)
    assert capsys.readouterr().out == "done\n"


def test_tables_are_printed_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("class", "AP")
    table.add_row("ship", "0.5")
    print_answer(Answer({}, table), as_json=False)
    out = capsys.readouterr().out
    assert "ship" in out
    assert "\x1b" not in out


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_is_json(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        print_answer(Answer({"AP": value}, ""), as_json=True)


def test_names_of_other_scripts_stay_readable(capsys: pytest.CaptureFixture[str]) -> None:
    document: Any = {"class": "船"}
    print_answer(Answer(document, ""), as_json=True)
    assert "船" in capsys.readouterr().out
