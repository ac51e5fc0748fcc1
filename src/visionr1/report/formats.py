"""Numbers and names as the page shows them; a field of a file that is not what it should be is shown as it stands."""

import math
from typing import Any


def number(value: Any) -> float | None:
    """Return `value` if it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def percent(value: Any) -> str:
    """A share x 100; "n/a" below 0, as COCO writes -1 where there is nothing to measure, and for None."""
    share = number(value)
    if share is None:
        return "n/a" if value is None else str(value)
    return f"{100 * share:.1f}" if share >= 0 else "n/a"


def signed(value: float) -> str:
    """A difference of shares x 100, with its sign; the minus is a true minus sign."""
    return f"{100 * value:+.1f}".replace("-", "\N{MINUS SIGN}")


def count(value: Any) -> str:
    """A count with commas between thousands."""
    return str(value) if number(value) is None else f"{value:,}"


def fixed(value: Any, sign: str = "") -> str:
    """A number with two digits after the point; with `sign` "+" also positive ones have a sign."""
    return str(value) if number(value) is None else f"{value:{sign}.2f}"


def words(key: str) -> str:
    """The name of a field in words."""
    return key.replace("_", " ")
