"""What is written as TOML is read back equal, and what TOML cannot hold is refused."""

import re
import tomllib
from datetime import date, datetime, time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.errors import RecipeError
from visionr1.toml import toml_key, toml_value

TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.one_of(
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False),
    st.booleans(),
    TEXTS,
    st.dates(),
    st.datetimes(),
    st.times(),
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3))


@given(VALUES)
def test_a_value_is_read_back_equal(value: Any) -> None:
    assert tomllib.loads(f"value = {toml_value(value)}") == {"value": value}


@given(TEXTS)
def test_a_key_is_read_back_equal(key: str) -> None:
    assert tomllib.loads(f"{toml_key(key)} = 1") == {key: 1}


@pytest.mark.parametrize(
    "value",
    [
        None,  # TOML has no null
        re.compile("x"),
        len,
        {"inside": [object]},
        1j,
    ],
)
def test_what_toml_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(RecipeError, match="a recipe cannot hold"):
        toml_value(value)


def test_dates_are_written_bare() -> None:
    assert (
        toml_value([date(2026, 1, 2), datetime(2026, 1, 2, 3), time(4)])
        == "[2026-01-02, 2026-01-02T03:00:00, 04:00:00]"
    )


def test_half_a_character_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"cannot hold 'caf\\udce9': expected text in UTF-8"):
        toml_value("caf\udce9")
