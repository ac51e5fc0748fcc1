"""Text from files reaches a terminal as text."""

import json

import pytest

from visionr1.terminal import printable, printable_json


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("RBC é 猫 🙂\n\tfine", "RBC é 猫 🙂\n\tfine"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\x9b2J", r"\x9b2J"),
        ("caf\udce9 \ud800", r"caf\udce9 \ud800"),
        ("\u202etxt.exe\u2069", r"\u202etxt.exe\u2069"),
    ],
)
def test_control_characters_are_written_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_json_for_a_terminal_is_still_json() -> None:
    value = {"text": "猫\x1b[31m\x9b2J\u202e\n\t\x7f", "n": [1, 2.5]}
    shown = printable_json(value)
    assert json.loads(shown) == value
    assert printable(shown) == shown
    assert "猫" in shown
