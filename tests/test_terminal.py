"""Text from files reaches a terminal as text."""

import pytest

from visionr1.terminal import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("RBC é 猫 🙂\n\tfine", "RBC é 猫 🙂\n\tfine"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("over\rwritten\x08", r"over\rwritten\x08"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202etxt.exe\u2069", r"\u202etxt.exe\u2069"),
    ],
)
def test_control_characters_are_written_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
