"""Ids: as a file writes them, and found under any way to write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.data.ids import MAX_DIGITS, IdIndex, read_id


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (7, 7),
        (7.0, 7),
        ("7", "7"),
        ("0007", "0007"),
        ("07a", "07a"),
        ("²", "²"),
        *[(value, None) for value in (True, 7.5, float("inf"), float("nan"), 1e300, 10**MAX_DIGITS, None, "", [1], {})],
    ],
)
def test_an_id_is_kept_as_the_file_has_it(value: object, expected: object) -> None:
    assert read_id(value) == expected and type(read_id(value)) is type(expected)


@pytest.mark.parametrize(
    ("ids", "value", "expected"),
    [
        (["000005", "000007"], "000005", "000005"),
        (["000005", "000007"], 5, "000005"),  # as tools that make numbers of file names write it
        (["000005", "000007"], "5", "000005"),
        (["000005", "000007"], 6, None),
        ([5, 7], "000005", 5),
        ([5, 7], 5.0, 5),
        (["7"], 7, "7"),
        (["01", "1"], "01", "01"),  # two ids of one number: each as it is written, another spelling is neither
        (["01", "1"], 1, "1"),
        (["01", "1"], "001", None),
        (["01", "001"], 1, None),
        (["a", "0x1"], 1, None),
        ([0], False, None),
        ([5], [5], None),
        (["9" * 5000], "9" * 5000, "9" * 5000),
    ],
)
def test_an_id_is_found_however_it_is_written(ids: list[int | str], value: object, expected: object) -> None:
    index = IdIndex(ids)
    assert index.find(value) == expected and type(index.find(value)) is type(expected)
    assert (value in index) == (expected is not None)


def test_ids_that_are_written_alike_are_one() -> None:
    index = IdIndex(["7"])
    assert not index.add(7) and index.find(7) == "7"
    assert index.add("07") and index.find("07") == "07"


@given(st.lists(st.integers(0, 30).map(lambda number: str(number).zfill(number % 4)) | st.text("0123a", max_size=3)))
def test_every_id_finds_itself(ids: list[str]) -> None:
    ids = list(dict.fromkeys(filter(None, ids)))
    index = IdIndex(ids)
    assert [index.find(identity) for identity in ids] == ids


def test_ids_with_a_sign_are_numbers_too() -> None:
    ids = IdIndex(["-1", "-02"])
    assert [ids.find(-1), ids.find("-1"), ids.find(-2), ids.find(1)] == ["-1", "-1", "-02", None]


def test_letters_composed_or_not_mean_the_only_id_of_them() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert IdIndex([decomposed]).find(composed) == decomposed
    both = IdIndex([decomposed, composed])
    assert [both.find(composed), both.find(decomposed)] == [composed, decomposed]
    halfway = IdIndex(["\u1eb7", "\u0103\u0323"])
    assert halfway.find("a\u0323\u0306") is None
