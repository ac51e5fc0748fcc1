"""Pickles of annotations: plain data is read, whatever could run is refused before it does."""

import contextlib
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from visionr1.data.pickles import read_pickle
from visionr1.errors import DataError

PLAIN = [
    {"ref_id": 1, "bbox": [0.5, 2, 3, 4], "tokens": ("the", "café"), "split": "val", "none": None, "yes": True},
    {1, 2},
    frozenset("ab"),
    b"\xff\x00",
    b"",
    10**30,
]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_is_read_in_every_protocol(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.p").write_bytes(pickle.dumps(PLAIN, protocol=protocol))
    assert read_pickle(tmp_path / "a.p") == PLAIN


def test_strings_of_python_2_are_text(tmp_path: Path) -> None:
    """RefCOCO's files were written by Python 2: byte strings (S), unicode (V), long integers (L)."""
    rows = b"(lp0\n(dp1\nS'split'\np2\nS'val'\np3\nsS'sent'\np4\nVcaf\\u00e9\np5\nsS'raw'\nS'caf\\xc3\\xa9'\n"
    rows += b"sS'id'\nL5L\nsa."
    (tmp_path / "refs.p").write_bytes(rows)
    assert read_pickle(tmp_path / "refs.p") == [{"split": "val", "sent": "café", "raw": "café", "id": 5}]


class Runs:
    """What an attacker would write."""

    def __init__(self, call: Any, *args: Any) -> None:
        self.call = call, args

    def __reduce__(self) -> Any:
        return self.call


HOSTILE: list[tuple[Any, str]] = [
    (Runs(os.system, "touch ran"), r"(posix|nt)\.system"),
    (Runs(eval, "open('ran', 'w')"), "eval"),
    (Runs(getattr, [], "append"), "getattr"),
    (Runs(bytes, 10**12), "bytes of int"),  # a size, not bytes
    (OrderedDict(a=1), r"collections\.OrderedDict"),
    (np.float64(0.5), "numpy"),
    (Path("x"), "pathlib"),
]


@pytest.mark.parametrize(("value", "asked"), HOSTILE)
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_what_could_run_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: Any, asked: str, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.p").write_bytes(pickle.dumps([value], protocol=protocol))
    with pytest.raises(DataError, match=rf"a\.p: this pickle asks for .*({asked}|copyreg|_reconstructor)"):
        read_pickle(tmp_path / "a.p")
    assert not (tmp_path / "ran").exists()


RAW = {
    "persistent object": b"Pabc\n.",
    "extension": b"\x82\x01.",
    "another codec": b"c_codecs\nencode\n(Vabc\nVzip\ntR.",
    "attributes of what encodes": b"c_codecs\nencode\n(dVtext\nV1\nsb.",
    "attributes of set": b"cbuiltins\nset\n(N(dVadd\nV1\nstb.",
    "truncated": pickle.dumps(PLAIN)[:20],
    "a huge size": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a huge place in the memo": b"N\x72\xff\xff\xff\xff.",
    "nothing": b"",
    "text": b"hello",
}


@pytest.mark.parametrize("content", RAW.values(), ids=list(RAW))
def test_broken_and_crafted_files_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.p").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.p"):
        read_pickle(tmp_path / "a.p")


@given(st.binary(max_size=60))
def test_any_bytes_are_data_or_a_named_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.p"
    file.write_bytes(content)
    with contextlib.suppress(DataError):
        read_pickle(file)


def test_a_missing_and_an_enormous_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*gone\.p"):
        read_pickle(tmp_path / "gone.p")
    with (tmp_path / "big.p").open("wb") as file:
        file.truncate((1 << 30) + 1)  # sparse
    with pytest.raises(DataError, match="are not read"):
        read_pickle(tmp_path / "big.p")


def put_long(index: int) -> bytes:
    return b"r" + index.to_bytes(4, "little")


def test_a_place_in_the_memo_that_was_never_reached_is_refused(tmp_path: Path) -> None:
    """The memo is an array: 9 bytes asked for 1.6 GB."""
    for content in (b"\x80\x02N" + put_long(10**8), b"\x80\x02N" + put_long(4), b"Np" + b"9" * 8 + b"\n"):
        (tmp_path / "a.p").write_bytes(content + b".")
        with pytest.raises(
            DataError, match=r"a\.p is not a pickle of plain data: .*it names place \d+ of a memo of \d"
        ):
            read_pickle(tmp_path / "a.p")
    (tmp_path / "a.p").write_bytes(b"\x80\x02N" + put_long(3) + b".")
    assert read_pickle(tmp_path / "a.p") is None


DOUBLED = b"K\x01\x85" + b"2\x86" * 200
"""A tuple of two equal tuples, 200 times."""


@pytest.mark.parametrize(
    "content",
    [
        b"}" + DOUBLED + b"K\x01s.",
        b"}(" + DOUBLED + b"K\x01u.",
        b"(" + DOUBLED + b"K\x01d.",
        b"\x8f(" + DOUBLED + b"\x90.",
        b"(" + DOUBLED + b"\x91.",
        b"c__builtin__\nset\n](" + DOUBLED + b"e\x85R.",
        b"c__builtin__\nfrozenset\n]" + DOUBLED + b"a\x85R.",
        b"(" + b"](" + DOUBLED + b"e" + b"i__builtin__\nfrozenset\n.",
        # Each is small, but hashed again and again.
        b"}" + b"K\x01\x85" + b"2\x86" * 14 + b"q\x00" + b"K\x01s" + b"h\x00K\x01s" * 3000 + b".",
    ],
)
def test_keys_that_would_be_hashed_for_ever_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.p").write_bytes(b"\x80\x04" + content)
    with pytest.raises(DataError, match=r"a\.p is not a pickle of plain data: .*hashing them would take for ever"):
        read_pickle(tmp_path / "a.p")


def test_a_tuple_nested_without_end_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "a.p").write_bytes(b"\x80\x02})" + b"\x85" * 300_000 + b"K\x01s.")
    with pytest.raises(DataError, match="hashing them would take for ever"):
        read_pickle(tmp_path / "a.p")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_many_tuples_and_shared_ones_are_read(tmp_path: Path, protocol: int) -> None:
    box = (1.5, 2, 3, 4)
    points = [(i, (i + 1, "x")) for i in range(3000)]
    value = {"boxes": [box] * 3000, "points": points, "by_point": dict.fromkeys(points, points), "set": set(points)}
    (tmp_path / "a.p").write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickle(tmp_path / "a.p") == value
