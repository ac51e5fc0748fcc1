"""Numbers and names as the page shows them; a field of a file that is not what it should be is shown as it stands."""

from typing import Any

MAX_NUMBER = 1e100
"""No loss, step or count is above this; the arithmetic of a chart stays finite below it."""


def number(value: Any) -> float | None:
    """Return `value` if it is a number of at most MAX_NUMBER, else None."""
    # True and false are ints to Python.
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None

    # NaN is not below any number.
    return value if abs(value) <= MAX_NUMBER else None


def percent(value: Any) -> str:
    """Write a share x 100; "n/a" below 0, as COCO writes -1 where there is nothing to measure, and for None."""
    if value is None:
        return "n/a"
    share = number(value)
    if share is None:
        return str(value)
    if share < 0:
        return "n/a"
    return f"{100 * share:.1f}"


def signed(value: float) -> str:
    """Write a difference of shares x 100, with its sign; the minus is a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(value: Any) -> str:
    """Write a count with commas between thousands."""
    if number(value) is None:
        return str(value)
    return f"{value:,}"


def fixed(value: Any, sign: str = "") -> str:
    """Write a number with two digits after the point; with `sign` "+" also positive ones have a sign."""
    if number(value) is None:
        return str(value)
    return f"{value:{sign}.2f}"


def words(key: str) -> str:
    """Write the name of a field in words."""
    return key.replace("_", " ")
