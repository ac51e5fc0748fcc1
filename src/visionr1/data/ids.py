"""Ids as files write them, and the one way in which they are compared."""

from __future__ import annotations

from collections.abc import Iterable

from visionr1.samples import compose_text

Id = int | str

MAX_DIGITS = 100
"""Longer numbers are no ids: Python's time to read one grows with the square of its digits."""


def read_id(value: object) -> Id | None:
    """Return an id as a file has it: a whole number (7.0 is 7) or a text, "0007" with its zeros; None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int):
        return value if abs(value) < 10**MAX_DIGITS else None
    if isinstance(value, str) and value:
        return value
    return None


class IdIndex:
    """The ids of one file, found as any tool may write them.

    Ids that are written alike are one: 7, 7.0 and "7". An id that is not there as it is written means the only one of
    the same number: 7 means "0007", because many tools make numbers of file names. Where the file has "01" and "1",
    "001" means neither. So does a text mean the only id of the same letters, composed or not (macOS's names).
    """

    def __init__(self, ids: Iterable[Id] = ()) -> None:
        self._id_by_spelling: dict[Id, Id] = {}
        self._id_by_number: dict[int, Id | None] = {}
        self._id_by_letters: dict[str, Id | None] = {}
        for identity in ids:
            self.add(identity)

    def add(self, identity: Id) -> bool:
        """Add an id; return False, and change nothing, if one that is written alike is there."""
        spelling = _normalize(identity)
        if spelling in self._id_by_spelling:
            return False
        self._id_by_spelling[spelling] = identity

        # Where two ids have one number, it means neither.
        number = _read_number(identity)
        if number is not None:
            is_first = number not in self._id_by_number
            self._id_by_number[number] = identity if is_first else None
        elif isinstance(identity, str) and not identity.isascii():
            letters = compose_text(identity)
            self._id_by_letters[letters] = identity if letters not in self._id_by_letters else None
        return True

    def find(self, value: object) -> Id | None:
        """Return the id that `value` means, as the file writes it; None for one that is not there, or no id."""
        # The usual case, millions of times: a number among numbers.
        if type(value) is int and value in self._id_by_spelling:
            return self._id_by_spelling[value]

        identity = read_id(value)
        if identity is None:
            return None
        spelling = _normalize(identity)
        if spelling in self._id_by_spelling:
            return self._id_by_spelling[spelling]
        number = _read_number(identity)
        if number is not None:
            return self._id_by_number.get(number)
        return self._id_by_letters.get(compose_text(str(identity)))

    def __contains__(self, value: object) -> bool:
        return self.find(value) is not None


def _normalize(identity: Id) -> Id:
    """Return the number for a text that is written as numbers are, "7" but not "07"; any other id as it is."""
    number = _read_number(identity)
    if number is None or str(number) != str(identity):
        return identity
    return number


def _read_number(identity: Id) -> int | None:
    """Return the number that an id is, whatever its leading zeros; None for any other text."""
    if isinstance(identity, int):
        return identity

    # isdecimal alone would also take the digits of other scripts.
    digits = identity.removeprefix("-")
    if digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS:
        return int(identity)
    return None
